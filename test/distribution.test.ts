// Mixing, risk measures and the piecewise-linear curve, against float64 loops, closed forms and invariances.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  cdf,
  density,
  evenLevels,
  expectation,
  mix,
  probabilityBelow,
  quantile,
  rearrange,
  tailMean,
  variance,
} from '../src/reward/distribution.ts'
import { cvar, entropic, meanVariance, utility } from '../src/reward/risk.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'
import * as reference from './reference/reward.ts'

const EXACT = 1e-13

/** One number against another, relative to the larger of the expected one and 1. */
function near(actual: number, expected: number, name: string, limit = EXACT): void {
  close([actual], [expected], limit * Math.max(1, Math.abs(expected)), name)
}

test('mixes as the float64 loops do', () => {
  const source = random(1)
  for (const [rows, objectives, levels] of [
    [1, 1, 1],
    [3, 19, 19],
    [2, 5, 19],
    [7, 4, 2],
    [1, 3, 101],
    [400, 19, 19], // more than one portion
  ]) {
    const values = source.normal(rows * objectives * levels, { outliers: 0.1 })
    const gate = source.uniform(rows * objectives)
    for (const transform of [null, source.normal(objectives * objectives)]) {
      for (const mixture of ['sum', 'mean'] as const) {
        const { debiased, quantiles, scores } = mix({ values, gate, transform, objectives, levels, mixture })
        const identity = Float64Array.from({ length: objectives * objectives }, (_, i) =>
          i % (objectives + 1) === 0 ? 1 : 0,
        )
        for (let n = 0; n < rows; n++) {
          const at = (j: number) => (n * objectives + j) * levels
          const a = Array.from({ length: objectives }, (_, j) => Array.from(values.slice(at(j), at(j) + levels)))
          const g = Array.from(gate.slice(n * objectives, (n + 1) * objectives))
          const name = `[${rows}, ${objectives}, ${levels}] row ${n}`
          const expected = reference.debias(a, transform ?? identity)
          const limit = 1e-12 * Math.max(1, ...expected.flat().map(Math.abs)) * objectives
          close(debiased.subarray(at(0), at(objectives)), expected.flat(), limit, `${name} debiased`)
          const mixed = reference.mixture(expected, g, mixture === 'mean')
          close(quantiles.subarray(n * levels, (n + 1) * levels), mixed, limit, `${name} quantiles`)
          const score = g.reduce((sum, weight, j) => sum + weight * reference.average(expected[j]), 0)
          close([scores[n]], [score], limit, `${name} score`)
        }
      }
    }
  }
})

test('the score is the mean of the summed quantiles, and mean divides these alone', () => {
  const source = random(2)
  const input = { values: source.normal(5 * 4 * 7), gate: source.uniform(5 * 4), objectives: 4, levels: 7 }
  const sum = mix(input)
  const mean = mix({ ...input, mixture: 'mean' })
  for (let n = 0; n < 5; n++) near(expectation(sum.quantiles.subarray(n * 7, n * 7 + 7)), sum.scores[n], `row ${n}`)
  close(
    mean.quantiles,
    sum.quantiles.map((q) => q / 4),
    1e-15,
    'quantiles of the mean',
  )
  assert.equal(mean.scores, sum.scores)
})

test('mixing no rows gives none', () => {
  const { debiased, quantiles, scores } = mix({ values: [], gate: [], objectives: 3, levels: 2 })
  assert.equal([debiased.length, quantiles.length, scores.length], [0, 0, 0])
})

