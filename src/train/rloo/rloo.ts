// RLOO with LoRA, from prompts and rewards to an adapter's files, in one call: kept in a store while it goes on.
import type { Device } from '../../device/device.ts'
import type { Tensor } from '../../device/tensor.ts'
import { digest } from '../../files/hash.ts'
import type { ModelFiles } from '../../files/source.ts'
import type { WorkSettings } from '../../files/work.ts'
import { chooser } from '../../generate/chooser.ts'
import { GENERATION_DEFAULTS } from '../../generate/continuation.ts'
import { openDecoder } from '../../generate/decoding.ts'
import { readStopTokens } from '../../generate/stop_tokens.ts'
import type { Adapter } from '../../llama/adapter_files.ts'
import { loadAdapter, NO_ADAPTER } from '../../llama/lora_adapter.ts'
import { openOutputLayer } from '../../llama/output_layer.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import { type KeepOptions, passTokens, type TunedAdapter, trainAdapter, writeAdapter } from '../adapter_training.ts'
import { orderRows, type StepRows } from '../data_order.ts'
import type { Statistic } from '../parameters.ts'
import { type Plan, planSteps } from '../schedule.ts'
import { beginAdapter, findOutput } from '../sft.ts'
import {
  type CollectOptions,
  collectRollout,
  type DrawCompletions,
  generationsOf,
  type RolloutProgress,
} from './collect.ts'
import { evaluateRollout } from './evaluate.ts'
import { GenerationLog } from './generations.ts'
import type { UpdateSums } from './log.ts'
import type { RlooPrompt } from './prompts.ts'
import { checkSources, type RewardSource } from './rewards.ts'
import type { RlooBatch } from './rollout.ts'
import { checkRloo, RLOO_DEFAULTS, type RlooSettings } from './settings.ts'
import { type RlooTally, rlooTask } from './task.ts'

export interface RlooOptions extends Partial<RlooSettings>, KeepOptions {
  /** Prompts to evaluate on, every `evalSteps` steps and after the last. */
  readonly held?: readonly RlooPrompt[]
  readonly onRollout?: (progress: RolloutProgress) => void
  /** Draws the completions in the place of Pinball's own decoder. */
  readonly draw?: DrawCompletions
}

export interface RlooResult {
  /** Prompts that were trained on, and prompts that were held out. */
  readonly prompts: number
  readonly held: number
  readonly steps: number
  /** Trained numbers. */
  readonly parameters: number
  readonly num_tokens: number
  /** Of the last step: mean reward, and mean over completions of the KL in nats. */
  readonly reward: number | null
  readonly kl_seq: number | null
  /** After the last step; null without held-out prompts. */
  readonly eval_reward: number | null
}

export interface TunedRloo extends RlooResult, TunedAdapter {
  readonly adapter: Adapter
}

/** Samples that are drawn at the same time. */
const SLOTS = 64

/** The steps of a training: with `maxSteps` and no number of epochs, as many passes over the prompts as those take. */
export function planRloo(
  prompts: number,
  { batch, k, epochs, maxSteps }: Pick<RlooSettings, 'batch' | 'k' | 'epochs' | 'maxSteps'>,
): Plan {
  const { stepsPerEpoch } = planSteps(prompts, batch / k, 1)
  const passes = epochs ?? (maxSteps === null ? 1 : Math.ceil(maxSteps / stepsPerEpoch))
  return planSteps(prompts, batch / k, passes, { maxSteps: maxSteps ?? Infinity })
}

/**
 * Trains an adapter so that the rewards of its completions rise: RLOO on the rewards of all sources, added up by their weights. The
 * reference is the base with the adapter off; where an adapter is given to go on with, a frozen copy of it. Throws on settings with
 * which it would not be RLOO, where a reward cannot be had, and as `trainAdapter` does; what the steps before have come to is saved.
 */
