// Rollouts as they are collected: completions drawn from the policy, shown to the sources of rewards, and shaped.
import { randomBits } from '../../data/random.ts'
import { continuationText } from '../../generate/chooser.ts'
import type { Continuation, GenerationSettings, Prompt } from '../../generate/continuation.ts'
import type { Tokenizer } from '../../text/tokenizer.ts'
import { reliabilityFactors, shapedReward } from './advantages.ts'
import type { Generation } from './generations.ts'
import type { RlooPrompt } from './prompts.ts'
import { combineRewards, type RewardRow, type RewardSource } from './rewards.ts'
import type { Completion, Rollout } from './rollout.ts'
import type { RlooSettings } from './settings.ts'
import type { RolloutStep } from './task.ts'

/** How far the completions of a step are drawn. */
export interface RolloutProgress {
  /** The step that is being made, from 1; null in an evaluation. */
  readonly step: number | null
  /** Completions that have ended, of `completions`. */
  readonly done: number
  readonly completions: number
  /** Tokens that have been drawn. */
  readonly tokens: number
}

/**
 * Draws completions, ordered by prompt and then sample: each prompt says how many and names itself in random draws. What it gives must
 * depend on the policy, the prompts and the settings alone.
 */
export type DrawCompletions = (
  prompts: readonly Prompt[],
  settings: GenerationSettings,
  run: { readonly signal?: AbortSignal; readonly onToken: (token: { readonly finish: unknown }) => void },
) => Promise<readonly Continuation[]>

export interface CollectOptions {
  readonly settings: RlooSettings
  readonly generation: GenerationSettings
  readonly tokenizer: Tokenizer | null
  readonly draw: DrawCompletions
  readonly signal?: AbortSignal
  readonly onRollout?: (progress: RolloutProgress) => void
}

/** Streams of random numbers of the draws: one a step from the first on, and that of evaluations. */
const STEPS = 2 ** 22
const EVALUATION = STEPS - 1

/** Draws and rewards `k` completions of each of the rows; `step` counts from 0, null in an evaluation. */
export async function collectRollout(
  prompts: readonly RlooPrompt[],
  rows: ArrayLike<number>,
  k: number,
  step: number | null,
  sources: readonly RewardSource[],
  options: CollectOptions,
): Promise<Rollout> {
  const { settings, generation, draw, signal, onRollout } = options
  const stream = step === null ? EVALUATION : STEPS + step
  const asked = Array.from(rows, (row): Prompt => {
    return { tokens: prompts[row].tokens, samples: k, key: randomBits(settings.seed, stream, row) }
  })
  const completions = k * asked.length
  let [done, tokens] = [0, 0]
  const onToken = ({ finish }: { readonly finish: unknown }): void => {
    tokens++
    if (finish !== null) done++
    onRollout?.({ step: step === null ? null : step + 1, done, completions, tokens })
  }
  const drawn = await draw(asked, generation, { signal, onToken })
  checkDrawn(drawn, asked)
  const shown = drawn.map((own) => rewardRow(own, rows[own.prompt], prompts, options))
  const { rewards, widths, numbers } = await combineRewards(
    sources,
    shown,
    { step: step ?? -1, signal },
    settings.reliability,
  )
  const factors = settings.reliability === null ? null : reliabilityFactors(widths)
  return {
    numbers: { ...numbers, ...(factors && { 'reliability/factor_min': Math.min(...factors) }) },
    completions: drawn.map((own, i): Completion => {
      const ended = own.finishReason === 'stop'
      const group = rows[own.prompt]
      return {
        ...{ group, sample: own.sample, prompt: prompts[group].tokens, tokens: own.tokens, sampled: own.logprobs },
        ...{ ended, reward: shapedReward(rewards[i], ended, settings), factor: factors?.[i] ?? 1 },
      }
    }),
  }
}

/** Whoever draws has given what it was asked for, in the order of prompts and samples. */
function checkDrawn(drawn: readonly Continuation[], asked: readonly Prompt[]): void {
  const wanted = asked.flatMap(({ samples }, prompt) =>
    Array.from({ length: samples }, (_, sample) => [prompt, sample]),
  )
  if (drawn.length !== wanted.length)
    throw new Error(`rloo: ${wanted.length} completions were asked for, got ${drawn.length}`)
  for (const [i, { prompt, sample, tokens, logprobs }] of drawn.entries()) {
    if (prompt !== wanted[i][0] || sample !== wanted[i][1])
      throw new Error(
        `rloo: completion ${i} must be sample ${wanted[i][1]} of prompt ${wanted[i][0]}, got ${sample} of ${prompt}`,
      )
    if (tokens.length === 0 || logprobs.length !== tokens.length)
      throw new Error(
        `rloo: completion ${i} must have tokens, each with its log-probability, got ${tokens.length} and ${logprobs.length}`,
      )
  }
}

function rewardRow(
  { tokens, finishReason }: Continuation,
  id: number,
  prompts: readonly RlooPrompt[],
  { tokenizer, generation }: CollectOptions,
): RewardRow {
  const { messages, label = null, row = null, tokens: prompt } = prompts[id]
  return {
    ...{ id, label, row, messages },
    prompt: tokenizer && promptText(prompt, tokenizer),
    completion: tokenizer && continuationText({ tokens }, generation, tokenizer),
    ...{ prompt_ids: prompt, completion_ids: tokens, finish_reason: finishReason },
  }
}

const texts = new WeakMap<Uint32Array, string>()

/** What the template put around the prompt is in its text. */
function promptText(prompt: Uint32Array, tokenizer: Tokenizer): string {
  const known = texts.get(prompt) ?? tokenizer.decode(prompt)
  texts.set(prompt, known)
  return known
}

/** The lines of a step in the table of generations. */
export function generationsOf(
  { step, completions, advantages }: RolloutStep,
  prompts: readonly RlooPrompt[],
  { tokenizer, generation }: Pick<CollectOptions, 'tokenizer' | 'generation'>,
): Generation[] {
  return completions.map(({ group, prompt, tokens, reward, ended }, i) => ({
    step,
    prompt_id: prompts[group].id ?? group,
    prompt: tokenizer && promptText(prompt, tokenizer),
    completion: tokenizer && continuationText({ tokens }, generation, tokenizer),
    reward,
    advantage: advantages[i],
    tokens: Array.from(tokens),
    finish_reason: ended ? 'stop' : 'length',
  }))
}
