// Risk measures of a reward distribution given as K equally likely values, in float64.
//
// Source: QRM, section 3.5 (utility: equation 4); Rockafellar and Uryasev 2000 (CVaR); Föllmer and Schied 2016, chapter 4
// (entropic). All take the vector of quantile values as it is: their order does not matter. A reward is better when larger,
// so each measure is a number to be maximised.
import { expectation, variance } from './distribution.ts'
import { checkFinite, place, quantileModule } from './quantile.ts'

/**
 * -mean over k of exp(-lambda * q[k]), lambda >= 0: the utility of the paper, in (-Infinity, 0]. At lambda = 0 it is -1
 * whatever the values. It overflows to -Infinity only where the result is beyond float64, near lambda * q < -709; `entropic`
 * ranks alike and does not.
 */
export function utility(values: ArrayLike<number>, lambda: number): number {
  checkFinite(values, 'utility: quantile values')
  checkLambda(lambda)
  return quantileModule().utility(place(values).at[0], values.length, lambda)
}

/** Throws unless `lambda` is a number the utility is defined for; `name` is what the error calls it. */
export function checkLambda(lambda: number, name = 'utility: lambda'): void {
  if (!(Number.isFinite(lambda) && lambda >= 0)) {
    throw new Error(`${name} must be a finite number of at least 0, got ${lambda}`)
  }
}

/**
 * The entropic certainty equivalent -ln(mean over k of exp(-lambda * q[k])) / lambda, in the units of the reward: the sure
 * reward that is worth as much as the distribution. Falls from the largest value (lambda to -Infinity, risk-seeking) through
 * the expectation (lambda = 0) to the smallest (lambda to Infinity). Does not overflow.
 */
export function entropic(values: ArrayLike<number>, lambda: number): number {
  checkFinite(values, 'entropic: quantile values')
  if (!Number.isFinite(lambda)) throw new Error(`entropic: lambda must be a finite number, got ${lambda}`)
  return quantileModule().entropic(place(values).at[0], values.length, lambda)
}

/**
 * Conditional value at risk: the mean of the lowest share `level` of the K masses, 0 < level <= 1. Where level * K is no whole
 * number, the next value counts in part. At 1 the expectation; at 1 / K and below the smallest value. `tailMean` is the same of
 * the interpolated curve.
 */
export function cvar(values: ArrayLike<number>, level: number): number {
  checkFinite(values, 'cvar: quantile values')
  if (!(level > 0 && level <= 1)) throw new Error(`cvar: level must be above 0 and at most 1, got ${level}`)
  return quantileModule().cvar(place(values).at[0], values.length, level)
}

/** expectation - lambda / 2 * variance: the first two terms of `entropic` in lambda, which is any finite number. */
export function meanVariance(values: ArrayLike<number>, lambda: number): number {
  if (!Number.isFinite(lambda)) throw new Error(`meanVariance: lambda must be a finite number, got ${lambda}`)
  return expectation(values) - (lambda / 2) * variance(values)
}
