// From rewards to advantages: shaping, the KL as a part of the reward, the leave-one-out baseline.
//
//   R_i = clip(scale * reward_i + bias) - beta * kl_i + bonus * surprise_i
//   A_i = R_i - mean of R_j over the other completions j of the same prompt
//
// Sources: Ahmadian et al. 2024, section 2.2.2; TRL's RLOOTrainer (order of operations, completions without a reward).
import type { RlooSettings } from './settings.ts'

/** Estimators of KL(policy, reference) from a sampled token: d, d^2 / 2, exp(-d) - 1 + d, with d the difference of log-probabilities. */
export type KlEstimator = 'k1' | 'k2' | 'k3'

/** Sum over the tokens of a completion; k1 may be negative. Source: Schulman 2020, "Approximating KL divergence". */
export function sequenceKl(estimator: KlEstimator, policy: ArrayLike<number>, reference: ArrayLike<number>): number {
  let sum = 0
  for (let t = 0; t < policy.length; t++) {
    const d = policy[t] - reference[t]
    sum += estimator === 'k1' ? d : estimator === 'k2' ? (d * d) / 2 : Math.expm1(-d) + d
  }
  return sum
}

/**
 * The reward as the log shows it: `scale * reward + bias`, then what a missing end does to it. null: none was given. Clipping and KL
 * come after that.
 */
export function shapedReward(
  reward: number | null,
  ended: boolean,
  { rewardScale, rewardBias, truncated }: Pick<RlooSettings, 'rewardScale' | 'rewardBias' | 'truncated'>,
): number | null {
  if (reward === null) return null
  const scaled = rewardScale * reward + rewardBias
  if (ended) return scaled
  if (truncated.kind === 'replace') return truncated.value
  return truncated.kind === 'subtract' ? scaled - truncated.value : scaled
}

/** What an advantage is made of. */
export interface Rewarded {
  /** Names the prompt: completions of one number are a group, wherever they stand. */
  readonly group: number
  /** Shaped; null: none was given. */
  readonly reward: number | null
  /** Sums over the tokens: the KL, and the negative log-probability. */
  readonly kl: number
  readonly surprise: number
}

/** R_i; null where there is no reward. */
export function totalReward(
  { reward, kl, surprise }: Omit<Rewarded, 'group'>,
  { beta, rewardClip, entropyBonus }: Pick<RlooSettings, 'beta' | 'rewardClip' | 'entropyBonus'>,
): number | null {
  if (reward === null) return null
  const clipped = rewardClip ? Math.min(rewardClip[1], Math.max(rewardClip[0], reward)) : reward
  return clipped - beta * kl + entropyBonus * surprise
}

/**
 * R_i minus the mean of the others in its group. Completions without a reward are in no baseline, and their advantage is 0; so is that
 * of one that has no other beside it.
 */
export function leaveOneOut(groups: readonly number[], rewards: readonly (number | null)[]): Float64Array {
  const members = new Map<number, number[]>()
  for (const [i, group] of groups.entries()) {
    if (rewards[i] === null) continue
    const own = members.get(group)
    if (own) own.push(i)
    else members.set(group, [i])
  }
  const advantages = new Float64Array(groups.length)
  for (const own of members.values()) {
    if (own.length < 2) continue
    const sum = own.reduce((total, i) => total + rewards[i]!, 0)
    for (const i of own) advantages[i] = rewards[i]! - (sum - rewards[i]!) / (own.length - 1)
  }
  return advantages
}

/** TRL's: a batch of equal advantages is not blown up. */
const NORMALIZE_EPS = 1e-4

/** Advantages of the completions with a reward, centred and divided by their standard deviation (n - 1); the others stay 0. */
export function normalized(advantages: Float64Array, rewards: readonly (number | null)[]): Float64Array {
  const own = advantages.filter((_, i) => rewards[i] !== null)
  if (own.length < 2) return advantages
  const mean = own.reduce((sum, value) => sum + value, 0) / own.length
  const variance = own.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (own.length - 1)
  return advantages.map((value, i) =>
    rewards[i] === null ? 0 : (value - mean) / (Math.sqrt(variance) + NORMALIZE_EPS),
  )
}

/**
 * Factors of advantages by the widths of reward intervals: mean / (mean + width), divided by their own mean, so that the batch as a
 * whole counts as before. Sums over a group are no longer 0. All are 1 where all widths are the same; a width of null has the factor of
 * the mean width.
 */
export function reliabilityFactors(widths: readonly (number | null)[]): Float64Array {
  const known = widths.filter((width) => width !== null)
  const mean = known.reduce((sum, width) => sum + width, 0) / known.length
  if (!(mean > 0)) return new Float64Array(widths.length).fill(1)
  const factors = Float64Array.from(widths, (width) => mean / (mean + (width ?? mean)))
  const level = factors.reduce((sum, factor) => sum + factor, 0) / factors.length
  return factors.map((factor) => factor / level)
}
