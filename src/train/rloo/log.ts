// What a step of RLOO says in the log, by the names that TRL has for it.
import { notFinite, type StepResult } from '../trainer.ts'
import type { Completion, Measured } from './rollout.ts'
import type { RlooSettings } from './settings.ts'

/** What an update came to: sums over its completions, and the weight that the loss is divided by. */
export interface UpdateSums {
  readonly loss: number
  readonly weight: number
  /** Ratios, and those of them whose gradient is cut off. */
  readonly ratios: number
  readonly low: number
  readonly high: number
}

/** A line of the log; null stands for nothing. */
export type RlooEntry = Readonly<Record<string, number>>

export const meanOf = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** Standard deviation with n - 1; 0 of fewer than two. */
export function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0
  const mean = meanOf(values)
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1))
}

/** Lengths of completions and how many had no end. */
export function lengthNumbers(completions: readonly Pick<Completion, 'tokens' | 'ended'>[]): Record<string, number> {
  const lengths = completions.map(({ tokens }) => tokens.length)
  const ended = completions.filter((completion) => completion.ended).map(({ tokens }) => tokens.length)
  return {
    'completions/mean_length': meanOf(lengths),
    'completions/min_length': Math.min(...lengths),
    'completions/max_length': Math.max(...lengths),
    ...(ended.length > 0 && { 'completions/mean_terminated_length': meanOf(ended) }),
    'completions/clipped_ratio': 1 - ended.length / completions.length,
  }
}

/** Mean and deviation of rewards over the batch, and the share of groups whose rewards are all the same; before clipping and KL. */
export function rewardNumbers(completions: readonly Pick<Completion, 'group' | 'reward'>[]): Record<string, number> {
  const given = completions.flatMap(({ reward }) => (reward === null ? [] : [reward]))
  const groups = new Map<number, Set<number>>()
  for (const { group, reward } of completions) {
    if (reward !== null) groups.set(group, (groups.get(group) ?? new Set()).add(reward))
  }
  const flat = [...groups.values()].filter((values) => values.size === 1).length
  return {
    reward: meanOf(given),
    reward_std: deviation(given),
    frac_reward_zero_std: flat / groups.size,
    ...(given.length < completions.length && { 'rewards/missing': completions.length - given.length }),
  }
}

/** KL and entropy; numbers that a rollout does not have are left out. */
export function measuredNumbers(
  completions: readonly Completion[],
  measured: readonly (Measured | null)[],
): Record<string, number> {
  const own = measured.flatMap((found, i) => (found ? [{ ...found, tokens: completions[i].tokens.length }] : []))
  const tokens = own.reduce((sum, found) => sum + found.tokens, 0)
  if (tokens === 0) return {}
  const kl = own.some(({ k1 }) => k1 !== null) ? own.reduce((sum, { k1 }) => sum + k1!, 0) : null
  return {
    ...(kl !== null && { kl: kl / tokens, kl_seq: kl / own.length }),
    entropy: own.reduce((sum, { entropy }) => sum + entropy, 0) / tokens,
    'sampling/logp_difference_max': own.reduce((most, { drift }) => Math.max(most, drift), 0),
  }
}

/** The line of a step. Throws where the loss is not finite. */
export function stepEntry(
  made: StepResult<UpdateSums> & { readonly epoch: number; readonly tokens: number },
  {
    completions,
    measured,
    numbers,
  }: {
    readonly completions: readonly Completion[]
    readonly measured: readonly (Measured | null)[]
    readonly numbers: Readonly<Record<string, number>>
  },
  { updates: uses }: Pick<RlooSettings, 'updates'>,
): RlooEntry {
  const { step, epoch, lr, updates, tokens } = made
  // Nothing was divided where nothing counts.
  const losses = updates.map(({ sums }) => (sums.weight > 0 ? sums.loss / sums.weight : 0))
  const bad = losses.find((loss) => !Number.isFinite(loss))
  if (bad !== undefined) throw notFinite('the loss', bad, made)
  const last = uses > 1 && {
    'loss/last': losses[uses - 1],
    ...(updates[uses - 1].norm !== null && { 'grad_norm/last': updates[uses - 1].norm! }),
  }
  return {
    step,
    epoch,
    loss: losses[0],
    ...(updates[0].norm !== null && { grad_norm: updates[0].norm }),
    ...last,
    learning_rate: lr,
    num_tokens: tokens,
    ...rewardNumbers(completions),
    ...numbers,
    ...measuredNumbers(completions, measured),
    ...lengthNumbers(completions),
    ...clipNumbers((uses > 1 ? updates.slice(1) : updates).map(({ sums }) => sums)),
  }
}

/** Shares of ratios whose gradient is cut off; where there are several updates, of those after the first, in which every ratio is 1. */
function clipNumbers(later: readonly UpdateSums[]): Record<string, number> {
  const ratios = later.reduce((sum, update) => sum + update.ratios, 0)
  if (ratios === 0) return {}
  const low = later.reduce((sum, update) => sum + update.low, 0) / ratios
  const high = later.reduce((sum, update) => sum + update.high, 0) / ratios
  return { 'clip_ratio/low_mean': low, 'clip_ratio/high_mean': high, 'clip_ratio/region_mean': low + high }
}
