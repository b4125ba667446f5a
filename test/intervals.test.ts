// Intervals against exact distributions: both ends of the bootstrap, its p, McNemar's test, Wilson's interval as the set it is.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { meanInterval, pairedBootstrap, studentQuantile, wilson } from '../src/evaluate/intervals.ts'
import { normalBelow, normalQuantile } from '../src/evaluate/normal.ts'
import { weightedInterval } from '../src/evaluate/pairs.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'

/** P(X <= k) [0..n] for n coins that show 1 with probability p. */
function binomial(n: number, p: number): Float64Array {
  const cumulative = new Float64Array(n + 1)
  let [log, sum] = [n * Math.log1p(-p), 0]
  for (let k = 0; k <= n; k++) {
    sum += Math.exp(log)
    cumulative[k] = sum
    log += Math.log(n - k) - Math.log(k + 1) + Math.log(p) - Math.log1p(-p)
  }
  return cumulative
}

/** Credits of two models that differ in the first `wins` of `rows` rows. */
function creditsOf(wins: number, rows: number) {
  return [Float64Array.from({ length: rows }, (_, i) => (i < wins ? 1 : 0)), new Float64Array(rows)] as const
}

const SAMPLES = 20_000
// Four standard errors of a share of 2.5 % in as many samples.
const ERROR = 4 * Math.sqrt((0.025 * 0.975) / SAMPLES)

test('both ends of the bootstrap are those of its exact distribution', () => {
  // A resampled mean of 0 and 1 is a binomial count.
  for (const [wins, rows] of [
    [100, 400],
    [380, 400],
    [3, 50],
  ]) {
    const cumulative = binomial(rows, wins / rows)
    const at = (count: number) => (count < 0 ? 0 : cumulative[count])
    const [first, second] = creditsOf(wins, rows)
    for (const seed of [0, 1, 2]) {
      const { interval, difference } = pairedBootstrap(first, second, { samples: SAMPLES, seed })
      close([difference], [wins / rows], 1e-15, 'difference')
      for (const [end, share] of [
        [interval[0], 0.025],
        [interval[1], 0.975],
      ]) {
        const count = Math.round(end * rows)
        close([end], [count / rows], 1e-15, 'a share of the rows')
        const where = `${wins} of ${rows}, seed ${seed}, end ${count}: P(X < end) ${at(count - 1)}, P(X <= end) ${at(count)}`
        assert.ok(at(count - 1) <= share + ERROR && at(count) >= share - ERROR, where)
      }
      // The other model's view is the same with the ends in turn.
      const turned = pairedBootstrap(second, first, { samples: SAMPLES, seed })
      close(turned.interval, [-interval[1], -interval[0]], 1 / rows + 1e-15, 'the models exchanged')
    }
  }
})

test('p is twice the smaller exact share of differences at or beyond 0', () => {
  // Rows of 1 and -1: a mean of 0 is half of them, and counts for both sides.
  for (const [rows, wins] of [
    [20, 12],
    [20, 8],
    [21, 14],
    [10, 5],
  ]) {
    const first = Float64Array.from({ length: rows }, (_, i) => (i < wins ? 1 : 0))
    const second = first.map((value) => 1 - value)
    const cumulative = binomial(rows, wins / rows)
    const atMost = cumulative[Math.floor(rows / 2)]
    const atLeast = 1 - cumulative[Math.ceil(rows / 2) - 1]
    const expected = Math.min(1, 2 * Math.min(atMost, atLeast))
    const { p } = pairedBootstrap(first, second, { samples: SAMPLES, seed: 3 })
    close([p], [expected], 8 * Math.sqrt(0.25 / SAMPLES), `p of ${wins} wins in ${rows}`)
  }
})

test('the bootstrap draws all rows alike, and seeds differ', () => {
  // One row of ten differs: a mean of 0 has probability 0.9^10, whichever row it is.
  const none = new Float64Array(10)
  for (let row = 0; row < 10; row++) {
    const one = none.map((_, i) => (i === row ? 1 : 0))
    const { p } = pairedBootstrap(one, none, { samples: SAMPLES, seed: row })
    close([p], [2 * 0.9 ** 10], 8 * Math.sqrt(0.25 / SAMPLES), `row ${row}`)
  }
  // Ten thousand samples where none are asked for, of which none reaches 0 here.
  assert.is(pairedBootstrap([1, 1], [0, 0]).p, 2 / 10_001)
  const draw = random(31)
  const [a, b] = [draw.uniform(40), draw.uniform(40)]
  const ends = [0, 1, 2].map((seed) => pairedBootstrap(a, b, { samples: 500, seed }).interval.join())
  assert.is(new Set(ends).size, 3)
  assert.is(pairedBootstrap(a, b, { samples: 500 }).interval.join(), ends[0])
})

