// The edges of the evaluations: ratings that sit on quantiles, weights that do not add up, levels without a partner, ties.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { calibration, constantQuantiles } from '../src/evaluate/calibration.ts'
import { pairAccuracy, pairCredits } from '../src/evaluate/pairs.ts'
import { PRIOR_SETS, readAccuracies, rewardBench, SUBSETS } from '../src/evaluate/reward_bench.ts'
import { rewardBench2, type ScoredItem, ties } from '../src/evaluate/reward_bench_2.ts'
import { close, fails } from './assert.ts'

/** The calibration of one quantile of one row against one rating. */
function ofOne(quantile: number, rating: number, level = 0.5) {
  return calibration([quantile], [level], { ratings: [rating], rows: [0] }, [rating])
}

test('a quantile within a millionth of a rating sits on it, relative to ratings above 1', () => {
  for (const [rating, unit] of [
    [0, 1e-6],
    [0.001, 1e-6],
    [-0.5, 1e-6],
    [1000, 1e-3],
    [-1000, 1e-3],
  ]) {
    for (const [by, coverage, below] of [
      [0, 1, 0],
      [0.9, 1, 0],
      [-0.9, 1, 0],
      [1.1, 1, 1],
      [-1.1, 0, 0],
    ]) {
      const found = ofOne(rating + by * unit, rating)
      assert.equal([found.coverage[0], found.coverage_below[0]], [coverage, below], `${rating} off by ${by} units`)
    }
  }
})

test('the error of a level is its distance from what is covered, on either side; the mean and the largest', () => {
  // Four rows, ratings 1 to 4; constant quantiles below all, above all, and on the second.
  const levels = [0.25, 0.4, 0.875]
  const row = [5, 2, 0.5]
  const ratings = [1, 2, 3, 4]
  const quantiles = ratings.flatMap(() => row)
  const found = calibration(quantiles, levels, { ratings, rows: [0, 1, 2, 3] }, [1, 2, 4])
  assert.equal(found.coverage, [1, 0.5, 0])
  assert.equal(found.coverage_below, [1, 0.25, 0])
  // 1 - 0.25, nothing, 0.875 - 0.
  close([found.coverage_error, found.worst_coverage_error], [1.625 / 3, 0.875], 1e-15, 'errors')
  // Losses of the constant quantiles by hand: (0 + 0.25 + 0.5 + 0.75) / 4, (0.6 + 0 + 0.4 + 0.8) / 4, 0.125 * 6 / 4.
  close([found.unconditional_pinball], [(0.375 + 0.45 + 0.1875) / 3], 1e-15, 'constant quantiles')
  close([found.unconditional_crps, found.crps], [2 * found.unconditional_pinball, 2 * found.pinball], 1e-15, 'CRPS')
  close([found.gain], [1 - found.pinball / found.unconditional_pinball], 1e-15, 'gain')
})

test('ratings that are all alike leave nothing to gain', () => {
  const found = calibration([1, 3], [0.5], { ratings: [2, 2], rows: [0, 1] }, [2])
  assert.equal([found.unconditional_pinball, found.gain], [0, 0])
  close([found.pinball], [0.5], 1e-15, 'pinball')
})

test('sharpness takes levels t and 1 - t alone; crossings are decreases of more than a millionth', () => {
  // 0.85 is no partner of 0.1, nor is the middle one of itself.
  const of = (quantiles: number[], levels: number[]) =>
    calibration(quantiles, levels, { ratings: [0], rows: [0] }, new Array(levels.length).fill(0))
  assert.is(of([1, 4, 9], [0.1, 0.85, 0.9]).sharpness, 8)
  assert.is(of([1, 2, 4, 9], [0.1, 0.5, 0.85, 0.9]).sharpness, 8)
  assert.is(of([1, 2, 4, 9], [0.1, 0.2, 0.8, 0.9]).sharpness, (8 + 2) / 2)
  // Partners to within the rounding of levels such as 1 / 3 and 2 / 3, or 3 * 0.05.
  assert.is(of([1, 2], [0.05 + 0.05 + 0.05, 0.85]).sharpness, 1)
  assert.equal([of([1], [0.5]).sharpness, of([1, 2], [0.1, 0.8]).sharpness], [null, null])
  assert.equal([of([1], [0.5]).crossings, of([2, 1, 1 - 2e-6, 3], [0.1, 0.2, 0.3, 0.4]).crossings], [0, 2 / 3])
  assert.is(of([1, 1 - 5e-7, 1], [0.1, 0.2, 0.3]).crossings, 0)
})

test('constant quantiles count weights, whose sums are a hair off, and leave out what is missing', async () => {
  for (const weight of [0.1, 0.7, 1, 1 / 3]) {
    for (const count of [3, 10, 20, 49]) {
      const ratings = Float64Array.from({ length: count }, (_, i) => count - i)
      const levels = Array.from({ length: count - 1 }, (_, k) => (k + 1) / count)
      const rated = { ratings, rows: ratings, weights: ratings.map(() => weight) }
      // A share k / n of n equal weights is reached by the k-th rating, never by the next one.
      close(
        constantQuantiles(rated, levels),
        levels.map((_, k) => k + 1),
        0,
        `${count} of weight ${weight}`,
      )
    }
  }
  const rated = { ratings: [9, Number.NaN, 1, 5], rows: [0, 0, 0, 0], weights: [1, 100, 1, 2] }
  assert.equal([...constantQuantiles(rated, [0.8, 0.2, 0.3, 0.75])], [9, 1, 5, 5])
  const none = 'calibration: at least one rating of a weight above 0 is needed, got none'
  for (const weights of [undefined, [0, 0]]) {
    const empty = { ratings: weights ? [1, 2] : [Number.NaN], rows: [0, 0], weights }
    await fails(() => constantQuantiles(empty, [0.5]), none)
    await fails(() => calibration([1], [0.5], empty, [1]), none)
  }
})

