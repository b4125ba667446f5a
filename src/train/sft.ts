// Supervised fine-tuning with LoRA, from rows to an adapter's files, in one call: kept in a store while it goes on.

import { randomBits } from '../data/random.ts'
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import { newAdapterConfig } from '../llama/adapter_config.ts'
import { type Adapter, readAdapter } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { openOutputLayer, outputInfo } from '../llama/output_layer.ts'
import type { ModelDirectory } from '../reward/directory.ts'
import { startAdapter } from './adapter_start.ts'
import {
  ADAPTER_DEFAULTS,
  type AdapterSettings,
  type AdapterTraining,
  type KeepOptions,
  passTokens,
  type TunedAdapter,
  trainAdapter,
} from './adapter_training.ts'
import { packBestFit } from './packing.ts'
import { hashWords } from './row_text.ts'
import { planSteps } from './schedule.ts'
import type { SftRow } from './sft_rows.ts'
import { type SftBatch, type SftTally, sftTask, type TokenSums } from './sft_task.ts'

export interface SftSettings extends AdapterTraining {
  /** Put rows together into sequences of up to `maxLength` tokens; they never see each other. */
  readonly packing: boolean
  readonly maxLength: number
}

/** Of the paper, where it says; rows and rest as TRL has them. */
export const SFT_DEFAULTS: SftSettings = { ...ADAPTER_DEFAULTS, packing: false, maxLength: 1024 }

export interface SftResult {
  /** Rows that were trained on, and rows that were held out. */
  readonly rows: number
  readonly held: number
  /** What a step counts: rows, or packed sequences. */
  readonly sequences: number
  readonly steps: number
  /** Trained numbers. */
  readonly parameters: number
  readonly num_tokens: number
  /** Of the last step. */
  readonly loss: number | null
  /** After the last step; null without held-out rows. */
  readonly eval_loss: number | null
}

export interface Tuned extends SftResult, TunedAdapter {
  readonly adapter: Adapter
}

/** Rows by a seeded draw: those for training, and a share that is held out (one at least where the share is above 0). */
export function holdOut<T>(rows: readonly T[], share: number, seed: number): { training: T[]; held: T[] } {
  const count = share > 0 ? Math.max(1, Math.round(share * rows.length)) : 0
  const draws = rows.map((_, i) => randomBits(seed, HELD, i))
  const chosen = new Set(
    rows
      .map((_, i) => i)
      .sort((a, b) => draws[a] - draws[b] || a - b)
      .slice(0, count),
  )
  return { training: rows.filter((_, i) => !chosen.has(i)), held: rows.filter((_, i) => chosen.has(i)) }
}

// Stream of the draw of held-out rows.
const HELD = 2 ** 19

/**
 * Trains an adapter on rows of a causal model; `held` are rows for evaluation. Throws where there is nothing to learn, the model has no
 * output layer, and as `trainAdapter` does.
 */
export async function trainSft(
  device: Device,
  files: ModelFiles,
  rows: readonly SftRow[],
  held: readonly SftRow[] = [],
  options: Partial<SftSettings> & KeepOptions = {},
): Promise<Tuned> {
  const settings = { ...SFT_DEFAULTS, ...options }
  const { packing, maxLength, batch, epochs, maxSteps } = settings
  if (rows.length === 0) throw new Error('training: there are no rows to train on')
  const sequences = packing
    ? packBestFit(
        rows.map(({ tokens }) => tokens.length),
        maxLength,
      )
    : rows.map((_, row) => [row])
  const plan = planSteps(sequences.length, batch, epochs, { maxSteps: maxSteps ?? Infinity })
  const tuned = await trainAdapter<SftBatch, TokenSums, SftTally, SftResult>(device, files, {
    command: 'sft',
    settings,
    kept: {
      '--max-length': maxLength,
      '--packing': packing,
      'rows with the SHA-256': await rowsHash(rows),
      'held-out rows with the SHA-256': await rowsHash(held),
    },
    steps: plan.steps,
    begin(config, directory) {
      findOutput(config, directory)
      return beginAdapter(config, directory, settings)
    },
    async task({ model, directory, adapter, own }) {
      const output = own(await openOutputLayer(device, model.config, findOutput(model.config, directory)))
      const choice = { ...settings, dropout: adapter.dropout, tokens: passTokens(device) }
      return sftTask(device, model, output, adapter, { rows, sequences, plan, held }, choice)
    },
    result: ({ step, tally }, parameters) => ({
      ...{ rows: rows.length, held: held.length, sequences: sequences.length, steps: step, parameters },
      ...{ num_tokens: tally.tokens, loss: tally.loss, eval_loss: tally.evalLoss },
    }),
  })
  return { ...tuned, adapter: tuned.adapter! }
}

/** The output matrix; throws where the model has none. */
export function findOutput(config: LlamaConfig, { tensors, name }: ModelDirectory) {
  const info = outputInfo(tensors, config)
  if (info === undefined) throw new Error(`${name}: lm_head.weight is missing; fine-tuning needs a causal model`)
  return info
}

/** The adapter that is given, or a new one. */
export async function beginAdapter(
  config: LlamaConfig,
  { name: base }: ModelDirectory,
  { adapter, rank, alpha, targets, dropout, seed }: AdapterSettings & Pick<AdapterTraining, 'adapter' | 'seed'>,
): Promise<Adapter> {
  if (adapter === null) {
    return startAdapter(newAdapterConfig({ task: 'CAUSAL_LM', rank, alpha, targets, dropout, base }), config, seed)
  }
  const start = await readAdapter(adapter, config)
  if (start.score) throw new Error(`${start.name}: is an adapter of a classifier; fine-tuning needs a causal one`)
  return start
}

/** SHA-256 over tokens and labels of rows, each with its length. */
async function rowsHash(rows: readonly SftRow[]): Promise<string> {
  return hashWords(
    rows.map(({ tokens, labels }) => {
      const words = new Int32Array(1 + 2 * tokens.length)
      words[0] = tokens.length
      words.set(tokens, 1)
      words.set(labels, 1 + tokens.length)
      return words
    }),
  )
}
