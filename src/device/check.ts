// A small computation whose result is known: whether a GPU that was found is one to rely on.
import type { Device } from './device.ts'

/** A driver that has to compile its first kernel takes a second at most. */
const PATIENCE_MS = 10_000
const ROWS = 3
const COLUMNS = 100
const EPS = 1e-5

/**
 * Runs a norm, which needs barriers and shared memory, and a sum. Throws where a number is wrong, the device fails or there is no
 * answer; takes a few milliseconds.
 */
export async function checkDevice(device: Device): Promise<void> {
  const value = (i: number): number => ((i * 37) % 101) - 50
  const data = Float32Array.from({ length: ROWS * COLUMNS }, (_, i) => value(i))
  const x = device.tensor([ROWS, COLUMNS], { label: 'check', data })
  const weight = device.tensor([COLUMNS], { label: 'check', data: new Float32Array(COLUMNS).fill(2) })
  const y = device.tensor([ROWS, COLUMNS], { label: 'check' })
  const rstd = device.tensor([ROWS], { label: 'check' })
  try {
    device.run('rms_norm', { x, weight, y, rstd }, { eps: EPS })
    device.run('add', { x: y, y: x })
    const results = await withinTime(y.readF32())
    for (let row = 0; row < ROWS; row++) {
      const values = data.subarray(row * COLUMNS, (row + 1) * COLUMNS)
      const scale = 1 / Math.sqrt(values.reduce((sum, v) => sum + (v * v) / COLUMNS, EPS))
      for (const [column, v] of values.entries()) {
        const [expected, found] = [v + 2 * v * scale, results[row * COLUMNS + column]!]
        if (!(Math.abs(found - expected) <= 1e-4 * (1 + Math.abs(expected))))
          throw new Error(`a check gave ${found} in the place of ${expected}`)
      }
    }
  } finally {
    for (const tensor of [x, weight, y, rstd]) tensor.destroy()
  }
}

async function withinTime<T>(work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
