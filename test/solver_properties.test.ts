// What must hold for every quantile regression, on random problems of all shapes and label types; by certificates, never by weights.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { random } from './random.ts'
import type { Labels } from './reference/quantile_regression.ts'
import { type Checked, checkedFit, type Options, sameOptimum } from './solver_check.ts'
import { build, matrix, type Problem, sampleProblem } from './solver_problems.ts'

const TOLERANCE = 1e-6
const SEEDS = Array.from({ length: 27 }, (_, seed) => seed)

function fit(problem: Problem, change: Partial<Options> = {}): Promise<Checked> {
  const { name, features, labels, levels, alpha, intercept } = problem
  return checkedFit(name, features, labels, { levels, alpha, intercept, tolerance: TOLERANCE, ...change })
}

const solved = new Map<number, Promise<Checked>>()

/** The fit of a sample, once for all tests. */
function base(seed: number): Promise<Checked> {
  if (!solved.has(seed)) solved.set(seed, fit(sampleProblem(seed)))
  return solved.get(seed)!
}

/** Tests that a change of the problem multiplies the optimum by `factor`. */
function invariance(
  name: string,
  change: (problem: Problem, seed: number) => Problem,
  factor = 1,
  seeds = SEEDS,
): void {
  test(name, async () => {
    for (const seed of seeds) {
      const changed = change(sampleProblem(seed), seed)
      sameOptimum(await base(seed), await fit({ ...changed, name: `${changed.name}, ${name}` }), factor)
    }
  })
}

function mapValues(problem: Problem, change: (value: number) => number): Problem {
  return { ...problem, labels: { ...problem.labels, values: problem.labels.values.map(change) } }
}

/** A problem whose column d is column `which[d]`, times `factor[d]`; 0 where there is none. */
function mapColumns(problem: Problem, which: readonly number[], factor: (d: number) => number = () => 1): Problem {
  const { rows, columns, data } = problem.features
  const value = (n: number, d: number) => (which[d] < columns ? factor(d) * data[n * columns + which[d]] : 0)
  return { ...problem, features: build(rows, which.length, value) }
}

/** The row of each label. */
function rowsOf({ features, labels }: Problem): Uint32Array {
  return labels.rowIndex ?? Uint32Array.from({ length: features.rows }, (_, n) => n)
}

/** A problem of the labels `which`, in this order, each with a weight if there are any. */
function mapLabels(problem: Problem, which: readonly number[], weights?: Float32Array): Problem {
  const rows = rowsOf(problem)
  const labels: Labels = {
    values: Float32Array.from(which, (i) => problem.labels.values[i]),
    rowIndex: Uint32Array.from(which, (i) => rows[i]),
    weights: weights ?? (problem.labels.weights && Float32Array.from(which, (i) => problem.labels.weights![i])),
  }
  return { ...problem, labels }
}

function shuffled(count: number, seed: number): number[] {
  const source = random(seed)
  const order = Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const k = Math.floor((i + 1) * source.next())
    ;[order[i], order[k]] = [order[k], order[i]]
  }
  return order
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i)

for (const factor of [1024, 2 ** -12]) {
  invariance(`labels times ${factor}`, (problem) => mapValues(problem, (value) => value * factor), factor)
}

for (const factor of [64, 2 ** -9]) {
  invariance(`features and penalty times ${factor}`, (problem) => ({
    ...mapColumns(problem, upTo(problem.features.columns), () => factor),
    alpha: problem.alpha * factor,
  }))
}

invariance('feature rows in another order', (problem, seed) => {
  const { rows, columns, data } = problem.features
  const order = shuffled(rows, seed)
  const place = new Uint32Array(rows)
  for (const [to, from] of order.entries()) place[from] = to
  const features = build(rows, columns, (n, d) => data[order[n] * columns + d])
  return { ...problem, features, labels: { ...problem.labels, rowIndex: rowsOf(problem).map((n) => place[n]) } }
})

invariance('labels in another order', (problem, seed) =>
  mapLabels(problem, shuffled(problem.labels.values.length, seed)),
)

invariance('columns in another order, signs turned', (problem, seed) =>
  mapColumns(problem, shuffled(problem.features.columns, seed), (d) => ((d * d + seed) % 3 === 0 ? -1 : 1)),
)

invariance('labels mirrored', (problem) => ({
  ...mapValues(problem, (value) => -value),
  levels: problem.levels.map((level) => 1 - level),
}))

invariance('a zero column more', (problem) => mapColumns(problem, upTo(problem.features.columns + 1)))

invariance('a column twice', (problem, seed) => {
  const { columns } = problem.features
  return mapColumns(problem, [...upTo(columns), seed % columns])
})

invariance('all labels twice', (problem) => {
  const all = upTo(problem.labels.values.length)
  return mapLabels(problem, [...all, ...all])
})