test("McNemar's test counts rows by who gets more right, fractions too", () => {
  const found = pairedBootstrap([1, 0.5, 0, 0.5, 1], [0, 0, 0.5, 0.5, 1], { samples: 10 })
  assert.equal([found.firstOnly, found.secondOnly, found.rows], [2, 1, 5])
  assert.is(found.mcnemar, 1)
  // 2 P(X <= 2 of 12), and with 6 against 6 all of it.
  const rows = (first: number, second: number) =>
    pairedBootstrap(
      Float64Array.from({ length: first + second }, (_, i) => (i < first ? 1 : 0)),
      Float64Array.from({ length: first + second }, (_, i) => (i < first ? 0 : 1)),
      { samples: 10 },
    ).mcnemar
  close([rows(2, 10), rows(10, 2)], [(2 * 79) / 4096, (2 * 79) / 4096], 1e-15, '2 of 12')
  close([rows(6, 6), rows(0, 5), rows(1, 0)], [1, 2 / 32, 1], 1e-14, 'even, all, one')
  // Far out, where 2^-n alone would vanish: 2 P(X <= 1000 of 3000) is about 7e-76.
  assert.ok(rows(1000, 2000) > 1e-77 && rows(1000, 2000) < 1e-74)
})

test("Wilson's interval is the set of shares that a test at 5 % does not refuse", () => {
  const z = 1.959963984540054
  for (const [right, rows] of [
    [8, 10],
    [1, 3],
    [2.5, 4],
    [499, 500],
    [5000, 100_000],
  ]) {
    for (const [i, end] of wilson(right, rows).entries()) {
      // At its ends the score statistic is exactly z.
      const score = (right / rows - end) / Math.sqrt((end * (1 - end)) / rows)
      close([score], [i === 0 ? z : -z], 1e-9, `${right} of ${rows}`)
    }
  }
  close([wilson(0, 7)[0], wilson(7, 7)[1]], [0, 1], 1e-15, 'nothing and everything right')
})

test("Wilson's interval and the bootstrap refuse what they cannot count", async () => {
  await fails(() => wilson(-1, 3), 'wilson: must have 0 <= right <= rows, got -1 of 3')
  await fails(() => wilson(3.1, 3), 'wilson: must have 0 <= right <= rows, got 3.1 of 3')
  await fails(() => wilson(0, Number.NaN), 'wilson: must have 0 <= right <= rows, got 0 of NaN')
  const two = 'pairedBootstrap: both must have the same rows, at least one, got'
  await fails(() => pairedBootstrap([], []), `${two} 0 and 0`)
  await fails(() => pairedBootstrap([1, 0], [1]), `${two} 2 and 1`)
  // A sum of shares may be a hair more than its rows.
  assert.ok(wilson(3 + 1e-12, 3)[1] <= 1)
})

test('a weighted mean has the interval of the rows that an unweighted one would need', () => {
  // Kish: (1 + 3)^2 / (1 / 10 + 9 / 30) = 40 rows, of which (0.5 + 3 * 0.9) / 4 = 0.8 are right.
  const parts = [
    { accuracy: 0.5, rows: 10, weight: 1 },
    { accuracy: 0.9, rows: 30, weight: 3 },
  ]
  close(weightedInterval(parts), wilson(32, 40), 1e-14, 'uneven weights')
  const skewed = parts.map((part, i) => ({ ...part, weight: i === 0 ? 4 : 1 }))
  close(weightedInterval(skewed), wilson(0.58 * (25 / (1.6 + 1 / 30)), 25 / (1.6 + 1 / 30)), 1e-14, 'skewed weights')
  assert.equal(weightedInterval([]), [0, 1])
  assert.equal(weightedInterval(parts.map((part) => ({ ...part, weight: 0 }))), [0, 1])
  assert.is(weightedInterval([{ accuracy: 1, rows: 3, weight: 0.1 }])[1], 1)
})

test("Student's quantiles and the normal distribution are those of closed forms and tables", () => {
  for (const level of [0.5, 0.75, 0.9, 0.975, 0.999]) {
    const one = Math.tan(Math.PI * (level - 0.5))
    close([studentQuantile(level, 1)], [one], 1e-8 * Math.max(1, one), `t(1) at ${level}`)
    const two = (2 * level - 1) / Math.sqrt(2 * level * (1 - level))
    close([studentQuantile(level, 2)], [two], 1e-8 * Math.max(1, two), `t(2) at ${level}`)
  }
  for (const [freedom, level, printed] of [
    [4, 0.975, 2.776],
    [9, 0.9, 1.383],
    [30, 0.995, 2.75],
    [1000, 0.975, 1.962],
  ])
    close([studentQuantile(level, freedom)], [printed], 5e-4, `t(${freedom}) at ${level}`)
  // Python 3, math.erfc.
  for (const [z, below] of [
    [0, 0.5],
    [1.959963984540054, 0.975],
    [-3, 0.0013498980316300933],
    [6, 0.9999999990134123],
    [-12, 0],
    [12, 1],
  ]) {
    close([normalBelow(z)], [below], 1e-15, `P(Z <= ${z})`)
    if (below > 0 && below < 1) close([normalQuantile(below)], [z], 1e-6, `level ${below}`)
  }
})

test('the interval of a mean covers it as often as it says', () => {
  const draw = random(11)
  const trials = 1000
  let covered = 0
  for (let i = 0; i < trials; i++) {
    const { interval, mean, values } = meanInterval(Array.from(draw.normal(5, { mean: 2 })))
    assert.is(values, 5)
    const [low, high] = interval!
    assert.ok(low < mean && mean < high)
    if (low <= 2 && 2 <= high) covered++
  }
  close([covered / trials], [0.95], 4 * Math.sqrt((0.95 * 0.05) / trials), 'coverage')
  assert.equal(meanInterval([3]), { mean: 3, interval: null, values: 1 })
  assert.throws(() => meanInterval([]), /at least one value is needed, got none/)
})

test.run()
