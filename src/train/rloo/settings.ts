// The settings of RLOO, each with where its default comes from, and two presets for those that the paper leaves open.
//
// Sources: QRM, sections 3.5 and 4.3; TRL 0.9 and 1.10, rloo_config.py and rloo_trainer.py.
import { ADAPTER_DEFAULTS, type AdapterTraining } from '../adapter_training.ts'
import type { KlEstimator } from './advantages.ts'
import type { Aggregation, ClipRange } from './objective.ts'

/** What becomes of a completion that ended by its length and not by a stop token. */
export type Truncated =
  /** Nothing: it counts as any other. */
  | { readonly kind: 'kept' }
  /**
   * No gradient and no KL. Its reward stays in the baseline of its group, and it stays in the divisor of a mean over sequences; its
   * tokens are not in that of a mean over tokens. This is what `mask_truncated_completions` of TRL does.
   */
  | { readonly kind: 'masked' }
  /** Its reward is this number; it is in baseline and divisor as any other. TRL 0.9: `non_eos_penalty`. */
  | { readonly kind: 'replace'; readonly value: number }
  /** This number is taken off its reward; it is in baseline and divisor as any other. TRL 0.10 to 0.21: `missing_eos_penalty`. */
  | { readonly kind: 'subtract'; readonly value: number }

/** What the paper says or, where it is silent, TRL; `batch` and `microBatch` count completions. */
export interface RlooSettings extends Omit<AdapterTraining, 'epochs'> {
  /** Passes over the prompts; null: 1, or with `maxSteps` as many as those take. The paper is silent. */
  readonly epochs: number | null
  /** Completions of a prompt, at least 2; `batch` must be a multiple. The paper: 2. */
  readonly k: number
  /** Longest prompt, its own end excluded: prompts of that many tokens or more are left out. The paper: 348. */
  readonly maxPrompt: number
  /** Longest completion in tokens. The paper: 512. */
  readonly maxNewTokens: number
  /** Coefficient of the KL in the reward; 0: no reference is computed and no KL is logged. The paper is silent; TRL: 0.05. */
  readonly beta: number
  /** How the KL is estimated from a token that was sampled. The paper is silent; TRL: k1, as a term of the reward. */
  readonly klEstimator: KlEstimator
  /** Divides the logits when completions are drawn and whenever their log-probabilities are computed. The paper is silent; TRL: 0.7, later 1. */
  readonly temperature: number
  /** Updates of a rollout. The paper is silent; TRL: 4 (`num_ppo_epochs`), later 1 (`num_iterations`). */
  readonly updates: number
  /** How far a ratio may go below and above 1 before its gradient is cut off. The paper is silent; TRL: 0.2. */
  readonly clip: ClipRange
  /** What the loss is a mean of. The paper is silent; TRL: sequences. */
  readonly aggregation: Aggregation
  /** Whether advantages are centred and divided by their standard deviation over the batch. The paper is silent; TRL: not. */
  readonly normalizeAdvantages: boolean
  /** Completions without a stop token. The paper is silent; TRL: kept. */
  readonly truncated: Truncated
  /** The reward that is trained on is `scale` times the weighted sum of the sources, plus `bias`. The paper is silent: 1 and 0. */
  readonly rewardScale: number
  readonly rewardBias: number
  /** Bounds of that reward, before the KL is taken off; null: none. The paper is silent; TRL: none. */
  readonly rewardClip: readonly [low: number, high: number] | null
  /**
   * Coefficient of the entropy: it times the negative log-probability of a completion is added to the reward, as the KL is taken off
   * it; the expected gradient is that of the entropy of completions. The paper is silent: 0.
   */
  readonly entropyBonus: number
  /**
   * Central share of the calibrated reward distribution whose width scales an advantage: by mean / (mean + width), the mean being that
   * of the batch, and all factors divided by their mean. null: advantages are as they are. The paper is silent: null.
   */
  readonly reliability: number | null
  /** Only those that leave the distribution whole: its log-probabilities would not be those that training computes. */
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
  /** Tokens that end a completion; null: the EOS ids of generation_config.json, else of config.json. */
  readonly stopTokens: readonly number[] | null
}

