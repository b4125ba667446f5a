// The quantile-regression solver against other solvers: every vertex, HiGHS, scikit-learn, R's quantreg, published results.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { certify } from '../src/index.ts'
import { fixtureJson } from './fixture.ts'
import { random } from './random.ts'
import { linearProgram } from './reference/quantile_highs.ts'
import { bruteForce, dualBound, type Labels, objective, regression } from './reference/quantile_regression.ts'
import { type Checked, checkedFit, meanSize, notWorse, within } from './solver_check.ts'
import { type DenseFeatures, FEATURE_KINDS, LABEL_KINDS, makeFeatures, makeLabels, matrix } from './solver_problems.ts'

/** A problem of fixtures/solver/problems.json; x [rows, columns], y and weights are f32 in base64. */
interface Given {
  readonly name: string
  readonly rows: number
  readonly columns: number
  readonly alpha: number
  readonly levels: number[]
  readonly x: string
  readonly y: string
  readonly weights?: string
}

/** Objectives by level. */
interface Simple {
  readonly plain: number[]
  readonly intercept: number[]
}

/** Objectives by level; null where R gave up. */
interface FromR {
  readonly plain: { readonly simplex: (number | null)[]; readonly lasso: (number | null)[] }
  readonly intercept: { readonly simplex: (number | null)[]; readonly lasso: (number | null)[] }
}

function floats(text: string): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer)
}

const TOLERANCE = 1e-6

/** Asserts that the fit is worth a known optimum, exact but for the rounding of its solver. */
function matches(checked: Checked, known: readonly number[], digits = 1e-9): void {
  notWorse(checked, known, TOLERANCE)
  for (const [k, { objective }] of checked.evidence.entries()) {
    const limit = (TOLERANCE + digits) * known[k] + 1e-6 * meanSize(checked.problems[k])
    within(objective, known[k], limit, `${checked.name}, level ${checked.problems[k].level}`)
  }
}

test('agrees with scikit-learn and with quantreg, with and without weights', async () => {
  const sklearn = await fixtureJson<Record<string, Simple>>('solver/scikit_learn.json')
  const quantreg = await fixtureJson<Record<string, FromR>>('solver/quantreg.json')
  const problems = await fixtureJson<Given[]>('solver/problems.json')
  assert.equal(
    [Object.keys(sklearn).sort(), Object.keys(quantreg).sort()],
    new Array(2).fill(problems.map(({ name }) => name).sort()),
  )
  for (const { name, rows, columns, alpha, levels, x, y, weights } of problems) {
    const features = matrix(rows, columns, floats(x))
    const labels = { values: floats(y), weights: weights === undefined ? undefined : floats(weights) }
    for (const model of ['plain', 'intercept'] as const) {
      const options = { levels, alpha, intercept: model === 'intercept', tolerance: TOLERANCE }
      const checked = await checkedFit(`${name}, ${model}`, features, labels, options)
      matches(checked, sklearn[name][model])
      const { simplex, lasso } = quantreg[name][model]
      const solved = simplex.map((value, k) => value ?? sklearn[name][model][k])
      for (const [k, value] of solved.entries()) {
        // Two exact solvers that disagree would be news about the fixtures, not about ours.
        within(value, sklearn[name][model][k], 1e-9 * value, `${name}: simplex of R against scikit-learn`)
      }
      matches(checked, solved)
      // The interior-point method of R may end early, but never below the bound.
      notWorse(
        checked,
        lasso.map((value, k) => value ?? solved[k]),
        TOLERANCE,
      )
    }
  }
})

/** A random problem with at most `most` rows and columns; whole numbers half the time, so that it has ties. */
function tiny(seed: number, mostRows: number, mostColumns: number): { features: DenseFeatures; labels: Labels } {
  const source = random(5000 + seed)
  const rows = 1 + source.integers(1, 0, mostRows)[0]
  const columns = 1 + source.integers(1, 0, mostColumns)[0]
  const whole = seed % 2 === 0
  const data = whole
    ? Float32Array.from(source.integers(rows * columns, 0, 4), (v) => v - 1)
    : source.normal(rows * columns)
  const values = whole ? Float32Array.from(source.integers(rows, 0, 3)) : source.normal(rows)
  const weights = seed % 3 === 0 ? Float32Array.from(source.integers(rows, 0, 4)) : undefined
  if (weights) weights[rows - 1] = 2
  const rowIndex = seed % 5 === 0 ? source.integers(rows, 0, rows) : undefined
  return { features: matrix(rows, columns, data), labels: { values, weights, rowIndex } }
}

