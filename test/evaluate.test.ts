// The mathematics of the evaluations: published numbers of RewardBench, the definitions of RewardBench 2, intervals, calibration.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { calibration, constantQuantiles } from '../src/evaluate/calibration.ts'
import { pairedBootstrap, wilson } from '../src/evaluate/intervals.ts'
import { pairAccuracy, pairCredits, weightedInterval } from '../src/evaluate/pairs.ts'
import { readAccuracies, rewardBench, SUBSETS, subsetCounts } from '../src/evaluate/reward_bench.ts'
import { bestOf, rewardBench2, type ScoredItem, ties } from '../src/evaluate/reward_bench_2.ts'
import { parseScoreKind, pointScore } from '../src/reward/scoring.ts'
import { random } from './random.ts'

const near = (actual: number, expected: number, limit: number, name: string) =>
  assert.ok(Math.abs(actual - expected) <= limit, `${name}: ${actual} instead of ${expected}`)

/** Accuracies of subsets as the leaderboard publishes them, in the order of the sections, and what it makes of them. */
const PUBLISHED = [
  {
    model: 'QRM-Llama3-8B',
    values: [
      0.98, 0.9368421052631579, 0.9263157894736842, 1, 1, 0.8378378378378378, 0.93, 0.7686567164179104,
      0.8152173913043478, 0.7021276595744681, 0.7608695652173914, 0.93, 0.95, 0.9805194805194806, 0.876,
      0.7867647058823529, 0.9932885906040269, 0.9390243902439024, 0.9512195121951219, 0.9817073170731707,
      0.975609756097561, 0.9695121951219512, 0.9329268292682927,
    ],
    sections: [0.9581005586592178, 0.8114035087719298, 0.8986486486486487, 0.97581096196868],
    score: 0.9109909195121191,
    swapped: 0.9122,
  },
  {
    model: 'QRM-Llama3.1-8B',
    values: [
      0.95, 0.9368421052631579, 0.9157894736842105, 1, 0.975, 0.8918918918918919, 0.9, 0.917910447761194,
      0.9456521739130435, 0.8297872340425532, 0.8043478260869565, 0.93, 1, 0.9675324675324676, 0.96, 0.7426470588235294,
      0.9552572706935123, 0.9573170731707317, 0.9695121951219512, 0.975609756097561, 0.975609756097561,
      0.9573170731707317, 0.9329268292682927,
    ],
    sections: [0.9441340782122905, 0.8969298245614035, 0.922972972972973, 0.9583196922573253],
    score: 0.9305891420009981,
  },
]

test('RewardBench gives the sections and scores that were published', () => {
  for (const { model, values, sections, score, swapped } of PUBLISHED) {
    const accuracies = Object.fromEntries(SUBSETS.map((name, i) => [name, values[i]]))
    const bench = rewardBench(accuracies)
    // The published accuracies are quotients rounded to 16 digits, in sums of at most 7 terms.
    for (const [i, value] of Object.values(bench.sections).entries())
      near(value, sections[i], 1e-14, `${model}, section ${i}`)
    near(bench.score, score, 1e-14, model)
    assert.equal(bench.missing, [])
    if (swapped)
      near(rewardBench(accuracies, { xstest: 'swapped' }).sections.Safety, swapped, 5e-5, `${model}, swapped`)
  }
})

