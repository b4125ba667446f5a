// The distribution of one reward, for whoever gets a score: never in the wrong order, whatever the model gave.
import { cdf, density, expectation, probabilityBelow, quantile, rearrange, tailMean, variance } from './distribution.ts'
import { cvar, entropic, utility } from './risk.ts'

/** A reward's distribution, its quantile values in ascending order (the monotone rearrangement of those that the model gave). */
export class RewardDistribution {
  /** Ascending, above 0 and below 1 [K]. */
  readonly levels: readonly number[]
  /** Not descending [K]. */
  readonly values: Float64Array

  /** `values` [K] may cross; they must be finite. */
  constructor(values: ArrayLike<number>, levels: readonly number[]) {
    this.levels = levels
    this.values = rearrange(values)
  }

  /** Mean of the values. */
  get expectation(): number {
    return expectation(this.values)
  }

  /** Mean squared difference of the values from their mean. */
  get variance(): number {
    return variance(this.values)
  }

  /** Q(level) of the piecewise-linear curve through the values; level from 0 to 1. */
  quantile(level: number): number {
    return quantile(this.values, this.levels, level)
  }

  /** Mean of the lowest share `level` of the values, above 0 and at most 1. */
  cvar(level: number): number {
    return cvar(this.values, level)
  }

  /** Mean of the lowest share `level` of the curve, above 0 and at most 1. */
  tailMean(level: number): number {
    return tailMean(this.values, this.levels, level)
  }

  /** -mean exp(-lambda value); lambda of at least 0. */
  utility(lambda: number): number {
    return utility(this.values, lambda)
  }

  /** The sure reward of the same utility, -ln(mean exp(-lambda value)) / lambda; the expectation where lambda is 0. */
  certaintyEquivalent(lambda: number): number {
    return lambda === 0 ? this.expectation : entropic(this.values, lambda)
  }

  /** P(R <= reward) of the curve. */
  cdf(reward: number): number {
    return cdf(this.values, this.levels, reward)
  }

  /** P(R < reward) of the curve. */
  probabilityBelow(reward: number): number {
    return probabilityBelow(this.values, this.levels, reward)
  }

  /** Density of the curve; Infinity where several values are one. */
  density(reward: number): number {
    return density(this.values, this.levels, reward)
  }

  /** The corners of the curve, its ends included, to be drawn: level against value. */
  points(): { readonly level: number; readonly value: number }[] {
    return [0, ...this.levels, 1].map((level) => ({ level, value: this.quantile(level) }))
  }
}