test('refuses sizes that disagree and values that are not finite', async () => {
  await fails(
    () => mix({ values: [1, 2, 3], gate: [1, 1], objectives: 2, levels: 2 }),
    'mix: values [N, 2, 2] and gate [N, 2] must have one N, got 3 and 2 numbers',
  )
  await fails(
    () => mix({ values: [1, 2], gate: [1], transform: [1, 2], objectives: 1, levels: 2 }),
    'mix: transform must be [1, 1], got 2 numbers',
  )
  await fails(
    () => mix({ values: [1, NaN], gate: [1], objectives: 1, levels: 2 }),
    'mix: values: must be finite, got NaN at index 1',
  )
  await fails(
    () => mix({ values: [1], gate: [1], objectives: 1, levels: 0 }),
    'mix: levels must be a whole number of at least 1, got 0',
  )
  await fails(() => expectation([]), 'expectation: quantile values: must have at least one value, got none')
  await fails(() => utility([1, Infinity], 1), 'utility: quantile values: must be finite, got Infinity at index 1')
  await fails(() => utility([1], -1), 'utility: lambda must be a finite number of at least 0, got -1')
  await fails(() => entropic([1], NaN), 'entropic: lambda must be a finite number, got NaN')
  await fails(() => meanVariance([1], Infinity), 'meanVariance: lambda must be a finite number, got Infinity')
  for (const level of [0, -0.1, 1.1, NaN]) {
    await fails(() => cvar([1], level), `cvar: level must be above 0 and at most 1, got ${level}`)
    await fails(() => tailMean([1], [0.5], level), `tailMean: level must be above 0 and at most 1, got ${level}`)
  }
  await fails(() => quantile([1], [0.5], 1.01), 'quantile: level must be 0 to 1, got 1.01')
  await fails(() => cdf([1, 2], [0.5], 0), 'cdf: values and levels must be equally many, got 2 and 1')
  await fails(() => cdf([1, 2], [0.5, 0.5], 0), 'cdf: levels: must increase, got 0.5 after 0.5')
  await fails(() => cdf([1], [1], 0), 'cdf: levels: must be between 0 and 1, got 1')
  await fails(() => cdf([1], [0.5], NaN), 'cdf: the reward must be a number, got NaN')
  await fails(
    () => density([1, 3, 2], evenLevels(3), 0),
    'density: quantile values must not decrease, got 3 at level 0.5 and 2 at 0.75; rearrange them first',
  )
  await fails(
    () => cdf([-1.7e308, 1.7e308], [0.4, 0.5], 0),
    'cdf: the curve must end in finite values, got -Infinity and Infinity',
  )
  // One end alone is enough.
  const ends = 'cdf: the curve must end in finite values, got'
  await fails(() => cdf([0, 1, 1.7e308], [0.25, 0.5, 0.75], 0), `${ends} -1 and Infinity`)
  await fails(() => cdf([-1.7e308, -1, 0], [0.25, 0.5, 0.75], 0), `${ends} -Infinity and 1`)
  await fails(() => evenLevels(0), 'levels: their number must be a whole number of at least 1, got 0')
})

test('levels are k / (K + 1)', () => {
  assert.equal(evenLevels(1), [0.5])
  assert.equal(evenLevels(3), [0.25, 0.5, 0.75])
  close(
    evenLevels(19),
    Array.from({ length: 19 }, (_, k) => 0.05 * (k + 1)),
    1e-15,
    '19 levels',
  )
})

test('rearranges: sorted, the same values, the argument untouched', () => {
  const values = random(3).normal(57)
  const before = Float32Array.from(values)
  assert.equal(
    Array.from(rearrange(values)),
    Array.from(values).sort((a, b) => a - b),
  )
  assert.equal(values, before)
  assert.equal(Array.from(rearrange([2, 1, 1])), [1, 1, 2])
})

test('risk measures agree with loops over their definitions', () => {
  const source = random(4)
  for (const count of [1, 2, 5, 19, 100]) {
    const q = Float64Array.from(source.normal(count, { mean: 0.3, deviation: 2 }))
    near(expectation(q), reference.average(q), 'expectation')
    const centre = reference.average(q)
    near(variance(q), reference.average(q.map((value) => (value - centre) ** 2)), 'variance')
    for (const lambda of [1e-3, 0.5, 1, 4, 20]) {
      const expected = reference.utility(q, lambda)
      near(utility(q, lambda) / expected, 1, `utility at ${lambda}`)
      near(entropic(q, lambda), -Math.log(-expected) / lambda, `entropic at ${lambda}`, 1e-12)
      near(entropic(q, -lambda), Math.log(-reference.utility(q, -lambda)) / lambda, `entropic at -${lambda}`, 1e-12)
      near(meanVariance(q, lambda), centre - (lambda / 2) * variance(q), `mean-variance at ${lambda}`)
    }
    for (const level of [0.05, 0.1, 0.25, 0.5, 0.77, 1]) {
      near(cvar(q, level), reference.cvar(q, level, 100), `cvar at ${level} of ${count}`, 1e-12)
    }
  }
})

test('limits: entropic goes to the expectation at 0 and to the extremes, cvar from the smallest value to the expectation', () => {
  const q = [0.3, -1.2, 2.5, 0.9]
  assert.is(entropic(q, 0), expectation(q))
  assert.is(utility(q, 0), -1)
  for (const lambda of [1e-300, 1e-12, -1e-12, 1e-9, 1e-7, 1e-5]) {
    // cubic term of the cumulant expansion: below lambda^2 * range^3
    const limit = lambda * lambda * 60 + 1e-15
    close([entropic(q, lambda)], [meanVariance(q, lambda)], limit, `entropic near 0 (${lambda})`)
  }
  near(entropic(q, 1e6), -1.2 + Math.log(4) / 1e6, 'entropic at 1e6')
  near(entropic(q, -1e6), 2.5 - Math.log(4) / 1e6, 'entropic at -1e6')
  assert.is(entropic(q, 1e308), -1.2)
  assert.is(cvar(q, 1e-320), -1.2)
  assert.is(cvar(q, 0.25), -1.2)
  near(cvar(q, 0.5), (-1.2 + 0.3) / 2, 'cvar of two of four')
  near(cvar(q, 0.375), (-1.2 + 0.15) / 1.5, 'cvar with half a mass')
  assert.is(cvar(q, 1), expectation(q))
})

