// What the experiment in the small world is: sizes and settings, those of the paper's Figure 3 and those of a short demonstration.
import { POLICY_DEFAULTS, type PolicySettings } from './policy.ts'
import { REWARD_DEFAULTS, type RewardSettings } from './reward.ts'

/** How a policy is rewarded: by the expectation; by the utility -E[exp(-lambda r)]; by the expectation, where wide distributions count less. */
export const POLICIES = ['neutral', 'risk-aware', 'reliability-weighted'] as const
export type PolicyName = (typeof POLICIES)[number]

export interface Figure3Settings {
  /** Of the first repetition; repetition i has seed + i, from the ratings to the last evaluation. */
  readonly seed: number
  readonly seeds: number
  readonly policies: readonly PolicyName[]
  /** Steps of reinforcement learning. */
  readonly steps: number
  /** Prompts of a step, answers to each of them. */
  readonly prompts: number
  readonly k: number
  readonly beta: number
  readonly lr: number
  readonly rank: number
  /** Of the utility. */
  readonly lambda: number
  /** Central share of the distribution whose width is the reliability. */
  readonly reliability: number
  /** Longest answer in tokens. */
  readonly longest: number
  /** Steps whose answers make one point of a curve. */
  readonly every: number
  /** Answers to each prompt by which the policies are compared in the end. */
  readonly samples: number
  readonly sft: PolicySettings
  readonly reward: RewardSettings
}

export const FIGURE3_DEFAULTS: Figure3Settings = {
  seed: 1,
  seeds: 5,
  policies: POLICIES,
  steps: 100,
  prompts: 18,
  k: 4,
  beta: 0.05,
  lr: 3e-3,
  rank: 16,
  lambda: 2,
  reliability: 0.8,
  longest: 10,
  every: 5,
  samples: 16,
  sft: POLICY_DEFAULTS,
  reward: REWARD_DEFAULTS,
}

/** As `npm start` has it: one repetition, two policies, in well below a minute. */
export const START_SETTINGS: Figure3Settings = {
  ...FIGURE3_DEFAULTS,
  seeds: 1,
  policies: ['neutral', 'risk-aware'],
  steps: 40,
  samples: 8,
  sft: { ...POLICY_DEFAULTS, steps: 150 },
  reward: { ...REWARD_DEFAULTS, answers: 3000, held: 500 },
}

/** The settings on which the bits of one repetition depend, by what an error calls them: all but how many there are. */
export function keptSettings({ seeds: _, policies: __, ...settings }: Figure3Settings): Record<string, unknown> {
  return Object.fromEntries(Object.entries(settings).map(([name, value]) => [`--${name}`, value]))
}

/** Throws on settings that make no experiment. */
export function checkFigure3(settings: Figure3Settings): void {
  for (const [name, least] of LEAST) {
    const value = settings[name]
    if (!Number.isSafeInteger(value) || value < least)
      throw new Error(`figure3: ${name} must be a whole number of at least ${least}, got ${value}`)
  }
  if (settings.policies.length === 0) throw new Error('figure3: at least one policy is needed, got none')
}

const LEAST = [
  ['seed', 0],
  ['seeds', 1],
  ['steps', 1],
  ['prompts', 1],
  ['k', 2],
  ['longest', 1],
  ['every', 1],
  ['samples', 1],
] as const