invariance('all labels with three times the weight', (problem) => {
  const { values, weights } = problem.labels
  return { ...problem, labels: { ...problem.labels, weights: values.map((_, i) => 3 * (weights ? weights[i] : 1)) } }
})

invariance('labels of weight 0 more', (problem, seed) => {
  const all = upTo(problem.labels.values.length)
  const extra = all.filter((i) => i % 4 === seed % 4)
  const weights = all.map((i) => (problem.labels.weights ? problem.labels.weights[i] : 1))
  const more = mapLabels(problem, [...all, ...extra], Float32Array.from([...weights, ...extra.map(() => 0)]))
  for (let i = all.length; i < more.labels.values.length; i++) more.labels.values[i] = 1000 * (i % 7)
  return more
})

invariance('missing labels left out', (problem) =>
  mapLabels(
    problem,
    upTo(problem.labels.values.length).filter((i) => !Number.isNaN(problem.labels.values[i])),
  ),
)

invariance('feature rows copied for each label', (problem) => {
  const { columns, data } = problem.features
  const rows = rowsOf(problem)
  const features = build(rows.length, columns, (i, d) => data[rows[i] * columns + d])
  return { ...problem, features, labels: { values: problem.labels.values, weights: problem.labels.weights } }
})

invariance('whole weights as repeated labels', (problem) => {
  const { values, weights } = problem.labels
  // Samples have weights in halves.
  const times = (i: number) => (weights ? Math.round(2 * weights[i]) : 2)
  const repeated = mapLabels(
    problem,
    upTo(values.length).flatMap((i) => new Array<number>(times(i)).fill(i)),
  )
  return { ...repeated, labels: { ...repeated.labels, weights: undefined } }
})

test('labels shifted by a constant, which an intercept takes up', async () => {
  for (const seed of SEEDS) {
    // Labels in steps of 2^-10, so that the sum is exact.
    const problem = mapValues({ ...sampleProblem(seed), intercept: true }, (value) => Math.round(1024 * value) / 1024)
    const moved = await fit({ ...mapValues(problem, (value) => value + 8), name: `${problem.name}, shifted` })
    sameOptimum(await fit(problem), moved)
  }
})

test('columns of bf16 bits are the same columns', async () => {
  for (const seed of SEEDS) {
    const problem = sampleProblem(seed)
    const { rows, columns, data } = problem.features
    const bits = Uint16Array.from(new Uint32Array(data.buffer), (word) => word >>> 16)
    const widened = new Float32Array(Uint32Array.from(bits, (half) => half * 65536).buffer)
    const rounded = await fit({ ...problem, features: matrix(rows, columns, widened) })
    const { name, labels, levels, alpha, intercept } = problem
    const options = { levels, alpha, intercept, tolerance: TOLERANCE }
    sameOptimum(rounded, await checkedFit(`${name}, bf16`, { rows, columns, data: bits }, labels, options))
  }
})

test('removing columns without weight changes nothing', async () => {
  for (const seed of SEEDS) {
    const problem = sampleProblem(seed)
    const { columns } = problem.features
    const { fit: all } = await base(seed)
    for (const [k, level] of problem.levels.entries()) {
      const used = upTo(columns).filter((d) => all.weights[k * columns + d] !== 0)
      if (used.length === 0 || used.length === columns) continue
      const less = await fit({ ...mapColumns(problem, used), levels: [level], name: `${problem.name}, fewer columns` })
      const one = { ...(await base(seed)) }
      sameOptimum({ ...one, evidence: [one.evidence[k]], problems: [one.problems[k]] }, less)
    }
  }
})

test('levels in any order, together or alone, have the same optimum', async () => {
  for (const seed of SEEDS) {
    const problem = sampleProblem(seed)
    const levels = [0.2, 0.35, 0.5, 0.65, 0.8]
    const ascending = await fit({ ...problem, levels })
    const order = [3, 0, 4, 2, 1]
    const mixed = await fit({ ...problem, levels: order.map((k) => levels[k]) })
    const sorted = levels.map((_, k) => order.indexOf(k))
    const back = { ...mixed, evidence: sorted.map((k) => mixed.evidence[k]), problems: ascending.problems }
    sameOptimum(ascending, back)
    const alone = await fit({ ...problem, levels: [levels[3]] })
    sameOptimum({ ...ascending, evidence: [ascending.evidence[3]], problems: [ascending.problems[3]] }, alone)
  }
})

