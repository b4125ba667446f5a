// Fits whose quantiles must not cross: the order, counted from the stored weights, and the bounds, computed here from the claimed
// dual points and multipliers.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fitQuantiles, type QuantileFit } from '../src/index.ts'
import { random } from './random.ts'
import { type Features, type Labels, objective, regression } from './reference/quantile_regression.ts'
import { makeFeatures, makeLabels, type Problem, sampleProblem, states } from './solver_problems.ts'

const LEVELS = [0.05, 0.2, 0.35, 0.5, 0.7, 0.9]
const TOLERANCE = 1e-4

interface Options {
  readonly alpha: number
  readonly intercept: boolean
  readonly levels?: readonly number[]
}

const rowOf = ({ rowIndex }: Labels, i: number) => (rowIndex ? rowIndex[i] : i)

/** Whether a label counts: it is not missing and weighs something. */
const counts = ({ values, weights }: Labels, i: number) => !Number.isNaN(values[i]) && weights?.[i] !== 0

/** Predictions of all rows for each level. */
function predict({ data, rows, columns }: Features, fit: QuantileFit): Float64Array[] {
  return fit.fits.map((_, k) =>
    Float64Array.from({ length: rows }, (_, n) => {
      let sum = fit.intercepts?.[k] ?? 0
      for (let d = 0; d < columns; d++) sum += data[n * columns + d] * fit.weights[k * columns + d]
      return sum
    }),
  )
}

/** Counts (row with labels, level) pairs below the level before by more than 1e-6 of the labels' mean size. */
function countCrossings(features: Features, labels: Labels, levels: readonly number[], fit: QuantileFit): number {
  const rows = new Set<number>()
  let size = 0
  let total = 0
  for (let i = 0; i < labels.values.length; i++) {
    if (!counts(labels, i)) continue
    rows.add(rowOf(labels, i))
    size += (labels.weights?.[i] ?? 1) * Math.abs(labels.values[i])
    total += labels.weights?.[i] ?? 1
  }
  const predicted = predict(features, fit)
  const ascending = [...levels.keys()].sort((a, b) => levels[a] - levels[b])
  let count = 0
  for (let k = 1; k < ascending.length; k++) {
    const [below, above] = [predicted[ascending[k - 1]], predicted[ascending[k]]]
    for (const row of rows) if (above[row] < below[row] - (1e-6 * size) / total) count++
  }
  return count
}

/**
 * The lower bound on the objective of weights that keep to the side of `limits`: the dual point with multipliers z by row, scaled
 * until no column exceeds alpha. What is left in the intercept's column is charged for intercepts up to 10 times the claimed one.
 */
function boundOf(
  features: Features,
  labels: Labels,
  { level, alpha, intercept }: { level: number; alpha: number; intercept: number | null },
  u: Float64Array,
  z: Float64Array,
  limits: Float64Array,
): number {
  const perRow = Float64Array.from(z)
  let total = 0
  for (let i = 0; i < u.length; i++) if (counts(labels, i)) total += labels.weights?.[i] ?? 1
  let value = 0
  for (let n = 0; n < z.length; n++) value += z[n] * (z[n] === 0 ? 0 : limits[n])
  for (let i = 0; i < u.length; i++) {
    if (!counts(labels, i)) continue
    assert.ok(u[i] >= level - 1 - 1e-9 && u[i] <= level + 1e-9, `dual value ${u[i]} at level ${level}`)
    const term = ((labels.weights?.[i] ?? 1) * u[i]) / total
    perRow[rowOf(labels, i)] += term
    value += term * labels.values[i]
  }
  if (intercept !== null) value -= 10 * Math.abs(perRow.reduce((sum, v) => sum + v, 0) * intercept)
  let largest = alpha
  for (let d = 0; d < features.columns; d++) {
    let sum = 0
    for (let n = 0; n < perRow.length; n++) sum += perRow[n] * features.data[n * features.columns + d]
    largest = Math.max(largest, Math.abs(sum))
  }
  return (value * alpha) / largest
}

