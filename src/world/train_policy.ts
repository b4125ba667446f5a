// Reinforcement learning in the small world, and what it made of a policy: trained by the library's RLOO, judged by the truth.
import type { Device } from '../device/device.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import type { StoreTree } from '../files/store.ts'
import type { RewardModel } from '../reward/model.ts'
import type { AdapterProgress } from '../train/adapter_training.ts'
import { GENERATIONS_FILE, type Generation } from '../train/rloo/generations.ts'
import { modelReward } from '../train/rloo/model_reward.ts'
import type { RlooPrompt } from '../train/rloo/prompts.ts'
import { trainRloo } from '../train/rloo/rloo.ts'
import { drawAnswers } from './draw_answers.ts'
import { type Answer, type Measures, measureAnswers } from './measure.ts'
import type { Figure3Settings, PolicyName } from './settings.ts'
import { PROMPTS, textOf } from './words.ts'

/** What the runs of a repetition share. */
export interface World {
  readonly device: Device
  readonly settings: Figure3Settings
  readonly seed: number
  /** Model directory of the fine-tuned policy: where runs begin, and the reference. */
  readonly policy: ModelFiles
  readonly reward: RewardModel
  readonly signal?: AbortSignal
}

/** A point of a curve: the answers of steps `from` to `step`. */
export interface Point {
  readonly from: number
  readonly step: number
  readonly measures: Measures
  /** Mean over answers of the KL from the fine-tuned policy, in nats. */
  readonly kl: number
}

const WORLD_PROMPTS: readonly RlooPrompt[] = PROMPTS.map(({ tokens, text }, id) => ({
  tokens,
  messages: [{ role: 'user', content: text }],
  id,
}))

/** Trains a policy in its store, and gives its curve. */
export async function trainPolicy(
  { device, settings, seed, policy, reward, signal }: World,
  name: PolicyName,
  store: StoreTree,
  options: { readonly restart: boolean; readonly onProgress: (progress: AdapterProgress) => void },
): Promise<Point[]> {
  const { steps, prompts, k, beta, lr, rank, lambda, longest, every, reliability } = settings
  const risk = name === 'risk-aware' ? ({ kind: 'utility' } as const) : ({ kind: 'expectation' } as const)
  const source = await modelReward(reward, { name: 'world', risk, lambda, policyTokens: true })
  await trainRloo(device, policy, WORLD_PROMPTS, [source], {
    ...{ rank, alpha: 2 * rank, lr, k, beta, batch: prompts * k, maxSteps: steps, maxNewTokens: longest, seed, store },
    reliability: name === 'reliability-weighted' ? reliability : null,
    ...{ signal, ...options },
  })
  const kl = await readLog(store)
  const lines = await readGenerations(store)
  const points: Point[] = []
  for (let from = 1; from <= steps; from += every) {
    const step = Math.min(steps, from + every - 1)
    const own = lines.filter((line) => line.step >= from && line.step <= step)
    const answers = own.map(({ prompt_id, tokens }) => ({
      prompt: PROMPTS[prompt_id as number],
      tokens: Uint32Array.from(tokens),
    }))
    const between = kl.slice(from - 1, step)
    points.push({
      ...{ from, step },
      measures: await measureWith(reward, answers),
      kl: between.reduce((sum, value) => sum + value, 0) / between.length,
    })
  }
  return points
}

/** The table of generations of a finished training. */
async function readGenerations(store: StoreTree): Promise<Generation[]> {
  const text = (await readText(store, GENERATIONS_FILE)) ?? ''
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Generation)
}

/** The KL of every step, from the log. */
async function readLog(store: StoreTree): Promise<number[]> {
  const text = (await readText(store, 'log.jsonl')) ?? ''
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly step?: number; readonly kl_seq?: number })
  return lines.flatMap(({ kl_seq: kl }) => (kl === undefined ? [] : [kl]))
}

/** The policy under the adapter of a store, or as it was fine-tuned: its answers to all prompts measured, and a few of them. */
export async function judgePolicy(
  { device, settings, seed, policy, reward, signal }: World,
  adapter: StoreTree | null,
) {
  const { samples, longest } = settings
  const answers = await drawAnswers(device, { policy, adapter }, { samples, longest, seed, signal })
  const examples = answers
    .filter((_, i) => i % samples === 0)
    .map(({ prompt, tokens }) => ({ prompt: prompt.text, answer: textOf(tokens) }))
    .filter((_, i) => i % EXAMPLE_STEP === 0)
  return { final: await measureWith(reward, answers), examples }
}

/** One prompt of so many is shown with its answer. */
const EXAMPLE_STEP = 5

/** Measures answers by a reward model and the truth. */
async function measureWith(reward: RewardModel, answers: readonly Answer[]): Promise<Measures> {
  const scores = await reward.score(answers.map(({ prompt, tokens }) => ({ input_ids: [...prompt.tokens, ...tokens] })))
  return measureAnswers(answers, scores, reward.levels)
}