test('two masses: closed forms', () => {
  const q = [-1, 3]
  near(utility(q, 0.7), -Math.cosh(1.4) * Math.exp(-0.7), 'utility')
  near(entropic(q, 0.7), 1 - Math.log(Math.cosh(1.4)) / 0.7, 'entropic')
  near(variance(q), 4, 'variance')
  near(meanVariance(q, 0.5), 0, 'mean-variance')
  near(cvar(q, 0.75), (-1 + 1.5) / 1.5, 'cvar')
})

test('invariances: translation, scaling, permutation, order of risk aversion', () => {
  const source = random(5)
  const q = Float64Array.from(source.normal(19))
  const shuffled = Float64Array.from(q).reverse()
  const swap = source.integers(19, 0, 19)
  for (const [i, j] of swap.entries()) [shuffled[i], shuffled[j]] = [shuffled[j], shuffled[i]]
  const moved = q.map((value) => value + 10)
  const scaled = q.map((value) => value * 3)
  const measures: [string, (q: ArrayLike<number>, scale: number) => number][] = [
    ['expectation', (x) => expectation(x)],
    ['cvar', (x) => cvar(x, 0.3)],
    ['entropic', (x, scale) => entropic(x, 0.8 / scale)],
    ['mean-variance', (x, scale) => meanVariance(x, 0.8 / scale)],
  ]
  for (const [name, measure] of measures) {
    const plain = measure(q, 1)
    near(measure(shuffled, 1), plain, `${name} of a permutation`)
    near(measure(moved, 1), plain + 10, `${name} of a translation`)
    near(measure(scaled, 3), plain * 3, `${name} of a scaling`)
  }
  near(utility(shuffled, 1), utility(q, 1), 'utility of a permutation')
  near(utility(moved, 1) * Math.exp(10), utility(q, 1), 'utility of a translation', 1e-12)
  for (let i = 1, before = Infinity; i < 30; i++) {
    const now = entropic(q, i - 10)
    assert.ok(now < before, `entropic must fall with lambda, got ${now} after ${before}`)
    before = now
  }
  for (let i = 1, before = -Infinity; i <= 100; i++) {
    const now = cvar(q, i / 100)
    assert.ok(now >= before - EXACT, `cvar must not fall with the level, got ${now} after ${before}`)
    before = now
  }
})

test('nothing overflows unless the result does', () => {
  near(utility([-708, -708], 1) / -Math.exp(708), 1, 'largest utility', 1e-12)
  near(
    utility([-710, 1000], 1) / -(Math.exp(709) * (Math.E / 2)),
    1,
    'utility whose largest term alone overflows',
    1e-12,
  )
  assert.is(utility([-1e4, 0], 1), -Infinity)
  assert.is(utility([1e4, 2e4], 1), 0)
  assert.is(utility([1e308, -1e308], 0), -1)
  near(entropic([-1e4, 0], 1), -1e4 + Math.log(2), 'entropic of -10000 and 0')
  near(entropic([1e4, 1e4 + 1], 1), 1e4 - Math.log((1 + Math.exp(-1)) / 2), 'entropic of 10000 and 10001')
  assert.is(entropic([-1e308, 1e308], 1), -1e308)
  assert.is(entropic([-1e308, 1e308], -1e300), 1e308)
  near(entropic([-1e200, 1e200], 1e-210), -50 * 1e190 * 1e-2, 'entropic of huge values, small lambda', 1e-6)
  assert.is(expectation([1.7e308, 1.7e308]), 1.7e308)
  assert.is(cvar([1.7e308, 1.7e308, 1.7e308], 1), 1.7e308)
  assert.is(entropic([5, 5, 5], 1e308), 5)
})