test('RewardBench: weights, subsets that are missing, prior sets', () => {
  const counts = (section: 'Chat' | 'Chat Hard' | 'Safety' | 'Reasoning') =>
    Object.values(subsetCounts(section)).reduce((a, b) => a + b, 0)
  assert.equal([counts('Chat'), counts('Chat Hard'), counts('Safety'), counts('Reasoning')], [358, 456, 740, 1968])
  assert.equal(subsetCounts('Safety', 'swapped')['xstest-should-refuse'], 250)
  const some = rewardBench({ 'alpacaeval-easy': 1, 'alpacaeval-hard': 0, 'math-prm': 0.5 })
  near(some.sections.Chat, 100 / 195, 1e-15, 'present subsets only')
  assert.equal([some.sections.Safety, some.sections['Chat Hard']], [0, 0])
  assert.is(some.missing.length, SUBSETS.length - 3)
  const all = Object.fromEntries(SUBSETS.map((name) => [name, 0.5]))
  const prior = { ...all, anthropic_helpful: 1, shp: 0.5 }
  assert.is(rewardBench(prior).score, 0.5)
  near(rewardBench(prior, { priorSets: true }).score, (4 * 0.5 + 0.5 * 0.75) / 4.5, 1e-15, 'prior sets count half')
  assert.is(rewardBench(all, { priorSets: true }).priorSets, undefined)
  assert.throws(() => rewardBench({ 'math-prm': 1.5 }), /accuracy of math-prm must be from 0 to 1, got 1.5/)
  const nested = { model: 'm', accuracy: 0.4, extra_results: { 'math-prm': 0.25, other: 'x' } }
  assert.equal(readAccuracies(nested, 'r'), { 'math-prm': 0.25 })
  assert.equal(readAccuracies({ subsets: { 'math-prm': { accuracy: 0.25, rows: 4 } } }, 'r'), { 'math-prm': 0.25 })
  assert.throws(() => readAccuracies({ 'math-prm': 'x' }, 'r.json'), /^r.json: accuracy of math-prm must be a number/)
  assert.throws(() => readAccuracies({ model: 'm' }, 'r.json'), /has no accuracy of a subset/)
})

test('RewardBench 2: credits of ties, the composite of the subset Ties', () => {
  assert.equal([bestOf([1, 0, 0, 0]), bestOf([1, 1, 0, 1]), bestOf([0, 1, 0, 0])], [1, 1 / 3, 0])
  const item = (id: string, right: number[], wrong: number[]): ScoredItem => ({
    subset: 'Ties',
    id,
    scores: [...right, ...wrong],
    right: right.length,
  })
  const items = [
    item('ref:1', [5], [1, 0]),
    // Right answers 4 to 5, wrong ones up to 2: spread 1, margin 2; the smaller margin of tied and ref is 2.
    item('tied:1', [5, 4, 4.5], [2, 1]),
    item('ref:2', [1], [1]),
    // Margin -1, spread 0.
    item('tied:2', [3, 3], [4]),
  ]
  const { tiedAccuracy, refAccuracy, score } = ties(items)
  assert.equal([tiedAccuracy, refAccuracy], [0.5, 0.5])
  // Soft part: tanh(2 / 1 - 1) and tanh(-1 / 0 - 1) = -1.
  near(score, 0.3 * 0.5 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + (0.01 * (Math.tanh(1) - 1)) / 2, 1e-15, 'composite')
  // Alone it is accurate, and has no margin to compare.
  near(ties([item('tied:9', [1, 2], [0])]).score, 0.3, 1e-15, 'a tied question without its ref')
  // Answers of one question in two rows: right 1 to 3, wrong 2.
  const apart = [item('tied:3', [3], [2]), item('tied:3', [1], [0])]
  assert.equal(ties(apart), ties([item('tied:3', [3, 1], [2, 0])]))
  assert.throws(() => ties([item('x', [1], [0])]), /must be "ref:ID" or "tied:ID"/)
  const math = { subset: 'Math', id: '', scores: [2, 1, 1, 1], right: 1 }
  const all = rewardBench2([math, { ...math, scores: [0, 1, 1, 1] }, ...items])
  assert.equal(all.subsets.Math, { score: 0.5, rows: 2 })
  near(all.score, (0.5 + score) / 2, 1e-15, 'mean of the domains that are there')
  assert.equal(all.missing, ['Factuality', 'Precise IF', 'Safety', 'Focus'])
  assert.throws(() => rewardBench2([{ ...math, subset: 'math' }]), /there is no subset "math"/)
})