/** What the paper leaves open, as TRL had it at the paper's time and has it now. */
export const RLOO_PRESETS = {
  'trl-0.9': { temperature: 0.7, updates: 4, maxGradNorm: 0 },
  'trl-1': { temperature: 1, updates: 1, maxGradNorm: 1 },
} as const satisfies Record<string, Partial<RlooSettings>>

export type RlooPreset = keyof typeof RLOO_PRESETS

/** The paper's, and TRL's of today where the paper is silent. */
export const RLOO_DEFAULTS: RlooSettings = {
  ...ADAPTER_DEFAULTS,
  lr: 1e-4,
  schedule: 'constant',
  epochs: null,
  k: 2,
  maxPrompt: 348,
  maxNewTokens: 512,
  beta: 0.05,
  klEstimator: 'k1',
  clip: { low: 0.2, high: 0.2 },
  aggregation: 'sequence',
  normalizeAdvantages: false,
  truncated: { kind: 'kept' },
  rewardScale: 1,
  rewardBias: 0,
  rewardClip: null,
  entropyBonus: 0,
  reliability: null,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  stopTokens: null,
  ...RLOO_PRESETS['trl-1'],
}

/** Settings that must have one value, with what is wrong with others. */
const NEUTRAL = [
  ['topK', 'top-k', 0, 'a cut distribution has other log-probabilities than those that training computes'],
  ['topP', 'top-p', 1, 'a cut distribution has other log-probabilities than those that training computes'],
  ['minP', 'min-p', 0, 'a cut distribution has other log-probabilities than those that training computes'],
  ['repetitionPenalty', 'repetition-penalty', 1, 'training computes log-probabilities without it'],
  ['dropout', 'dropout', 0, 'completions are drawn from the policy without it'],
] as const

/** Throws on settings with which RLOO is not what it says. */
export function checkRloo(settings: RlooSettings): void {
  const { k, batch, temperature, updates, clip, rewardClip, reliability, maxNewTokens, maxPrompt, beta } = settings
  const refuse = (name: string, must: string, found: unknown): never => {
    throw new Error(`rloo: --${name} must be ${must}, got ${found}`)
  }
  const whole = (name: string, value: number, least: number) =>
    (Number.isSafeInteger(value) && value >= least) || refuse(name, `a whole number of at least ${least}`, value)
  whole('k', k, 2)
  whole('batch', batch, k)
  whole('updates', updates, 1)
  whole('max-new-tokens', maxNewTokens, 1)
  whole('max-prompt', maxPrompt, 2)
  if (batch % k !== 0) refuse('batch', `a multiple of k = ${k} completions`, batch)
  for (const [key, name, value, why] of NEUTRAL) {
    if (settings[key] !== value) refuse(name, `${value} in training (${why})`, settings[key])
  }
  if (!(temperature > 0 && temperature < Infinity)) refuse('temperature', 'a number above 0', temperature)
  if (!(beta >= 0 && beta < Infinity)) refuse('beta', 'a number of at least 0', beta)
  if (!(clip.low > 0 && clip.low <= 1)) refuse('clip', 'above 0 and at most 1 below a ratio of 1', clip.low)
  if (!(clip.high > 0)) refuse('clip', 'above 0 above a ratio of 1', clip.high)
  if (rewardClip && !(rewardClip[0] < rewardClip[1])) refuse('reward-clip', 'a lower and a larger bound', rewardClip)
  if (reliability !== null && !(reliability > 0 && reliability < 1))
    refuse('reliability', 'a share above 0 and below 1', reliability)
  for (const [name, value] of [
    ['reward-scale', settings.rewardScale],
    ['reward-bias', settings.rewardBias],
    ['entropy', settings.entropyBonus],
  ] as const) {
    if (!Number.isFinite(value)) refuse(name, 'a finite number', value)
  }
}
