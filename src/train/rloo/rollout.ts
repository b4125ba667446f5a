// A rollout: the completions of a step with their rewards, what is measured of them once, and how they are cut into micro-batches.
import type { MicroBatch } from '../trainer.ts'
import { leaveOneOut, normalized, sequenceKl, totalReward } from './advantages.ts'
import { weightOf } from './objective.ts'
import { type Continued, promptGroups, rowsOf } from './policy_pass.ts'
import type { RlooSettings } from './settings.ts'

/** A completion as it was drawn and rewarded. */
export interface Completion extends Continued {
  /** From 0; of its prompt. */
  readonly sample: number
  /** Log-probability of each token when it was drawn. */
  readonly sampled: Float32Array
  /** Whether a stop token ended it; else its length did. */
  readonly ended: boolean
  /** Shaped (see `shapedReward`); null: none was given. */
  readonly reward: number | null
  /** What its advantage is multiplied by; 1 unless reliability counts. */
  readonly factor: number
}

export interface Rollout {
  readonly completions: readonly Completion[]
  /** What the log says of the rewards, by name. */
  readonly numbers: Readonly<Record<string, number>>
}

/** What is measured of a completion, at the policy that drew it. */
export interface Measured {
  /** Log-probabilities by the training forward. */
  readonly old: Float32Array
  /** Sum of d = log-probability - that of the reference, and what the estimator makes of it; null where there is no reference. */
  readonly k1: number | null
  readonly kl: number | null
  /** Sums over the tokens: of -old, and of the entropies in nats. */
  readonly surprise: number
  readonly entropy: number
  /** Largest |old - sampled|. */
  readonly drift: number
}

/** Completions that are computed at once. */
export interface RlooBatch extends MicroBatch {
  /** Numbers of completions in the rollout. */
  readonly members: readonly number[]
  readonly tokens: number
}

/** Measures a completion from what two passes say of it. */
export function measure(
  { sampled }: Completion,
  logprobs: Float32Array,
  entropies: Float32Array,
  reference: Float32Array | null,
  { klEstimator }: Pick<RlooSettings, 'klEstimator'>,
): Measured {
  let [surprise, entropy, drift] = [0, 0, 0]
  for (let t = 0; t < logprobs.length; t++) {
    surprise -= logprobs[t]
    entropy += entropies[t]
    drift = Math.max(drift, Math.abs(logprobs[t] - sampled[t]))
  }
  return {
    old: logprobs,
    k1: reference && sequenceKl('k1', logprobs, reference),
    kl: reference && sequenceKl(klEstimator, logprobs, reference),
    surprise,
    entropy,
    drift,
  }
}

/** Whether a completion goes through the model: one that is masked does not, it has no KL and no gradient. */
export function counts({ ended }: Pick<Completion, 'ended'>, { truncated }: Pick<RlooSettings, 'truncated'>): boolean {
  return ended || truncated.kind !== 'masked'
}

/** Advantages of completions whose groups are whole; `measured` is null for those that are masked. */
export function advantagesOf(
  completions: readonly Completion[],
  measured: readonly (Measured | null)[],
  settings: RlooSettings,
): Float64Array {
  const totals = completions.map(({ reward }, i) => {
    const { kl = null, surprise = 0 } = measured[i] ?? {}
    return totalReward({ reward, kl: kl ?? 0, surprise }, settings)
  })
  const groups = completions.map(({ group }) => group)
  const alone = leaveOneOut(groups, totals)
  const found = settings.normalizeAdvantages ? normalized(alone, totals) : alone
  return found.map((value, i) => value * completions[i].factor)
}

/** How a rollout is cut. */
export interface Cut {
  readonly batches: readonly RlooBatch[]
  /** Whether every group is inside of one micro-batch. */
  readonly whole: boolean
}

/**
 * Cuts a rollout into micro-batches: whole groups of as many rows as fit `rows`, one group at least, or `microBatch` completions, which
 * cuts groups where it is no multiple of k. Completions of a group are computed next to each other, whatever their order was.
 */
export function cutRollout(
  completions: readonly Completion[],
  settings: RlooSettings,
  { rows: most }: { readonly rows: number },
): Cut {
  const { aggregation, maxNewTokens, microBatch } = settings
  const groups = new Map<number, number[]>()
  for (const [i, { group }] of completions.entries()) groups.set(group, [...(groups.get(group) ?? []), i])
  const pieces: number[][] = []
  if (microBatch !== null) {
    const all = [...groups.values()].flat()
    for (let at = 0; at < all.length; at += microBatch) pieces.push(all.slice(at, at + microBatch))
  } else {
    let room = 0
    for (const group of groups.values()) {
      const size = rowsOf(group.map((i) => completions[i]))
      if (pieces.length === 0 || size > room) {
        pieces.push([])
        room = most
      }
      pieces.at(-1)!.push(...group)
      room -= size
    }
  }
  const batches = pieces.map((members): RlooBatch => {
    const own = members.map((i) => completions[i])
    // A masked one stays in a divisor that counts completions.
    const weights = own.map((completion) =>
      aggregation !== 'token' || counts(completion, settings)
        ? weightOf(aggregation, completion.tokens.length, maxNewTokens)
        : 0,
    )
    return {
      members,
      weight: weights.reduce((sum, weight) => sum + weight, 0),
      tokens: own.reduce((sum, { prompt, tokens }) => sum + prompt.length + tokens.length, 0),
    }
  })
  const places = batches.flatMap(({ members }) => promptGroups(members.map((i) => completions[i])))
  return { batches, whole: places.length === groups.size }
}
