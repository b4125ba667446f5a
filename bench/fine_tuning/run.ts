// What the two parts of the benchmark of fine-tuning share: the run, rows split by a hash, and intervals by bootstrap.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { fraction } from '../../models/nano/rows.ts'
import { randomBits, shuffled } from '../../src/data/random.ts'
import type { Device } from '../../src/device/device.ts'
import type { ModelFiles } from '../../src/files/source.ts'
import type { AdapterProgress, AdapterTraining } from '../../src/train/adapter_training.ts'

export interface Run {
  readonly device: Device
  /** The base. */
  readonly files: ModelFiles
  readonly seed: number
  readonly adapter: Partial<AdapterTraining>
  /** Makes a folder for what is made, and gives its path. */
  folder(name: string): Promise<string>
}

/** Share of what is held out. */
const HELD = 0.25

/** Rows of JSON Lines, packed by gzip. */
export async function readLines<Row>(folder: string, file: string): Promise<Row[]> {
  const text = gunzipSync(await readFile(join(folder, file))).toString('utf8')
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row)
}

/** Rows in a random order, those of equal keys on one side; at most so many of each. */
export function split<Row>(
  rows: readonly Row[],
  keyOf: (row: Row) => string,
  seed: number,
  { training, held }: { readonly training: number; readonly held: number },
): { readonly training: Row[]; readonly held: Row[] } {
  const numbers = shuffled(
    Uint32Array.from({ length: rows.length }, (_, i) => i),
    seed,
    0,
  )
  const isHeld = (row: Row) => fraction(`split ${seed} of ${keyOf(row)}`) < HELD
  const all = Array.from(numbers, (i) => rows[i]!)
  return { training: all.filter((row) => !isHeld(row)).slice(0, training), held: all.filter(isHeld).slice(0, held) }
}

/**
 * A statistic of sums over items, with its 95 % percentile interval: items are drawn with replacement. `items` are vectors of what is
 * summed, all of one length.
 */
export function bootstrap(
  items: readonly Float64Array[],
  statistic: (sums: Float64Array) => number,
  { samples = 2000, seed = 0 } = {},
): { readonly value: number; readonly interval: readonly [number, number] } {
  const width = items[0]!.length
  const total = (choose: (i: number) => number): Float64Array => {
    const sums = new Float64Array(width)
    for (let i = 0; i < items.length; i++) {
      const item = items[choose(i)]!
      for (let k = 0; k < width; k++) sums[k]! += item[k]!
    }
    return sums
  }
  const value = statistic(total((i) => i))
  const found = Float64Array.from({ length: samples }, (_, s) =>
    statistic(total((i) => Math.floor((randomBits(seed, s, i) / 2 ** 32) * items.length))),
  ).sort()
  const at = (share: number) => found[Math.min(samples - 1, Math.floor(share * samples))]!
  return { value, interval: [at(0.025), at(0.975)] }
}

/** Tells how far a training has come, every ten steps. */
export function teller(what: string): (progress: AdapterProgress) => void {
  const begin = performance.now()
  let last = -1
  let first: AdapterProgress | null = null
  return (progress) => {
    first ??= progress
    const { step, steps, loss, tokens } = progress
    if (step === last || step % 10 !== 0 || loss === null) return
    last = step
    const seconds = (performance.now() - begin) / 1000
    const rate = (tokens - first.tokens) / seconds
    const left = (seconds / Math.max(1e-9, step - first.step)) * (steps - step)
    console.error(
      `${what}: step ${step} of ${steps}, loss ${loss?.toFixed(4)}, ${rate.toFixed(0)} tokens a second, ${(left / 60).toFixed(1)} min left`,
    )
  }
}