export async function trainRloo(
  device: Device,
  files: ModelFiles,
  prompts: readonly RlooPrompt[],
  sources: readonly RewardSource[],
  options: RlooOptions = {},
): Promise<TunedRloo> {
  const settings = { ...RLOO_DEFAULTS, ...options }
  const { held = [], store, evalSteps, signal, onRollout } = settings
  checkRloo(settings)
  if (prompts.length === 0) throw new Error('rloo: there are no prompts to train on')
  if (sources.length === 0) throw new Error('rloo: there are no rewards to train on')
  const tokenizer = await loadTokenizer(files)
  checkSources(sources, [...prompts, ...held], { hasText: tokenizer !== null, reliability: settings.reliability })
  const plan = planRloo(prompts.length, settings)
  const generations = new GenerationLog(store)
  let frozen: Adapter | null = null
  const tuned = await trainAdapter<RlooBatch, UpdateSums, RlooTally, RlooResult>(device, files, {
    command: 'rloo',
    settings: { ...settings, epochs: plan.epochs },
    kept: {
      ...keptSettings(settings),
      rewards: sources.map(({ name, weight = 1, identity }) => ({ name, weight, identity })),
      'prompts with the SHA-256': await promptsHash(prompts),
      'held-out prompts with the SHA-256': await promptsHash(held),
    },
    steps: plan.steps,
    async begin(config, directory) {
      findOutput(config, directory)
      const long = prompts.findIndex(({ tokens }) => tokens.length >= config.maxPosition)
      if (long >= 0)
        throw new Error(
          `rloo: prompt ${long + 1} has ${prompts[long].tokens.length} tokens, which leaves none of the model's ${config.maxPosition} to a completion`,
        )
      const start = await beginAdapter(config, directory, settings)
      frozen = settings.adapter === null ? null : start
      return start
    },
    async task({ model, directory, adapter, own }) {
      const output = own(await openOutputLayer(device, model.config, findOutput(model.config, directory)))
      const reference = own(frozen ? loadAdapter(device, frozen, model.config) : NO_ADAPTER).layers
      const parts = { device, model, output }
      const { temperature, maxNewTokens, seed } = settings
      const stopTokens = settings.stopTokens ?? (await readStopTokens(files, model.config.eos))
      const slots = Math.min(SLOTS, settings.batch)
      const decoder = own(openDecoder({ ...parts, adapter: () => adapter.layers }, { slots }))
      const collect: CollectOptions = {
        ...{ settings, signal, onRollout },
        generation: { ...GENERATION_DEFAULTS, temperature, maxNewTokens, seed, stopTokens },
        tokenizer,
        draw:
          options.draw ??
          ((asked, generation, run) => decoder.run(asked, chooser(generation, asked), { maxNewTokens, ...run })),
      }
      const origins = own(new Origins(device, sources))
      const order = new Order(prompts.length, plan, settings)
      const choice = { ...settings, rows: passTokens(device) }
      const source = {
        statistics: origins.statistics,
        stepsPerEpoch: plan.stepsPerEpoch,
        async rollout(step: number) {
          await origins.load()
          const rollout = await collectRollout(prompts, order.at(step), settings.k, step, sources, collect)
          origins.save()
          return rollout
        },
        finished: (made: Parameters<typeof generationsOf>[0]) => generations.add(generationsOf(made, prompts, collect)),
        async evaluate(step: number) {
          const due = step === plan.steps || (evalSteps > 0 && step % evalSteps === 0)
          if (held.length === 0 || !due) return null
          const rows = held.map((_, row) => row)
          const rollout = await collectRollout(held, rows, 1, null, sources, collect)
          return evaluateRollout(parts, adapter.layers, reference, rollout, choice)
        },
      }
      return rlooTask({ ...parts, adapter, reference }, source, choice)
    },
    begun: ({ tally }) => generations.goOn(tally.written),
    stepped: () => generations.flush(),
    async write(adapter, base, out) {
      await writeAdapter(adapter, base, out)
      await generations.finish(out)
    },
    result: ({ step, tally }, parameters) => ({
      ...{ prompts: prompts.length, held: held.length, steps: step, parameters, num_tokens: tally.tokens },
      ...{ reward: tally.reward, kl_seq: tally.klSeq, eval_reward: tally.evalReward },
    }),
  })
  return { ...tuned, adapter: tuned.adapter! }
}