test('finds the best vertex of tiny problems', async () => {
  for (let seed = 0; seed < 160; seed++) {
    const { features, labels } = tiny(seed, 8, 2)
    const alpha = [0.3, 0.01, 0.001, 0][seed % 4]
    const options = { levels: [0.1, 0.5, 0.9], alpha, intercept: seed % 8 < 4, tolerance: TOLERANCE }
    const checked = await checkedFit(`tiny ${seed}`, features, labels, options)
    matches(checked, checked.problems.map(bruteForce))
  }
})

test('finds what HiGHS finds', async () => {
  const shapes = [
    [200, 20],
    [120, 8],
    [60, 20],
    [20, 20],
    [10, 20],
  ]
  for (let seed = 0; seed < 35; seed++) {
    const source = random(7000 + seed)
    const [rows, columns] = shapes[seed % shapes.length]
    const featureKind = FEATURE_KINDS[seed % 4]
    const labelKind = LABEL_KINDS[seed % LABEL_KINDS.length]
    const features = makeFeatures(source, featureKind, rows, columns)
    const values = makeLabels(source, labelKind, features)
    const weights = seed % 3 === 1 ? source.uniform(rows, 0, 2) : undefined
    const alpha = rows > 5 * columns ? [0, 0.003, 0.02][seed % 3] : 0.003
    const name = `${rows} x ${columns} ${featureKind}, ${labelKind}, alpha ${alpha}`
    const options = { levels: [0.05, 0.4, 0.75], alpha, intercept: seed % 2 === 0, tolerance: TOLERANCE }
    const checked = await checkedFit(name, features, { values, weights }, options)
    const known: number[] = []
    for (const [k, problem] of checked.problems.entries()) {
      const optimum = await linearProgram(problem)
      const own = objective(problem, optimum.weights, optimum.intercept)
      within(
        own,
        optimum.objective,
        1e-8 * (own + meanSize(problem)),
        `${name}, level ${options.levels[k]}: HiGHS itself`,
      )
      known.push(own)
    }
    matches(checked, known, 1e-7)
  }
})

test('certify refuses to be fooled: any point gives a bound below the optimum', () => {
  for (let seed = 0; seed < 120; seed++) {
    const { features, labels } = tiny(seed, 7, 2)
    const source = random(9000 + seed)
    const level = 0.05 + 0.9 * source.next()
    const alpha = [0.5, 0.05, 0.002, 0][seed % 4]
    for (const intercept of [false, true]) {
      const problem = regression(features, labels, { level, alpha, intercept })
      const best = bruteForce(problem)
      for (const scale of [0.01, 0.3, 3]) {
        const dual = Float64Array.from({ length: labels.values.length }, () => scale * (2 * source.next() - 1))
        if (seed % 6 === 0) dual[0] = [Number.NaN, Number.POSITIVE_INFINITY, -1e300][seed % 3]
        const weights = source.normal(features.columns)
        const claim = { level, alpha, weights, intercept: intercept ? source.next() : null, dual }
        const found = certify(features, labels, claim)
        const name = `tiny ${seed}, level ${level}, alpha ${alpha}, intercept ${intercept}`
        const expected = objective(problem, weights, claim.intercept ?? 0)
        within(found.objective, expected, 1e-12 * expected, `${name}: objective`)
        assert.ok(
          found.dual <= best + 1e-9 * meanSize(problem),
          `${name}: bound ${found.dual} above the optimum ${best}`,
        )
        if (intercept || alpha === 0) continue
        const u = problem.labels.map((i) => dual[i])
        within(found.dual, dualBound(problem, u), 1e-12 * meanSize(problem), `${name}: bound`)
      }
    }
  }
})

