// What is claimed of the policies, and whether it holds: a higher left tail at an equal expectation, in truth and by the reward model.
import { type MeanInterval, meanInterval } from '../evaluate/intervals.ts'
import type { Run } from './figure3.ts'
import { tailOf, type Worth } from './measure.ts'
import type { PolicyName } from './settings.ts'

/**
 * Expectations count as equal where the whole 95 % interval of their difference is within this on both sides: an eighth of what
 * separates warm words from plain ones.
 */
export const EQUAL_WITHIN = 0.05

export interface Difference {
  /** The mean of the left tail, levels 0.05 to 0.25. */
  readonly tail: MeanInterval
  readonly expectation: MeanInterval
}

/** A policy less the neutral one at the end, paired by seed. */
export interface Comparison {
  readonly policy: PolicyName
  readonly truth: Difference
  readonly estimate: Difference
  /** Whether the true left tail is higher: the interval of its difference is above 0. */
  readonly higherTail: boolean
  /** Whether the true expectation is equal, within `EQUAL_WITHIN`. */
  readonly equalExpectation: boolean
}

/** Compares each policy with the neutral one over the seeds that both have. */
export function compareRuns(runs: readonly Pick<Run, 'seed' | 'policy' | 'final'>[]): Comparison[] {
  const neutral = new Map(runs.flatMap((run) => (run.policy === 'neutral' ? [[run.seed, run] as const] : [])))
  const others = [...new Set(runs.map(({ policy }) => policy))].filter((policy) => policy !== 'neutral')
  return others.flatMap((policy) => {
    const pairs = runs.flatMap((run) => {
      const other = neutral.get(run.seed)
      return run.policy === policy && other ? [[run.final, other.final] as const] : []
    })
    if (pairs.length === 0) return []
    const difference = (of: 'truth' | 'estimate', value: (worth: Worth) => number): MeanInterval =>
      meanInterval(pairs.map(([one, other]) => value(one[of]) - value(other[of])))
    const both = (of: 'truth' | 'estimate'): Difference => ({
      tail: difference(of, tailOf),
      expectation: difference(of, ({ expectation }) => expectation),
    })
    const truth = both('truth')
    const [low, high] = truth.expectation.interval ?? [-Infinity, Infinity]
    return [
      {
        ...{ policy, truth, estimate: both('estimate') },
        higherTail: truth.tail.interval !== null && truth.tail.interval[0] > 0,
        equalExpectation: low > -EQUAL_WITHIN && high < EQUAL_WITHIN,
      },
    ]
  })
}