/** What the bits depend on beside the shared settings, by what an error calls it. */
function keptSettings(settings: RlooSettings): WorkSettings {
  const { clip, truncated } = settings
  return {
    '--k': settings.k,
    '--beta': settings.beta,
    '--kl': settings.klEstimator,
    '--updates': settings.updates,
    '--clip': [clip.low, clip.high],
    '--aggregation': settings.aggregation,
    '--scale-advantages': settings.normalizeAdvantages,
    '--temperature': settings.temperature,
    '--max-new-tokens': settings.maxNewTokens,
    '--truncated': truncated,
    '--reward-scale': settings.rewardScale,
    '--reward-bias': settings.rewardBias,
    '--reward-clip': settings.rewardClip,
    '--entropy': settings.entropyBonus,
    '--reliability': settings.reliability,
    '--stop-tokens': settings.stopTokens,
  }
}

/** SHA-256 over tokens and whatever rewards may see of prompts. */
async function promptsHash(prompts: readonly RlooPrompt[]): Promise<string> {
  const text = prompts.map(({ tokens, messages, id, label, row }) =>
    JSON.stringify([Array.from(tokens), messages, id ?? null, label ?? null, row ?? null]),
  )
  return digest(new TextEncoder().encode(text.join('\n')))
}

/** The prompts of each step, from any one on; steps come in order. */
class Order {
  readonly #rows: Uint32Array
  readonly #plan: Plan
  readonly #settings: Pick<RlooSettings, 'seed' | 'shuffle'>
  #steps: Generator<StepRows> | null = null

  constructor(prompts: number, plan: Plan, settings: Pick<RlooSettings, 'seed' | 'shuffle'>) {
    this.#rows = Uint32Array.from({ length: prompts }, (_, row) => row)
    this.#plan = plan
    this.#settings = settings
  }

  at(step: number): Uint32Array {
    const { seed, shuffle } = this.#settings
    this.#steps ??= orderRows(this.#rows, this.#plan, { seed, from: step, shuffle })
    const { value } = this.#steps.next() as { value: StepRows | undefined }
    if (value?.step !== step) throw new Error(`training: step ${step} comes out of order`)
    return value.rows
  }
}

/** The numbers that the first rewards of sources fix, as a tensor [S, 2] that is saved with a training: whether it is fixed, and the number. */
class Origins {
  readonly #sources: readonly RewardSource[]
  readonly #tensor: Tensor | null
  #loaded = false

  constructor(device: Device, sources: readonly RewardSource[]) {
    this.#sources = sources
    const data = new Float32Array(2 * sources.length)
    const some = sources.some(({ origin }) => origin !== undefined)
    this.#tensor = some ? device.tensor([sources.length, 2], { label: 'origins of rewards', data }) : null
  }

  get statistics(): Statistic[] {
    return this.#tensor ? [{ name: 'reward_origins', value: this.#tensor }] : []
  }

  /** Gives the sources what the training has; the first time, as whoever goes on has loaded it by then. */
  async load(): Promise<void> {
    if (!this.#tensor || this.#loaded) return
    this.#loaded = true
    const values = await this.#tensor.readF32()
    for (const [s, source] of this.#sources.entries()) {
      if (source.origin !== undefined) source.origin = values[2 * s] === 0 ? null : values[2 * s + 1]
    }
  }

  save(): void {
    const values = this.#sources.flatMap(({ origin }) => (origin == null ? [0, 0] : [1, origin]))
    this.#tensor?.write(Float32Array.from(values))
  }

  destroy(): void {
    this.#tensor?.destroy()
  }
}
