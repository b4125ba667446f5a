// Bradley-Terry fine-tuning of a reward model with LoRA and a linear score head, in one call.
import type { Device } from '../device/device.ts'
import { readTensorF32 } from '../files/safetensors.ts'
import { joinBytes, type ModelFiles, memoryFiles } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { newAdapterConfig, parseAdapterConfig } from '../llama/adapter_config.ts'
import { type Adapter, encodeAdapter, readAdapter, type ScoreHead } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { mergeAdapter } from '../llama/merge.ts'
import { mergeItems } from '../llama/merge_plan.ts'
import { findTensors } from '../llama/weights.ts'
import type { ModelDirectory } from '../reward/directory.ts'
import { startAdapter, startScore } from './adapter_start.ts'
import {
  ADAPTER_DEFAULTS,
  type AdapterTraining,
  type KeepOptions,
  passTokens,
  type TrainingBase,
  type TunedAdapter,
  trainAdapter,
} from './adapter_training.ts'
import { type HeadBatch, type HeadTally, headTask } from './head_task.ts'
import { type PairSums, pairLoss } from './pair_loss.ts'
import type { PreferenceRow } from './preference_rows.ts'
import { hashWords } from './row_text.ts'
import { planSteps } from './schedule.ts'

export interface RewardSettings extends AdapterTraining {
  /** Coefficient of the pull of r_c + r_r towards 0; 0: none. */
  readonly center: number
  /** Writes a whole LlamaForSequenceClassification in the place of an adapter. */
  readonly merge: boolean
  /** Compute the prompt that both sides begin with once; the same but for rounding. */
  readonly share: boolean
}

/** Those of every adapter, and TRL's coefficient. */
export const REWARD_DEFAULTS: RewardSettings = { ...ADAPTER_DEFAULTS, center: 0.01, merge: false, share: true }

export interface RewardResult {
  /** Pairs that were trained on, and pairs that were held out. */
  readonly pairs: number
  readonly held: number
  readonly steps: number
  /** Trained numbers. */
  readonly parameters: number
  readonly num_tokens: number
  /** Of the last step. */
  readonly loss: number | null
  /** After the last step; null without held-out pairs. */
  readonly eval_loss: number | null
  readonly eval_accuracy: number | null
  readonly eval_margin: number | null
}

export interface TunedReward extends RewardResult, TunedAdapter {}

/**
 * Trains an adapter with a score head [1, D] on pairs; `held` are pairs for evaluation. The head begins as the adapter that is given has
 * it, else as the model has it, else at random. Throws where the model or the adapter has other heads, and as `trainAdapter` does.
 */
export async function trainRewardModel(
  device: Device,
  files: ModelFiles,
  rows: readonly PreferenceRow[],
  held: readonly PreferenceRow[] = [],
  options: Partial<RewardSettings> & KeepOptions = {},
): Promise<TunedReward> {
  const settings = { ...REWARD_DEFAULTS, ...options }
  const { batch, epochs, maxSteps, center, merge, share } = settings
  if (rows.length === 0) throw new Error('training: there are no pairs to train on')
  if (!(center >= 0 && center < Infinity))
    throw new Error(`training: center must be a number of at least 0, got ${center}`)
  const bad = [...rows, ...held].find(({ margin }) => !Number.isFinite(margin))
  if (bad) throw new Error(`training: margins must be finite, got ${bad.margin}`)
  const plan = planSteps(rows.length, batch, epochs, { maxSteps: maxSteps ?? Infinity })
  return trainAdapter<HeadBatch, { sums: PairSums; tokens: number }, HeadTally, RewardResult>(device, files, {
    command: 'train-rm',
    settings,
    kept: {
      '--head': 'score',
      '--center': center,
      '--merge': merge,
      'shared beginnings': share,
      'pairs with the SHA-256': await pairsHash(rows),
      'held-out pairs with the SHA-256': await pairsHash(held),
    },
    steps: plan.steps,
    async begin(config, directory) {
      const start = await beginScored(config, directory, settings)
      // What cannot be merged is found now and not when everything is trained.
      const found = findTensors(directory.tensors, config, directory.name)
      if (merge) mergeItems(directory.tensors, found, start, null, directory.name)
      return start
    },
    async task({ model, adapter }) {
      const choice = { ...settings, dropout: adapter.dropout, tokens: passTokens(device) }
      const parts = { device, model, adapter, head: { weight: adapter.score!, bias: null } }
      return headTask(parts, pairLoss(center), { examples: rows, held, plan }, choice)
    },
    result: ({ step, tally }, parameters) => ({
      ...{ pairs: rows.length, held: held.length, steps: step, parameters },
      ...{ num_tokens: tally.tokens, loss: tally.loss, eval_loss: tally.evaluation?.eval_loss ?? null },
      eval_accuracy: tally.evaluation?.eval_accuracy ?? null,
      eval_margin: tally.evaluation?.eval_margin ?? null,
    }),
    ...(merge && {
      merged: true,
      write: (adapter: Adapter, { model }: TrainingBase, out: Store) => writeMerged(files, adapter, model.config, out),
    }),
  })
}