test('RewardBench: each prior set counts alike, accuracies of 0 and 1 are allowed', async () => {
  const all = Object.fromEntries(SUBSETS.map((name) => [name, 1]))
  assert.equal(PRIOR_SETS.length, 4)
  for (const name of ['anthropic_helpful', 'anthropic_hhh', 'shp', 'summarize']) {
    const accuracies = { anthropic_helpful: 0, anthropic_hhh: 0, shp: 0, summarize: 0, [name]: 1 }
    assert.is(rewardBench({ ...all, ...accuracies }, { priorSets: true }).priorSets, 0.25, name)
  }
  assert.equal(readAccuracies({ 'math-prm': 1, shp: 0 }, 'r'), { 'math-prm': 1, shp: 0 })
  for (const bad of [-0.1, 1.01, null]) {
    const message = `r: accuracy of shp must be a number from 0 to 1, got ${bad}`
    await fails(() => readAccuracies({ 'math-prm': 1, shp: bad }, 'r'), message)
  }
  await fails(() => rewardBench({ shp: 2 }, { priorSets: true }), /accuracy of shp must be from 0 to 1, got 2/)
  assert.is(rewardBench({ shp: 2 }).score, 0)
})

const item = (id: string, right: readonly number[], wrong: readonly number[]): ScoredItem => {
  return { subset: 'Ties', id, scores: [...right, ...wrong], right: right.length }
}

test('RewardBench 2: a margin must exceed the spread, and the smaller of both is the one that counts', () => {
  const score = (tied: ScoredItem, ref: ScoredItem) => ties([tied, ref]).score
  // Spread 1 in all of them; margins 1 and 3, 3 and 1, 1 and 1, 3 and 3.
  const own = (margin: number) => item('tied:1', [4, 3], [3 - margin])
  const ref = (margin: number) => item('ref:1', [4], [4 - margin])
  const soft = (least: number) => 0.01 * Math.tanh(least - 1)
  const both = [score(own(1), ref(3)), score(own(3), ref(1)), score(own(1), ref(1)), score(own(3), ref(3))]
  close(both, [0.6, 0.8, 0.6, 1 + soft(3)], 1e-15, 'margins')
  // A tied question with one right answer has no spread: any margin exceeds it, and tanh is that of infinity.
  close([score(item('tied:1', [2], [1]), ref(3))], [1 + 0.01], 1e-15, 'one right answer')
  // No margin and no spread: 0 / 0 counts 0; nothing is accurate where the best are even.
  close([score(item('tied:1', [2, 2], [2]), ref(3))], [0.3], 1e-15, 'no margin and no spread')
})

test('RewardBench 2: ids of questions, no rows at all', async () => {
  // Any text is an id, line breaks too, but for none.
  close([ties([item('tied:a\nb', [2], [1]), item('ref:a\nb', [2], [1])]).score], [1.01], 1e-15, 'an id of two lines')
  for (const id of ['tied:', 'ref:', ':1', 'x tied:1']) {
    const message = `RewardBench 2: the id of a row of Ties must be "ref:ID" or "tied:ID", got "${id}"`
    await fails(() => ties([item(id, [1], [0])]), message)
    await fails(() => rewardBench2([item(id, [1], [0])]), message)
  }
  assert.equal([rewardBench2([]).score, rewardBench2([]).ties, rewardBench2([]).missing.length], [0, null, 6])
  assert.equal(ties([]), { score: 0, tiedAccuracy: 0, refAccuracy: 0 })
})

test('pairs: infinite scores are compared, NaN on any side is refused with its place', async () => {
  const { accuracy, ties: even } = pairAccuracy(
    [Infinity, -Infinity, -Infinity, 0],
    [-Infinity, Infinity, -Infinity, -1],
  )
  assert.equal([accuracy, even], [0.5, 1])
  assert.equal([...pairCredits([Infinity, -Infinity, Infinity], [-Infinity, Infinity, Infinity])], [1, 0, 0])
  for (const [chosen, rejected] of [
    [Number.NaN, 0],
    [0, Number.NaN],
    [Number.NaN, Number.NaN],
  ]) {
    const message = `pairAccuracy: scores must be numbers, pair 2 has ${chosen} and ${rejected}`
    await fails(() => pairAccuracy([1, chosen], [0, rejected]), message)
  }
  const both = 'pairAccuracy: both sides must have a score for the same pairs, got'
  await fails(() => pairAccuracy([], []), `${both} 0 and 0`)
  await fails(() => pairAccuracy([1, 2], [1]), `${both} 2 and 1`)
})

test.run()