test("Wilson's interval has its textbook values, and covers", () => {
  // 8 of 10 and 0 of 10: Brown, Cai and DasGupta 2001, formula 4.
  const [low, high] = wilson(8, 10)
  near(low, 0.49016, 5e-6, 'low')
  near(high, 0.94332, 5e-6, 'high')
  near(wilson(0, 10)[1], 0.27753, 5e-6, 'nothing right')
  assert.equal([wilson(0, 10)[0], wilson(0, 0)], [0, [0, 1]])
  assert.throws(() => wilson(3, 2))
  const draw = random(5)
  let covered = 0
  for (let trial = 0; trial < 2000; trial++) {
    const right = draw.uniform(60).filter((u) => u < 0.3).length
    const [a, b] = wilson(right, 60)
    if (a <= 0.3 && 0.3 <= b) covered++
  }
  // 95 % with a standard error of half a percent, and the interval's own error of about one.
  near(covered / 2000, 0.95, 0.025, 'coverage')
  const even = [0, 1].map(() => ({ accuracy: 0.8, rows: 50, weight: 1 }))
  assert.equal(weightedInterval(even), wilson(80, 100))
})

test('the paired bootstrap sees a difference, and none where there is none', () => {
  const draw = random(6)
  const hard = draw.uniform(500)
  const credits = (share: number) => Float64Array.from(hard, (u) => (u < share ? 1 : 0))
  const worse = pairedBootstrap(credits(0.6), credits(0.7))
  const expected = [...credits(0.6)].reduce((a, b) => a + b, 0) - [...credits(0.7)].reduce((a, b) => a + b, 0)
  near(worse.difference, expected / 500, 1e-12, 'difference')
  assert.ok(worse.interval[1] < 0 && worse.p < 0.001 && worse.mcnemar < 0.001)
  assert.equal([worse.firstOnly, worse.secondOnly], [0, -expected])
  // Standard error of a mean of 500 differences with these values.
  const q = -expected / 500
  near(worse.interval[1] - worse.interval[0], 2 * 1.96 * Math.sqrt((q * (1 - q)) / 500), 0.006, 'width')
  const same = pairedBootstrap(credits(0.6), credits(0.6))
  assert.equal([same.difference, same.p, same.mcnemar], [0, 1, 1])
  // Where no resampled difference reaches 0, p is still that of the measured one among them.
  assert.is(pairedBootstrap([1, 1, 1], [0, 0, 0], { samples: 999 }).p, 2 / 1000)
  assert.equal(
    pairedBootstrap(credits(0.5), credits(0.6), { seed: 4 }),
    pairedBootstrap(credits(0.5), credits(0.6), { seed: 4 }),
  )
  // Two-sided exact binomial: 1 against 6 of 7 coins.
  near(pairedBootstrap([1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]).mcnemar, 2 * (8 / 128), 1e-12, 'McNemar')
})

test('pairs: wins, ties, subsets', () => {
  const found = pairAccuracy([1, 1, 0, 2], [0, 1, 1, 1], ['a', 'a', 'b', 'b'])
  assert.equal([found.accuracy, found.rows, found.ties], [0.5, 4, 1])
  assert.equal(found.subsets.a, { accuracy: 0.5, interval: wilson(1, 2), rows: 2, ties: 1 })
  assert.equal([...pairCredits([1, 1], [0, 1])], [1, 0])
  assert.throws(() => pairAccuracy([Number.NaN], [1]), /pair 1 has NaN and 1/)
  assert.throws(() => pairAccuracy([], []), /got 0 and 0/)
})