test('a uniform distribution on [0, 1]: the curve is exact', () => {
  for (const count of [2, 3, 19]) {
    const levels = evenLevels(count)
    for (const at of [0, 0.013, 0.05, 0.31, 0.5, 0.951, 1]) {
      near(quantile(levels, levels, at), at, `quantile ${at} of ${count}`)
      near(cdf(levels, levels, at), at, `cdf ${at} of ${count}`)
      near(probabilityBelow(levels, levels, at), at, `below ${at} of ${count}`)
      if (at > 0) near(tailMean(levels, levels, at), at / 2, `tail mean ${at} of ${count}`)
      near(density(levels, levels, at), at === 1 ? 0 : 1, `density ${at} of ${count}`, 1e-11)
    }
    near(tailMean(levels, levels, 1e-9), 5e-10, 'a thin tail', 1e-22)
  }
  // Many masses: the sums go to the integrals, the error of both is of the order 1 / K.
  const many = evenLevels(9999)
  near(cvar(many, 0.1), 0.05, 'cvar of many masses', 1e-4)
  near(entropic(many, 2), -Math.log((1 - Math.exp(-2)) / 2) / 2, 'entropic of many masses', 1e-4)
  near(utility(many, 2), -(1 - Math.exp(-2)) / 2, 'utility of many masses', 1e-4)
})

test('the curve runs through its points and inverts', () => {
  const source = random(6)
  for (const count of [1, 2, 4, 19]) {
    const levels = Float64Array.from(source.uniform(count, 0.01, 0.99)).sort()
    const values = rearrange(source.normal(count))
    for (let k = 0; k < count; k++) assert.is(quantile(values, levels, levels[k]), values[k])
    for (let i = 0; i <= 50; i++) {
      const at = i / 50
      near(quantile(values, levels, at), reference.curve(values, levels, at), `quantile ${at}`, 1e-10)
      if (count > 1) near(cdf(values, levels, quantile(values, levels, at)), at, `cdf of quantile ${at}`, 1e-9)
    }
    // Midpoint sums of Q, level by level; their error is second order only across the points.
    const steps = 20000
    for (const level of [0.07, 0.5, 1]) {
      let sum = 0
      for (let i = 0; i < steps; i++) sum += reference.curve(values, levels, ((i + 0.5) / steps) * level)
      near(tailMean(values, levels, level), sum / steps, `tail mean ${level} of ${count}`, 1e-5)
    }
  }
})

test('the density integrates to the cdf', () => {
  const levels = evenLevels(9)
  const values = rearrange(random(7).normal(9))
  const low = quantile(values, levels, 0)
  const high = quantile(values, levels, 1)
  const steps = 40000
  let sum = 0
  for (let i = 0; i < steps; i++) {
    const reward = low + ((high - low) * (i + 0.5)) / steps
    sum += (density(values, levels, reward) * (high - low)) / steps
    if (i % 4000 === 0) near(sum, cdf(values, levels, reward), `cdf at ${reward}`, 5e-3)
  }
  near(sum, 1, 'whole density', 5e-3)
  assert.is(density(values, levels, low - 1e-9), 0)
  assert.is(density(values, levels, high), 0)
})

test('flat pieces are atoms', () => {
  const levels = [0.2, 0.4, 0.6, 0.8]
  const values = [1, 2, 2, 4]
  near(probabilityBelow(values, levels, 2), 0.4, 'below the atom')
  near(cdf(values, levels, 2), 0.6, 'up to the atom')
  assert.is(density(values, levels, 2), Infinity)
  near(density(values, levels, 1.5), 0.2, 'below the atom')
  near(density(values, levels, 3), 0.1, 'above the atom')
  near(quantile(values, levels, 0.5), 2, 'in the atom')
  // One point alone, and equal points to the very ends: all mass on one value.
  for (const [q, t] of [
    [[3], [0.5]],
    [
      [3, 3],
      [0.1, 0.7],
    ],
  ]) {
    assert.equal([cdf(q, t, 2.9), cdf(q, t, 3), cdf(q, t, 3.1)], [0, 1, 1])
    assert.equal([probabilityBelow(q, t, 2.9), probabilityBelow(q, t, 3), probabilityBelow(q, t, 3.1)], [0, 0, 1])
    assert.equal([density(q, t, 2.9), density(q, t, 3), density(q, t, 3.1)], [0, Infinity, 0])
    assert.equal([quantile(q, t, 0), quantile(q, t, 1), tailMean(q, t, 0.01), tailMean(q, t, 1)], [3, 3, 3, 3])
  }
  // Atoms at the ends of the curve.
  near(cdf([0, 0, 1], [0.25, 0.5, 0.75], 0), 0.5, 'atom at the lower end')
  near(probabilityBelow([0, 1, 1], [0.25, 0.5, 0.75], 1), 0.5, 'atom at the upper end')
  assert.is(density([0, 1, 1], [0.25, 0.5, 0.75], 1), Infinity)
})

test('rewards beyond the curve have probability 0 and 1, infinite ones too', () => {
  const levels = evenLevels(4)
  const values = [1, 2, 3, 4]
  for (const reward of [-Infinity, -1]) assert.is(cdf(values, levels, reward), 0)
  for (const reward of [Infinity, 7]) assert.is(probabilityBelow(values, levels, reward), 1)
  assert.is(density(values, levels, Infinity), 0)
})

test.run()