test('the optimum is concave in the level', async () => {
  for (const seed of SEEDS) {
    const levels = [0.02, 0.1, 0.25, 0.4, 0.5, 0.62, 0.81, 0.95]
    const { evidence, name } = await fit({ ...sampleProblem(seed), levels })
    for (let k = 1; k + 1 < levels.length; k++) {
      const share = (levels[k] - levels[k - 1]) / (levels[k + 1] - levels[k - 1])
      const chord = (1 - share) * evidence[k - 1].bound + share * evidence[k + 1].bound
      const slack = 1e-12 * (chord + 1)
      assert.ok(
        evidence[k].objective >= chord - slack,
        `${name}, ${levels[k]}: ${evidence[k].objective} below ${chord}`,
      )
    }
  }
})

test('the optimum rises with the penalty, along a concave curve', async () => {
  for (const seed of SEEDS) {
    const problem = { ...sampleProblem(seed), levels: [0.3] }
    const alphas = [0.0005, 0.002, 0.003, 0.01, 0.05, 0.2, 3]
    const curve: { objective: number; bound: number }[] = []
    for (const alpha of alphas) curve.push((await fit(problem, { alpha })).evidence[0])
    for (let k = 1; k < alphas.length; k++) {
      const where = `${problem.name}, penalty ${alphas[k]}`
      const slack = 1e-12 * (1 + curve[k].objective)
      assert.ok(curve[k].objective >= curve[k - 1].bound - slack, `${where}: not above ${alphas[k - 1]}`)
      if (k + 1 === alphas.length) continue
      const share = (alphas[k] - alphas[k - 1]) / (alphas[k + 1] - alphas[k - 1])
      const chord = (1 - share) * curve[k - 1].bound + share * curve[k + 1].bound
      assert.ok(curve[k].objective >= chord - slack, `${where}: ${curve[k].objective} below ${chord}`)
    }
  }
})

test('a penalty above what the best constant leaves in any column gives weights of exactly 0', async () => {
  for (const seed of SEEDS) {
    const problem = sampleProblem(seed)
    for (const [k, { count, columns, x, y, v, level }] of (await base(seed)).problems.entries()) {
      const u = constantScores(y, v, level, problem.intercept)
      const total = v.reduce((sum, value) => sum + value, 0)
      let largest = 0
      for (let j = 0; j < columns; j++) {
        let sum = 0
        for (let i = 0; i < count; i++) sum += v[i] * u[i] * x[i * columns + j]
        largest = Math.max(largest, Math.abs(sum) / total)
      }
      const { fit: result } = await fit({ ...problem, levels: [level] }, { alpha: 1.01 * largest + 1e-9 })
      assert.is(result.fits[0].nonzeros, 0, `${problem.name}, level ${problem.levels[k]}, penalty ${1.01 * largest}`)
    }
  }
})

/** The dual point of weights 0: residuals of one sign at their ends, those of 0 equal, so that the mean is 0 with an intercept. */
function constantScores(y: Float64Array, v: Float64Array, level: number, intercept: boolean): Float64Array {
  const b = intercept ? quantile(y, v, level) : 0
  const u = y.map((value) => (value > b ? level : value < b ? level - 1 : 0))
  if (!intercept) return u
  let rest = 0
  let onIt = 0
  for (let i = 0; i < y.length; i++) {
    rest += v[i] * u[i]
    if (y[i] === b) onIt += v[i]
  }
  return u.map((value, i) => (y[i] === b ? -rest / onIt : value))
}

/** The smallest label that at least a share `level` of the weight does not exceed. */
function quantile(y: Float64Array, v: Float64Array, level: number): number {
  const order = [...y.keys()].filter((i) => v[i] > 0).sort((a, b) => y[a] - y[b])
  const total = order.reduce((sum, i) => sum + v[i], 0)
  let below = 0
  for (const i of order) {
    below += v[i]
    if (below >= level * total * (1 - 1e-12)) return y[i]
  }
  throw new Error('quantile: some label must have weight')
}

test('with an intercept, the share of labels below the fit is the level', async () => {
  for (const seed of SEEDS) {
    const problem = { ...sampleProblem(seed), intercept: true }
    const { fit: result, evidence, problems } = await fit(problem)
    for (const [k, { count, columns, x, y, v, level }] of problems.entries()) {
      const total = v.reduce((sum, value) => sum + value, 0)
      // A step of the intercept by `near` changes the objective by its slope; a gap leaves room for a slope of gap / near.
      const gap = evidence[k].objective - evidence[k].bound + 1e-14
      const near = 2 * total * gap
      let below = 0
      let notAbove = 0
      for (let i = 0; i < count; i++) {
        let r = y[i] - result.intercepts![k]
        for (let j = 0; j < columns; j++) r -= result.weights[k * columns + j] * x[i * columns + j]
        if (r < -near) below += v[i]
        if (r <= near) notAbove += v[i]
      }
      const shown = `${problem.name}, level ${level}: ${below} of ${total} below, ${notAbove} not above`
      assert.ok(below <= level * total + 0.5 && level * total <= notAbove + 0.5, shown)
    }
  }
})

test.run()