test('calibration is what a naive program finds', () => {
  const draw = random(7)
  const levels = [0.1, 0.5, 0.9]
  const [R, L] = [40, 100]
  const quantiles = Float64Array.from(draw.normal(R * 3), (value) => Math.round(4 * value) / 4)
  const rows = draw.integers(L, 0, R)
  const ratings = Float64Array.from(draw.normal(L), (value) => Math.round(2 * value) / 2)
  ratings[3] = Number.NaN
  const weights = draw.uniform(L, 0.5, 2)
  const constant = constantQuantiles({ ratings, rows, weights }, levels)
  const found = calibration(quantiles, levels, { ratings, rows, weights }, constant)
  const kept = [...ratings.keys()].filter((i) => i !== 3)
  const total = kept.reduce((sum, i) => sum + weights[i], 0)
  const mean = (value: (i: number) => number) => kept.reduce((sum, i) => sum + weights[i] * value(i), 0) / total
  const loss = (y: number, q: number, t: number) => Math.max(t * (y - q), (t - 1) * (y - q))
  for (const [k, level] of levels.entries()) {
    const q = (i: number) => quantiles[rows[i] * 3 + k]
    near(
      found.coverage[k],
      mean((i) => (ratings[i] <= q(i) ? 1 : 0)),
      1e-12,
      'coverage',
    )
    near(
      found.coverage_below[k],
      mean((i) => (ratings[i] < q(i) ? 1 : 0)),
      1e-12,
      'below',
    )
    near(
      found.pinball_by_level[k],
      mean((i) => loss(ratings[i], q(i), level)),
      1e-12,
      'pinball',
    )
    // A quantile has at most its level below it, and at least its level at or below.
    assert.ok(mean((i) => (ratings[i] < constant[k] ? 1 : 0)) <= level)
    assert.ok(mean((i) => (ratings[i] <= constant[k] ? 1 : 0)) >= level)
  }
  near(
    found.crps,
    (2 * (found.pinball_by_level[0] + found.pinball_by_level[1] + found.pinball_by_level[2])) / 3,
    1e-15,
    'CRPS',
  )
  const plain = mean((i) => levels.reduce((sum, level, k) => sum + loss(ratings[i], constant[k], level), 0) / 3)
  near(found.unconditional_pinball, plain, 1e-12, 'unconditional')
  near(found.gain, 1 - found.pinball / plain, 1e-12, 'gain')
  const seen = [...new Set(kept.map((i) => rows[i]))]
  near(
    found.sharpness!,
    seen.reduce((sum, r) => sum + quantiles[r * 3 + 2] - quantiles[r * 3], 0) / seen.length,
    1e-12,
    'sharpness',
  )
  const crossed = seen.flatMap((r) => [1, 2].map((k) => (quantiles[r * 3 + k] < quantiles[r * 3 + k - 1] ? 1 : 0)))
  near(found.crossings, crossed.reduce((a: number, b) => a + b, 0) / crossed.length, 1e-12, 'crossings')
  assert.equal([found.items, found.ratings], [seen.length, 99])
})

test('true quantiles are covered at their levels, also of discrete ratings', () => {
  const levels = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)
  const ratings = Float64Array.from(random(8).integers(20_000, 0, 5), (grade) => (grade + 0.5) / 5)
  const rows = new Uint32Array(ratings.length)
  const q = constantQuantiles({ ratings, rows }, levels)
  const found = calibration(q, levels, { ratings, rows }, q)
  assert.is(found.worst_coverage_error, 0)
  assert.equal([found.gain, found.crossings], [0, 0])
  const off = calibration(
    q.map((value) => value + 0.2),
    levels,
    { ratings, rows },
    q,
  )
  assert.ok(off.worst_coverage_error > 0.1 && off.gain < 0)
})

test('scores that rank', () => {
  const levels = [0.25, 0.5, 0.75]
  const score = { score: 3, quantiles: [2, 1, 6] }
  const of = (text: string, lambda = 1) => pointScore(parseScoreKind(text), score, levels, lambda)
  assert.is(of('expectation'), 3)
  near(of('utility'), -(Math.exp(-2) + Math.exp(-1) + Math.exp(-6)) / 3, 1e-15, 'utility')
  near(
    of('certainty-equivalent'),
    -Math.log((Math.exp(-2) + Math.exp(-1) + Math.exp(-6)) / 3),
    1e-14,
    'certainty-equivalent',
  )
  assert.is(of('certainty-equivalent', 0), 3)
  const bad = { score: -900, quantiles: [-900, -900, -900] }
  assert.throws(
    () => pointScore({ kind: 'utility' }, bad, levels, 1),
    /the utility of lambda 1 is -Infinity; rank by certainty-equivalent/,
  )
  near(pointScore({ kind: 'certainty-equivalent' }, bad, levels, 1), -900, 1e-10, 'no overflow')
  near(of('cvar:0.5'), (1 + 0.5 * 2) / 1.5, 1e-15, 'cvar')
  assert.is(of('quantile:0.5'), 2)
  assert.equal(parseScoreKind('cvar'), { kind: 'cvar', level: 0.1 })
  for (const bad of ['cvar:0', 'cvar:2', 'quantile', 'quantile:-1', 'quantile:x', 'mean', '', 'utility:2']) {
    assert.throws(() => parseScoreKind(bad), /must be/, bad)
  }
})

test.run()
