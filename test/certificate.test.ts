// The certificate where its constants decide: what rounding may excuse, and a dual point that is slightly infeasible.
//
// Without a penalty, a dual point u must have t = mean of u_i x_i = 0. For any weights w, mean pinball >= mean u_i y_i - t.w, so a
// rest t is harmless only for weights that are charged for: the bound takes off 10 |t w| for the claimed w, and holds for all
// weights up to ten times those; a rest above 1e-9 of the column's terms gives no bound at all.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Claim, certify, type Features, type Labels } from '../src/solver/certificate.ts'
import { solved } from '../src/solver/level.ts'
import { random } from './random.ts'
import { bruteForce, objective, regression } from './reference/quantile_regression.ts'
import { meanSize, within } from './solver_check.ts'
import { matrix } from './solver_problems.ts'

/** Two equal rows with label 16: the best weight, or intercept, is 16 and its objective 0, so that no bound may be above 0. */
const ones = matrix(2, 1, Float32Array.of(1, 1))
const labels = { values: Float32Array.of(16, 16) }

/** The claim of a weight and of a point whose mean is `rest` / 2; all sums below are exact in float64. */
function claim(weight: number, rest: number, intercept: number | null = null): Claim {
  return { level: 0.5, alpha: 0, weights: Float32Array.of(weight), intercept, dual: Float64Array.of(0.5, rest - 0.5) }
}

test('what is left in an unpenalised column is charged for ten times the claimed weight', () => {
  const rest = 2 ** -32
  // mean of u y = 8 rest, t = rest / 2: the bound is 8 rest - 10 * rest / 2 * |w|.
  for (const [weight, bound] of [
    [0.5, 5.5 * rest],
    [1, 3 * rest],
    [-1, 3 * rest],
    [1.5, 0.5 * rest],
    [2, 0],
  ]) {
    for (const side of [1, -1]) {
      const values = labels.values.map((value) => side * value)
      const dual = claim(weight, rest).dual.map((value) => side * value)
      const found = certify(ones, { values }, { ...claim(side * weight, rest), dual })
      assert.is(found.dual, bound, `weight ${weight}, side ${side}`)
      // It holds for all weights that are no larger than ten times the claimed one.
      for (let w = -10; w <= 10; w++) {
        const value = certify(ones, { values }, { ...claim(w * weight, 0), dual }).objective
        assert.ok(found.dual <= value, `bound ${found.dual} above the objective ${value} of weight ${w * weight}`)
      }
    }
  }
})

test('an intercept is charged for in the same way', () => {
  // The least rest that is not balanced away: below 1e-14 of the terms, whose sum is 0.5.
  const rest = 2 ** -48
  const zeros = matrix(2, 1, Float32Array.of(0, 0))
  assert.is(certify(zeros, labels, claim(0, rest, 1)).dual, 3 * rest)
  assert.is(certify(zeros, labels, claim(0, rest, -1)).dual, 3 * rest)
  assert.is(certify(zeros, labels, claim(0, rest, 1.625)).dual, 0)
  // A larger rest is moved into the values, so that nearly nothing is left of the bound.
  const moved = certify(zeros, labels, claim(0, 2 ** -44, 0)).dual
  assert.ok(moved <= 1e-14 * 0.5 * 16, `bound ${moved} of a rest that can be balanced`)
})

test('a rest of more than 1e-9 of the terms of an unpenalised column leaves no bound', () => {
  // Terms: 0.25 and 0.25 - rest / 2, so the share is rest / (1 - rest).
  for (const rest of [2 ** -30, -(2 ** -30), 2 ** -40]) {
    const found = certify(ones, labels, claim(0, rest))
    assert.is(found.dual, Math.max(0, 8 * rest), `rest ${rest}`)
    // Even for the best weights, far beyond what is charged for, the bound is off by no more than 1e-9 of the labels' size.
    assert.ok(found.dual <= 1e-9 * 16)
  }
  for (const rest of [2 ** -29, 1e-8, 1e-4, 0.01, 0.5]) {
    const found = certify(ones, labels, claim(0, rest))
    assert.is(found.dual, 0, `rest ${rest}`)
    assert.is(found.gap, 1)
  }
})

test('no bound is above the optimum for duals that nearly balance, whatever the weights claimed', () => {
  for (let seed = 0; seed < 40; seed++) {
    const source = random(300 + seed)
    const rows = 4 + (seed % 3)
    const features = matrix(rows, 1, source.normal(rows))
    const given: Labels = { values: source.normal(rows, { mean: 2 }), weights: source.uniform(rows, 0.5, 2) }
    const level = 0.2 + 0.6 * source.next()
    const problem = regression(features, given, { level, alpha: 0, intercept: false })
    const best = bruteForce(problem)
    const size = meanSize(problem)
    const u = optimalDual(features, given, level)
    const exact = certify(features, given, { level, alpha: 0, weights: new Float32Array(1), intercept: null, dual: u })
    within(exact.dual, best, 1e-9 * size, `seed ${seed}: the bound of an optimal point`)
    for (const off of [1e-2, 1e-4, 1e-6, 1e-8, 1e-10]) {
      for (const side of [off, -off]) {
        const dual = u.map((value, i) => value + side * problem.x[i])
        const found = certify(features, given, { level, alpha: 0, weights: new Float32Array(1), intercept: null, dual })
        assert.ok(found.dual <= best + 1e-8 * size, `seed ${seed}, off by ${side}: ${found.dual} above ${best}`)
      }
    }
  }
})

