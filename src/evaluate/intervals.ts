// How far a measured number may be off: Wilson's interval of a share, the paired bootstrap and McNemar's test of two models, Student's
// interval of a mean.
import { mix32 } from '../data/scramble.ts'

/** 97.5 % quantile of the normal distribution. */
const Z = 1.959963984540054

/** Wilson's 95 % interval for `right` of `rows`; fractions of ties count as they are. [0, 1] for no rows. */
export function wilson(right: number, rows: number): [number, number] {
  if (!(rows >= 0 && right >= 0 && right <= rows * (1 + 1e-12))) {
    throw new Error(`wilson: must have 0 <= right <= rows, got ${right} of ${rows}`)
  }
  if (rows === 0) return [0, 1]
  const share = right / rows
  const centre = share + Z ** 2 / (2 * rows)
  const half = Z * Math.sqrt((share * (1 - share)) / rows + Z ** 2 / (4 * rows ** 2))
  const whole = 1 + Z ** 2 / rows
  return [Math.max(0, (centre - half) / whole), Math.min(1, (centre + half) / whole)]
}

export interface PairedDifference {
  /** Mean of the first's credits less the second's. */
  readonly difference: number
  /** 95 % percentile interval of the bootstrap over rows. */
  readonly interval: [number, number]
  /** Two-sided, from the bootstrap: twice the smaller share of differences at or beyond 0, the one that was measured among them. */
  readonly p: number
  /** Rows that only the first, or only the second, gets (more) right, and the exact two-sided p of McNemar's test. */
  readonly firstOnly: number
  readonly secondOnly: number
  readonly mcnemar: number
  readonly rows: number
}

/**
 * Two models' credits for the same rows [N], in [0, 1], compared by resampling rows with replacement. The same seed gives the same
 * result.
 */
export function pairedBootstrap(
  first: ArrayLike<number>,
  second: ArrayLike<number>,
  { samples = 10_000, seed = 0 }: { readonly samples?: number; readonly seed?: number } = {},
): PairedDifference {
  const rows = first.length
  if (rows === 0 || second.length !== rows) {
    throw new Error(`pairedBootstrap: both must have the same rows, at least one, got ${rows} and ${second.length}`)
  }
  const differences = Float64Array.from({ length: rows }, (_, i) => first[i] - second[i])
  const mean = differences.reduce((sum, value) => sum + value, 0) / rows
  const means = new Float64Array(samples)
  for (let s = 0; s < samples; s++) {
    let sum = 0
    const key = mix32(mix32(seed + 1) ^ (s + 1))
    for (let i = 0; i < rows; i++) {
      const word = mix32(key ^ Math.imul(i + 1, 0x9e3779b1))
      sum += differences[Math.floor((word / 2 ** 32) * rows)]
    }
    means[s] = sum / rows
  }
  means.sort()
  const at = (share: number) => means[Math.min(samples - 1, Math.floor(share * samples))]
  // With the measured difference itself counted (Davison and Hinkley 1997, 4.2.2), a p of 0 is never claimed.
  const share = (test: (value: number) => boolean) => (means.filter(test).length + 1) / (samples + 1)
  const [below, above] = [share((value) => value <= 0), share((value) => value >= 0)]
  const firstOnly = differences.filter((value) => value > 0).length
  const secondOnly = differences.filter((value) => value < 0).length
  return {
    difference: mean,
    interval: [at(0.025), at(0.975)],
    p: Math.min(1, 2 * Math.min(below, above)),
    firstOnly,
    secondOnly,
    mcnemar: binomialTwoSided(Math.min(firstOnly, secondOnly), firstOnly + secondOnly),
    rows,
  }
}

/** P(at most `few` or at least `many - few` of `many` fair coins). */
function binomialTwoSided(few: number, many: number): number {
  if (many === 0) return 1
  let log = -many * Math.LN2
  let tail = 0
  for (let k = 0; k <= few; k++) {
    tail += Math.exp(log)
    log += Math.log(many - k) - Math.log(k + 1)
  }
  return Math.min(1, 2 * tail)
}

export interface MeanInterval {
  readonly mean: number
  /** 95 % interval of the mean by Student's t; null for a single value. */
  readonly interval: readonly [low: number, high: number] | null
  readonly values: number
}

/** The mean of independent values, at least one, with its interval. */
export function meanInterval(values: readonly number[]): MeanInterval {
  const n = values.length
  if (n === 0) throw new Error('meanInterval: at least one value is needed, got none')
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  if (n === 1) return { mean, interval: null, values: n }
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1)
  const half = studentQuantile(0.975, n - 1) * Math.sqrt(variance / n)
  return { mean, interval: [mean - half, mean + half], values: n }
}

/** Simpson's rule on so many pieces: good to 1e-8 for up to a thousand degrees of freedom. */
const PIECES = 400

/**
 * The t with P(T <= t) = level, 0.5 <= level < 1, of Student's distribution. With t = sqrt(n) tan(a) its density is proportional to
 * cos(a)^(n - 1), so that probabilities are integrals of that.
 */
export function studentQuantile(level: number, freedom: number): number {
  const area = (to: number): number => {
    const step = to / PIECES
    let sum = 0
    for (let i = 0; i <= PIECES; i++) {
      const weight = i === 0 || i === PIECES ? 1 : i % 2 === 1 ? 4 : 2
      sum += weight * Math.cos(i * step) ** (freedom - 1)
    }
    return (sum * step) / 3
  }
  const wanted = (2 * level - 1) * area(Math.PI / 2)
  let [low, high] = [0, Math.PI / 2]
  while (high - low > 1e-12) {
    const middle = (low + high) / 2
    if (area(middle) < wanted) low = middle
    else high = middle
  }
  return Math.sqrt(freedom) * Math.tan((low + high) / 2)
}