/** The adapter with its head as training begins. */
async function beginScored(
  config: LlamaConfig,
  { name, tensors }: ModelDirectory,
  { adapter, rank, alpha, targets, dropout, seed }: RewardSettings,
): Promise<Adapter> {
  const own = tensors.get('score.weight')
  if (own && own.shape.join() !== `1,${config.hidden}`)
    throw new Error(
      `${own.source.name}: tensor "score.weight" must be [1, ${config.hidden}], got [${own.shape.join(', ')}]; a reward model has one score`,
    )
  const head = async (): Promise<ScoreHead> => ({
    labels: 1,
    weight: own ? await readTensorF32(own) : startScore(config.hidden, seed),
  })
  if (adapter === null) {
    const choice = { task: 'SEQ_CLS', rank, alpha, targets, dropout, base: name } as const
    return { ...startAdapter(newAdapterConfig(choice), config, seed), score: await head() }
  }
  const start = await readAdapter(adapter, config)
  if (start.score && start.score.labels !== 1)
    throw new Error(`${start.name}: its score head has ${start.score.labels} labels; a reward model has one`)
  const json = { ...start.config.json, task_type: 'SEQ_CLS', modules_to_save: ['classifier', 'score'] }
  return {
    ...start,
    config: parseAdapterConfig({ ...json, auto_mapping: null }, start.config.name),
    score: start.score ?? (await head()),
  }
}

/** Files of a folder of a training, which are no part of its model. */
const TRAINING_FILE = /^(training\.json|log\.jsonl(\.damaged)?|events\..*|state-.*|heads\.safetensors)$/

async function writeMerged(base: ModelFiles, adapter: Adapter, config: LlamaConfig, out: Store): Promise<void> {
  const parts = encodeAdapter(adapter, config).map(({ file, chunks }) => [file, joinBytes(chunks)] as const)
  const list = async () => ((await base.list?.()) ?? []).filter((file) => !TRAINING_FILE.test(file))
  await mergeAdapter({ ...base, list }, memoryFiles(adapter.name, Object.fromEntries(parts)), out)
}

/** SHA-256 over tokens and margins of pairs. */
async function pairsHash(rows: readonly PreferenceRow[]): Promise<string> {
  return hashWords(
    rows.map(({ chosen, rejected, margin }) => {
      const words = new Uint32Array(2 + chosen.length + rejected.length + 2)
      words.set([chosen.length, rejected.length])
      words.set(chosen, 2)
      words.set(rejected, 2 + chosen.length)
      words.set(new Uint32Array(Float64Array.of(margin).buffer), words.length - 2)
      return words
    }),
  )
}