/** A dual point of one column without a penalty: every label at a bound but the one that the best line runs through. */
function optimalDual(features: Features, { values, weights }: Labels, level: number): Float64Array {
  const [x, y, v] = [features.data, values, weights!]
  let found: Float64Array | null = null
  for (let on = 0; on < y.length && found === null; on++) {
    const w = y[on] / x[on]
    const u = Float64Array.from(y, (value, i) => (value > w * x[i] ? level : level - 1))
    u[on] = 0
    u[on] = -u.reduce((sum, value, i) => sum + v[i] * value * x[i], 0) / (v[on] * x[on])
    if (u[on] >= level - 1 && u[on] <= level) found = u
  }
  return found!
}

test('rounding is 2^-24 of what the weights can move, and at most 1e-6 of the labels', () => {
  // Root mean squares 2 and 5 (of 1 and 7); labels of mean size 8.
  const features = matrix(2, 2, Float32Array.of(2, 1, -2, 7))
  const values = Float32Array.of(8, -8)
  const dual = new Float64Array(2)
  const rounding = (weights: number[], intercept: number | null) =>
    certify(features, { values }, { level: 0.5, alpha: 0.1, weights: Float32Array.from(weights), intercept, dual })
      .rounding
  within(rounding([3, 0], null), 6 * 2 ** -24, 1e-20, 'first column')
  within(rounding([0, -2], null), 10 * 2 ** -24, 1e-20, 'second column')
  within(rounding([3, -2], -4), (6 + 10 + 4) * 2 ** -24, 1e-20, 'both and an intercept')
  within(rounding([1e6, 0], null), 8e-6, 1e-18, 'huge weights')
  assert.is(rounding([0, 0], 0), 0)
})

test('rounding covers what storing weights as f32 does to the objective, and no more', () => {
  const level = 0.875
  for (let seed = 0; seed < 200; seed++) {
    const source = random(700 + seed)
    const features = matrix(6, 2, source.normal(12))
    const given = { values: source.normal(6, { deviation: 30 }) }
    const problem = regression(features, given, { level, alpha: 0, intercept: true })
    const exact = [source.next() * 4 - 2, source.next() * 4 - 2, source.next() * 4 - 2]
    const stored = Float32Array.from(exact)
    const moved = Math.abs(objective(problem, exact, exact[2]) - objective(problem, stored, stored[2]))
    const weights = stored.subarray(0, 2)
    const claimed: Claim = { level, alpha: 0, weights, intercept: stored[2], dual: new Float64Array(6) }
    const { rounding } = certify(features, given, claimed)
    assert.ok(moved <= rounding, `seed ${seed}: moved ${moved}, rounding ${rounding}`)
  }
  // A weight half way between two f32 loses 2^-24 of itself, and the objective `level` of that: more would excuse a poor fit.
  const given = { values: Float32Array.of(16, 16) }
  const problem = regression(ones, given, { level, alpha: 0, intercept: false })
  const moved = objective(problem, [1], 0) - objective(problem, [1 + 2 ** -24], 0)
  assert.is(Math.fround(1 + 2 ** -24), 1)
  assert.is(certify(ones, given, { ...claim(1, 0), level }).rounding, moved / level)
})

test('a gap above the tolerance is excused by rounding alone, and only where the f64 weights met it', () => {
  const certificate = { objective: 1, gap: 1e-5, rounding: 1e-7, excess: 0 }
  const status = (gap: number, difference: number, met: boolean) =>
    solved(
      {
        weights: new Float32Array(1),
        intercept: null,
        dual: new Float64Array(1),
        certificate: { ...certificate, gap, dual: 1 - difference },
        met,
      },
      1e-6,
    )
  assert.equal([status(1e-6, 1, false), status(1.01e-6, 1, false), status(1.01e-6, 1, true)], [true, false, false])
  assert.equal([status(1, 0.99e-7, true), status(1, 0.99e-7, false), status(1, 1.01e-7, true)], [true, false, false])
})

test('the gap is relative to the objective until f32 weights cannot resolve it, then to the labels', () => {
  // One row, weight w near 1: the objective is (1 - w) / 2, rounding is 2^-24.
  const features = matrix(1, 1, Float32Array.of(1))
  const gapOf = (steps: number) =>
    certify(
      features,
      { values: Float32Array.of(1) },
      {
        level: 0.5,
        alpha: 0,
        weights: Float32Array.of(1 - steps * 2 ** -24),
        intercept: null,
        dual: new Float64Array(1),
      },
    )
  assert.equal([gapOf(3).objective, gapOf(3).gap], [1.5 * 2 ** -24, 1])
  assert.equal([gapOf(1).objective, gapOf(1).gap], [0.5 * 2 ** -24, 0.5 * 2 ** -24])
})

test.run()