/** Fits, and asserts order, objectives and bounds. Needs f32 features and a penalty. */
async function checkedFit(name: string, features: Features, labels: Labels, options: Options): Promise<QuantileFit> {
  const { alpha, intercept, levels = LEVELS } = options
  const asked = { levels, alpha, intercept, tolerance: TOLERANCE, threads: 1, duals: true, nonCrossing: true }
  const fit = await fitQuantiles(features, labels, asked)
  assert.is(fit.crossings, 0, `${name}: crossings`)
  assert.is(countCrossings(features, labels, levels, fit), 0, `${name}: crossings, counted here`)
  const predicted = predict(features, fit)
  const ascending = [...levels.keys()].sort((a, b) => levels[a] - levels[b])
  for (const [k, level] of levels.entries()) {
    const where = `${name}, level ${level}`
    const claim = fit.fits[k]
    const constant = fit.intercepts?.[k] ?? null
    const problem = regression(features, labels, { level, alpha, intercept })
    const w = fit.weights.subarray(k * features.columns, (k + 1) * features.columns)
    const primal = objective(problem, w, constant ?? 0)
    assert.ok(
      Math.abs(primal - claim.objective) <= 1e-9 * (1 + primal),
      `${where}: objective ${claim.objective}, is ${primal}`,
    )
    assert.is(claim.status, 'optimal', `${where}: gap ${claim.gap}, ${claim.method}`)
    const z = fit.multipliers!.subarray(k * features.rows, (k + 1) * features.rows)
    const at = ascending.indexOf(k)
    const up = z.some((value) => value > 0)
    assert.not.ok(up && z.some((value) => value < 0), `${where}: multipliers of both signs`)
    const limits = predicted[ascending[up ? at - 1 : at + 1]] ?? new Float64Array(features.rows)
    const u = fit.duals!.subarray(k * labels.values.length, (k + 1) * labels.values.length)
    const bound = boundOf(features, labels, { level, alpha, intercept: constant }, u, z, limits)
    // Balancing the intercept once more may move a bound by a part of the gap.
    const slack = (intercept ? 0.2 * TOLERANCE : 1e-8) * (1 + primal)
    assert.ok(Math.abs(bound - claim.dual) <= slack, `${where}: claimed bound ${claim.dual}, proven ${bound}`)
  }
  return fit
}

for (const intercept of [false, true]) {
  test(`quantiles of states do not cross, ${intercept ? 'with' : 'without'} intercept`, async () => {
    const source = random(71)
    const features = states(source, 3000, 100)
    const values = makeLabels(source, 'five levels', features)
    const options = { alpha: 0.003, intercept }
    const free = await fitQuantiles(features, values, { ...options, levels: LEVELS, threads: 1 })
    assert.is(free.crossings, null)
    assert.is(free.multipliers, null)
    assert.ok(
      countCrossings(features, { values }, LEVELS, free) > 0,
      'independent levels must cross for this to test anything',
    )
    const fit = await checkedFit('states', features, { values }, options)
    assert.ok(fit.fits.some(({ method }) => method === 'proximal newton'))
    for (const [k, { objective: held }] of fit.fits.entries()) {
      assert.ok(held >= free.fits[k].dual * (1 - 1e-9), `level ${LEVELS[k]}: ${held} is better than the best`)
    }
    const threaded = await fitQuantiles(features, values, { ...options, levels: LEVELS, threads: 2, nonCrossing: true })
    assert.equal(threaded.weights, fit.weights, 'two threads give the same bits')
  })
}

test('quantiles of small problems of every kind do not cross', async () => {
  for (let seed = 0; seed < 36; seed++) {
    const { name, features, labels, alpha, intercept }: Problem = sampleProblem(seed)
    if (alpha > 0) await checkedFit(name, features, labels, { alpha, intercept })
  }
})

test('without a penalty the order holds too', async () => {
  for (const intercept of [false, true]) {
    const source = random(72)
    const features = makeFeatures(source, 'gaussian', 300, 12)
    const values = makeLabels(source, 'heavy tails', features)
    const asked = { levels: LEVELS, alpha: 0, intercept, threads: 1, nonCrossing: true }
    const fit = await fitQuantiles(features, values, asked)
    assert.is(fit.crossings, 0)
    assert.is(countCrossings(features, { values }, LEVELS, fit), 0)
    for (const { gap, level, status } of fit.fits) assert.is(status, 'optimal', `level ${level}: gap ${gap}`)
  }
})

test('levels finish from the median outward, in any order given and repeated', async () => {
  const source = random(73)
  const features = makeFeatures(source, 'gaussian', 400, 6)
  const values = makeLabels(source, 'continuous', features)
  const levels = [0.9, 0.1, 0.6, 0.3, 0.3, 0.45]
  const finished: number[] = []
  const fit = await fitQuantiles(features, values, {
    levels,
    intercept: true,
    threads: 1,
    nonCrossing: true,
    onLevel: ({ index, fit }) => {
      assert.is(fit.level, levels[index])
      finished.push(fit.level)
    },
  })
  assert.equal(finished, [0.45, 0.6, 0.9, 0.3, 0.3, 0.1])
  assert.is(fit.crossings, 0)
  assert.is(countCrossings(features, { values }, levels, fit), 0)
})

test('a fit without crossings does not resume', async () => {
  const features = { data: Float32Array.of(1, 2, 3, 4), rows: 4, columns: 1 }
  const start = { weights: new Float32Array(1), intercept: null }
  const options = { levels: [0.5], start, nonCrossing: true, threads: 1 }
  try {
    await fitQuantiles(features, Float32Array.of(1, 2, 3, 4), options)
  } catch (error) {
    assert.match((error as Error).message, /^fit: start must be absent with nonCrossing/)
    return
  }
  assert.unreachable('must be refused')
})

test.run()
