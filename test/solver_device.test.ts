// The Newton matrix on a GPU: the same matrix as on the CPU but for rounding, as rows and columns come and go.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openSolver } from '../src/index.ts'
import { Matrix } from '../src/solver/matrix.ts'
import { NewtonMatrix } from '../src/solver/newton_matrix.ts'
import { Team } from '../src/solver/team.ts'
import { WorkingSet } from '../src/solver/working_set.ts'
import { fails } from './assert.ts'
import { random } from './random.ts'

const ROWS = 9000
const COLUMNS = 400

test('a GPU gives the same Newton matrix', async () => {
  const device = await openDevice('webgpu:software')
  const team = await Team.open(1)
  try {
    const data = random(1).normal(ROWS * COLUMNS)
    const matrix = new Matrix(team, 'f32', ROWS, COLUMNS)
    matrix.load(0, data)
    matrix.measure()
    const names = team.arena.u32(ROWS)
    for (let k = 0; k < ROWS; k++) names.values[k] = k
    const set = new WorkingSet(matrix, names, ROWS)
    const matrices = [null, device].map((gpu) => new NewtonMatrix(team, set, ROWS, COLUMNS + 80, gpu))
    set.add(Array.from({ length: COLUMNS }, (_, j) => j))
    const near = Array.from({ length: COLUMNS - 4 }, (_, slot) => slot)
    const curvature = random(2).uniform(ROWS, 0.5, 1.5)
    const steps = [
      { slots: near, row: () => true },
      { slots: near, row: (k: number) => k % 3 > 0 },
      { slots: [...near, COLUMNS - 1], row: (k: number) => k % 3 > 0 },
    ]
    for (const [step, { slots, row }] of steps.entries()) {
      const weights = Float64Array.from(curvature, (value, k) => (row(k) ? value : 0))
      for (const newton of matrices) await newton.update(slots, weights)
      const [cpu, gpu] = matrices.map(({ at, ld, size }) => {
        const g = new Float32Array(team.arena.memory.buffer, at, size * ld)
        return Float64Array.from({ length: size * size }, (_, i) => g[Math.floor(i / size) * ld + (i % size)])
      })
      assert.is(cpu.length, gpu.length)
      // Sums of up to ROWS products of values and weights near 1, subtracted once: error 2^-24 sqrt(ROWS) times their size.
      const limit = 8 * 2 ** -24 * Math.sqrt(2 * ROWS) * Math.sqrt(ROWS) * 1.5
      const worst = cpu.reduce((most, value, i) => Math.max(most, Math.abs(value - gpu[i])), 0)
      assert.ok(worst < limit, `step ${step}: ${worst} of at most ${limit}`)
      assert.ok(
        cpu.some((value, i) => value !== gpu[i]),
        'the GPU took part',
      )
    }
  } finally {
    await team.close()
    await device.destroy()
  }
})

test('a fit with a device is certified as any other; the caller keeps a device of its own', async () => {
  const source = random(3)
  const [rows, columns] = [2000, 100]
  const features = { rows, columns, data: source.normal(rows * columns) }
  const labels = source.normal(rows)
  const own = await openDevice('webgpu:software')
  for (const device of ['auto', 'webgpu:software', own] as const) {
    const solver = await openSolver(features, { device })
    const { fits } = await solver.fit(labels, { levels: [0.3] })
    assert.is(fits[0].status, 'optimal')
    await solver.close()
  }
  await own.done()
  await own.destroy()
  await fails(() => openSolver(features, { device: 'cuda' as 'auto' }), /^device: must be one of/)
})

test.run()