test('certify agrees with sums by hand', () => {
  const features = matrix(4, 1, Float32Array.of(1, 2, 3, 4))
  const values = Float32Array.of(1, 2, 3, 5)
  const claim = { level: 0.5, alpha: 0.1, weights: Float32Array.of(0), intercept: null }
  const nothing = certify(features, { values }, { ...claim, dual: new Float64Array(4) })
  assert.is(nothing.objective, 0.5 * (11 / 4))
  assert.is(nothing.dual, 0)
  assert.is(nothing.gap, 1)
  // u = 1/2 everywhere exceeds the penalty 12.5-fold, so the bound is y'u / 12.5.
  const scaled = certify(features, { values }, { ...claim, dual: new Float64Array(4).fill(9) })
  within(scaled.dual, (0.5 * (11 / 4)) / 12.5, 1e-15, 'bound')
  // Weights 1, 0, 1, 2: the loss is (1 + 3 + 2 * 5) / 2 / 4, the column's sum (1 + 3 + 2 * 4) / 2 / 4 = 15 times the penalty.
  const labels: Labels = { values, weights: Float32Array.of(1, 0, 1, 2) }
  const weighted = certify(features, labels, { ...claim, dual: new Float64Array(4).fill(0.5) })
  within(weighted.objective, 14 / 8, 1e-15, 'weighted objective')
  within(weighted.dual, 14 / 8 / 15, 1e-15, 'weighted bound')
})

/** Reads a file of the reference results, which lie outside the project; null where they are missing. */
async function referenceResult(name: string): Promise<string | null> {
  const { readFile } = await import('node:fs/promises')
  const url = new URL(`../../shared/data/reference-results/${name}`, import.meta.url)
  return readFile(url, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
}

/** What Stata prints of a quantile regression: slope and intercept, each first in its row, and twice the sum of the losses. */
interface FromStata {
  readonly q: number
  readonly table: readonly (readonly number[])[]
  readonly sum_adev: number
}

/** What quantreg gives at level 0.1, by rows. */
interface FromQuantreg {
  readonly fittedvalues: readonly number[]
  readonly residuals: readonly number[]
}

test("reproduces the published fits of Engel's food expenditures", async () => {
  const [csv, json] = [await referenceResult('engel.csv'), await referenceResult('engel_quantreg_results.json')]
  if (csv === null || json === null) {
    console.log("  NOT TESTED: ../shared/data/reference-results is missing, so Engel's data were not fitted")
    return
  }
  const lines = csv.trim().split('\n').slice(1)
  const rows = lines.map((line) => line.split(',').map(Number))
  assert.is(rows.length, 235)
  const features = matrix(
    235,
    1,
    Float32Array.from(rows, ([income]) => income),
  )
  const labels = { values: Float32Array.from(rows, ([, food]) => food) }
  const levels = [0.1, 0.5, 0.75]
  const options = { levels, alpha: 0, intercept: true, tolerance: 1e-7 }
  const { fit, evidence } = await checkedFit("Engel's data", features, labels, options)
  const { Rquantreg, ...stata } = JSON.parse(json) as Record<string, FromStata> & { Rquantreg: FromQuantreg }
  let compared = 0
  for (const [name, { q, table, sum_adev }] of Object.entries(stata)) {
    const k = levels.indexOf(q)
    assert.ok(k >= 0, `${name}: level ${q}`)
    const [[slope], [constant]] = table
    // Half a unit of the last of seven digits; the slope is 0.6, and incomes, expenditures and slope itself are f32.
    within(fit.weights[k], slope, 0.5e-7 + 2 ** -24, `${name}: slope`)
    within(fit.intercepts![k], constant, 0.5e-5, `${name}: intercept`)
    within(2 * 235 * evidence[k].objective, sum_adev, 2 ** -24 * sum_adev, `${name}: sum of losses`)
    compared++
  }
  assert.is(compared, 25)
  for (const [n, [income, food]] of rows.entries()) {
    const fitted = fit.weights[0] * income + fit.intercepts![0]
    within(fitted, Rquantreg.fittedvalues[n], 2 ** -22 * fitted, `quantreg, household ${n}: fitted`)
    within(food - fitted, Rquantreg.residuals[n], 2 ** -22 * fitted, `quantreg, household ${n}: residual`)
  }
})

test.run()
