// How well predicted quantiles describe ratings: coverage, pinball loss, CRPS, sharpness, crossings; beside constant quantiles.
//
// Source: Gneiting and Raftery 2007 (pinball loss, CRPS as its integral over levels, sharpness); Koenker 2005. Ratings are often
// discrete: a quantile that sits on a rating covers all of it, so that P(y <= q) cannot be the level. A level is right if it lies
// between P(y < q) and P(y <= q), and its error is the distance from that interval.

/** Values nearer than this, relative to 1 or their size, are one: predictions are f32, and come from sums. */
const SAME = 1e-6

export interface RatedValues {
  /** Ratings [L]; NaN are left out. */
  readonly ratings: ArrayLike<number>
  /** Row of each rating [L]. */
  readonly rows: ArrayLike<number>
  /** Weight of each rating [L]; default 1. */
  readonly weights?: ArrayLike<number>
}

export interface CalibrationResult {
  readonly items: number
  readonly ratings: number
  /** P(y <= q) and P(y < q) of each level [K]. */
  readonly coverage: number[]
  readonly coverage_below: number[]
  /** Distance of each level from the interval between the two: the mean and the largest. */
  readonly coverage_error: number
  readonly worst_coverage_error: number
  /** Mean loss of each level [K], and over all of them. */
  readonly pinball_by_level: number[]
  readonly pinball: number
  /** Twice the mean over levels: the continuous ranked probability score, as far as the levels resolve it. */
  readonly crps: number
  /** Mean width of the central intervals that pairs of levels t and 1 - t span; null without such pairs. */
  readonly sharpness: number | null
  /** Share of neighbouring levels whose quantiles decrease, over rows. */
  readonly crossings: number
  /** The same losses of the constant quantiles. */
  readonly unconditional_pinball: number
  readonly unconditional_crps: number
  /** 1 - pinball / unconditional pinball. */
  readonly gain: number
}

/** Quantiles [K] of ratings, each counted by its weight: the smallest value that a share `level` of the weight is at or below. */
export function constantQuantiles({ ratings, weights }: RatedValues, levels: readonly number[]): Float64Array {
  const kept: number[] = []
  let total = 0
  for (let i = 0; i < ratings.length; i++) {
    if (Number.isNaN(ratings[i])) continue
    kept.push(i)
    total += weights?.[i] ?? 1
  }
  if (!(total > 0)) throw new Error('calibration: at least one rating of a weight above 0 is needed, got none')
  kept.sort((a, b) => ratings[a] - ratings[b])
  return Float64Array.from(levels, (level) => {
    let sum = 0
    const at = kept.find((i) => {
      sum += weights?.[i] ?? 1
      return sum >= level * total * (1 - 1e-12)
    })
    return ratings[at ?? kept[kept.length - 1]]
  })
}

/** Measures quantiles [R, K] of rows against their ratings; `constant` [K] are the quantiles to compare with. */
export function calibration(
  quantiles: ArrayLike<number>,
  levels: readonly number[],
  { ratings, rows, weights }: RatedValues,
  constant: ArrayLike<number>,
): CalibrationResult {
  const K = levels.length
  const [at, below, loss, plain] = [0, 1, 2, 3].map(() => new Float64Array(K))
  const seen = new Set<number>()
  let [total, count] = [0, 0]
  for (let i = 0; i < ratings.length; i++) {
    const y = ratings[i]
    if (Number.isNaN(y)) continue
    const weight = weights?.[i] ?? 1
    seen.add(rows[i])
    total += weight
    count++
    for (let k = 0; k < K; k++) {
      const q = quantiles[rows[i] * K + k]
      const near = SAME * Math.max(1, Math.abs(y))
      if (y <= q + near) at[k] += weight
      if (y < q - near) below[k] += weight
      loss[k] += weight * pinball(y - q, levels[k])
      plain[k] += weight * pinball(y - constant[k], levels[k])
    }
  }
  if (!(total > 0)) throw new Error('calibration: at least one rating of a weight above 0 is needed, got none')
  const shares = (sums: Float64Array) => Array.from(sums, (sum) => sum / total)
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [coverage, coverageBelow, losses] = [shares(at), shares(below), shares(loss)]
  const errors = levels.map((level, k) => Math.max(0, coverageBelow[k] - level, level - coverage[k]))
  const [own, other] = [mean(losses), mean(shares(plain))]
  return {
    items: seen.size,
    ratings: count,
    coverage,
    coverage_below: coverageBelow,
    coverage_error: mean(errors),
    worst_coverage_error: Math.max(...errors),
    pinball_by_level: losses,
    pinball: own,
    crps: 2 * own,
    ...shapes(quantiles, levels, [...seen]),
    unconditional_pinball: other,
    unconditional_crps: 2 * other,
    gain: other > 0 ? 1 - own / other : 0,
  }
}

function pinball(r: number, level: number): number {
  return r > 0 ? level * r : (level - 1) * r
}

function shapes(quantiles: ArrayLike<number>, levels: readonly number[], rows: readonly number[]) {
  const K = levels.length
  const pairs = levels.flatMap((level, k) => {
    const other = levels.findIndex((value) => Math.abs(value + level - 1) < 1e-9)
    return other > k ? [[k, other] as const] : []
  })
  let [width, crossed] = [0, 0]
  for (const row of rows) {
    for (const [low, high] of pairs) width += quantiles[row * K + high] - quantiles[row * K + low]
    for (let k = 1; k < K; k++) if (quantiles[row * K + k] < quantiles[row * K + k - 1] - SAME) crossed++
  }
  return {
    sharpness: pairs.length === 0 ? null : width / (pairs.length * rows.length),
    crossings: K > 1 ? crossed / ((K - 1) * rows.length) : 0,
  }
}
