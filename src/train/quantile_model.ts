// Fine-tuning of quantile heads on ratings, the backbone adapted by LoRA, in one call.
//
// The store then holds the adapter as PEFT writes it, and the heads twice: as a file (heads.safetensors, for `pinball debias` and
// `gate`) and as a directory of heads without a gate (config.json, pinball.json, model.safetensors, for `pinball assemble`).
import type { Device } from '../device/device.ts'
import { printable, show } from '../files/json.ts'
import type { ModelFiles, Source } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { newAdapterConfig, parseAdapterConfig } from '../llama/adapter_config.ts'
import { type Adapter, readAdapter } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import type { ModelDirectory } from '../reward/directory.ts'
import { checkLevels, evenLevels } from '../reward/distribution.ts'
import { encodeCheckpoint } from '../reward/encode.ts'
import { headsCheckpoint } from '../reward/heads_directory.ts'
import { encodeHeads, type HeadsFile, headsHash, readHeadsFile } from '../reward/heads_file.ts'
import { startAdapter } from './adapter_start.ts'
import {
  ADAPTER_DEFAULTS,
  type AdapterTraining,
  type KeepOptions,
  passTokens,
  type TunedAdapter,
  trainAdapter,
  writeAdapter,
} from './adapter_training.ts'
import { type HeadBatch, type HeadTally, headTask, type TrainedHead } from './head_task.ts'
import { destroyParameter, makeParameter } from './parameters.ts'
import type { RatedExample } from './rated_examples.ts'
import { type RatingSums, ratingLoss } from './rating_loss.ts'
import { hashWords } from './row_text.ts'
import { planSteps } from './schedule.ts'

export interface QuantileSettings extends AdapterTraining {
  /** Names of the attributes [M], in the order of the ratings. */
  readonly attributes: readonly string[]
  /** Ascending, in (0, 1) [K]. */
  readonly levels: readonly number[]
  /** Heads to begin with, of these attributes and levels; null: weights of 0. */
  readonly heads: HeadsFile | null
  /** Also trains a constant for each quantile, which begins as that quantile of the ratings; heads that are given have theirs. */
  readonly intercept: boolean
}

export const QUANTILE_DEFAULTS: Omit<QuantileSettings, 'attributes'> = {
  ...ADAPTER_DEFAULTS,
  levels: evenLevels(19),
  heads: null,
  intercept: false,
}

export interface QuantileResult {
  /** Rows that were trained on, and rows that were held out. */
  readonly rows: number
  readonly held: number
  /** Of the rows that were trained on. */
  readonly ratings: number
  readonly steps: number
  /** Trained numbers. */
  readonly parameters: number
  readonly num_tokens: number
  /** Of the last step. */
  readonly loss: number | null
  /** After the last step; null without held-out rows. */
  readonly eval_loss: number | null
}

export interface TunedQuantiles extends QuantileResult, TunedAdapter {
  readonly heads: HeadsFile
}

const HEADS_FILE = 'heads.safetensors'

/** Reads quantile heads to begin with; throws where a file holds point estimates. */
export async function readStartHeads(source: Source): Promise<HeadsFile> {
  const heads = await readHeadsFile(source)
  if (heads.levels !== null) return heads
  throw new Error(
    `${printable(source.name)}: holds point estimates; --head quantile begins with heads of "pinball fit"`,
  )
}

/**
 * Trains an adapter and quantile heads on rated rows; `held` are rows for evaluation. Throws on heads of other attributes, levels or
 * widths, attributes without a rating, and as `trainAdapter` does.
 */
export async function trainQuantileModel(
  device: Device,
  files: ModelFiles,
  rows: readonly RatedExample[],
  held: readonly RatedExample[],
  options: Partial<QuantileSettings> & Pick<QuantileSettings, 'attributes'> & KeepOptions,
): Promise<TunedQuantiles> {
  const settings = { ...QUANTILE_DEFAULTS, ...options }
  const { batch, epochs, maxSteps, attributes, levels, heads, intercept, store } = settings
  checkRows([...rows, ...held], settings)
  if (rows.length === 0) throw new Error('training: there are no rows to train on')
  const ratings = attributes.map((_, m) => rows.flatMap((row) => row.ratings[m]))
  const none = ratings.findIndex(({ length }) => length === 0)
  if (none >= 0) throw new Error(`training: no row has a rating of ${show(attributes[none])}`)
  const plan = planSteps(rows.length, batch, epochs, { maxSteps: maxSteps ?? Infinity })
  let trained: TrainedHead | null = null
  const read = async (): Promise<HeadsFile> => {
    const [weight, bias] = [await trained!.weight.value.readF32(), (await trained!.bias?.value.readF32()) ?? null]
    const columns = weight.length / (attributes.length * levels.length)
    return {
      ...{ name: 'trained heads', attributes, levels, columns, weight, bias },
      ...{ transform: null, fingerprint: null },
    }
  }
  let last: HeadsFile | null = null
  const tuned = await trainAdapter<HeadBatch, { sums: RatingSums; tokens: number }, HeadTally, QuantileResult>(
    device,
    files,
    {
      command: 'train-rm',
      settings,
      kept: {
        '--head': 'quantile',
        '--attributes': attributes,
        '--levels': levels,
        '--intercept': intercept,
        'heads with the SHA-256': heads && (await headsHash(heads)),
        'rows with the SHA-256': await ratedHash(rows),
        'held-out rows with the SHA-256': await ratedHash(held),
      },
      steps: plan.steps,
      begin: (config, directory) => beginBare(config, directory, settings),
      async task({ model, adapter, own }) {
        const start = heads ?? firstHeads(ratings, levels, model.config.hidden, intercept)
        const head = (name: string, shape: number[], data: Float32Array, decay: boolean) => {
          const parameter = makeParameter(device, `regression_layer.${name}`, shape, data, { decay })
          own({ destroy: () => destroyParameter(parameter) })
          return parameter
        }
        const outputs = attributes.length * levels.length
        trained = {
          weight: head('weight', [outputs, model.config.hidden], start.weight, true),
          bias: start.bias && head('bias', [outputs], start.bias, false),
        }
        const choice = { ...settings, dropout: adapter.dropout, tokens: passTokens(device), share: true }
        const parts = { device, model, adapter, head: trained }
        return headTask(parts, ratingLoss(attributes, levels), { examples: rows, held, plan }, choice)
      },
      result: ({ step, tally }, parameters) => ({
        ...{ rows: rows.length, held: held.length },
        ratings: ratings.reduce((sum, { length }) => sum + length, 0),
        ...{ steps: step, parameters, num_tokens: tally.tokens },
        ...{ loss: tally.loss, eval_loss: tally.evaluation?.eval_loss ?? null },
      }),
      async write(adapter, base, out) {
        await writeAdapter(adapter, base, out)
        await out.write(HEADS_FILE, encodeHeads(last!, { attributes, levels, unit: 'rating' }))
        for await (const { file, chunks } of encodeCheckpoint(headsCheckpoint(last!))) await out.write(file, chunks)
      },
      extraFiles: async () => [
        { file: HEADS_FILE, chunks: encodeHeads(await read(), { attributes, levels, unit: 'rating' }) },
      ],
      async finished() {
        last = await read()
      },
    },
  )
  return { ...tuned, heads: last ?? (await readHeadsOf(store!)) }
}

function checkRows(rows: readonly RatedExample[], { attributes, levels, heads }: QuantileSettings): void {
  checkLevels(levels, 'training: levels')
  if (attributes.length === 0) throw new Error('training: at least one attribute is needed, got none')
  for (const { ratings } of rows) {
    if (ratings.length !== attributes.length)
      throw new Error(`training: rows must have ratings of ${attributes.length} attributes, got ${ratings.length}`)
    const bad = ratings.flat().find((value) => !Number.isFinite(value))
    if (bad !== undefined) throw new Error(`training: ratings must be finite, got ${bad}`)
    if (ratings.every(({ length }) => length === 0)) throw new Error('training: a row has no rating')
  }
  if (heads === null) return
  if (JSON.stringify([heads.attributes, heads.levels]) !== JSON.stringify([attributes, levels]))
    throw new Error(
      `${heads.name}: heads must be of the attributes ${show(attributes)} at the levels ${show(levels)}, got ${show(heads.attributes)} at ${show(heads.levels)}`,
    )
  if (heads.transform)
    throw new Error(
      `${heads.name}: has a reward_transform_matrix, which does not hold for other states; give the heads from before "pinball debias"`,
    )
}

/** Weights of 0, and maybe the quantiles of all ratings as constants. */
function firstHeads(
  ratings: readonly (readonly number[])[],
  levels: readonly number[],
  columns: number,
  intercept: boolean,
): Pick<HeadsFile, 'weight' | 'bias'> {
  const constants = ratings.flatMap((values) => {
    const sorted = [...values].sort((a, b) => a - b)
    // The smallest value that a share `level` is at or below.
    return levels.map((level) => sorted[Math.max(0, Math.ceil(level * sorted.length * (1 - 1e-12)) - 1)])
  })
  return {
    weight: new Float32Array(constants.length * columns),
    bias: intercept ? Float32Array.from(constants) : null,
  }
}

/** The adapter as training begins: one of the body alone. */
async function beginBare(
  config: LlamaConfig,
  { name }: ModelDirectory,
  { adapter, heads, rank, alpha, targets, dropout, seed }: QuantileSettings,
): Promise<Adapter> {
  if (heads && heads.columns !== config.hidden)
    throw new Error(
      `${heads.name}: heads must be for states of ${config.hidden} columns, as ${name} has, got ${heads.columns}`,
    )
  if (adapter === null) {
    return startAdapter(
      newAdapterConfig({ task: 'CAUSAL_LM', rank, alpha, targets, dropout, base: name }),
      config,
      seed,
    )
  }
  const start = await readAdapter(adapter, config)
  const json = { ...start.config.json, task_type: 'CAUSAL_LM', modules_to_save: null, auto_mapping: null }
  return { ...start, config: parseAdapterConfig(json, start.config.name), score: null }
}

/** The heads that a finished training has left. */
async function readHeadsOf(store: Store): Promise<HeadsFile> {
  const source = await store.open(HEADS_FILE)
  if (source === null) throw new Error(`${store.name}/${HEADS_FILE}: is missing; --restart trains anew`)
  try {
    return await readHeadsFile(source)
  } finally {
    await source.close()
  }
}

/** SHA-256 over tokens and ratings of rows. */
async function ratedHash(rows: readonly RatedExample[]): Promise<string> {
  return hashWords(
    rows.map(({ tokens, ratings }) => {
      const values = new Uint32Array(Float64Array.from(ratings.flat()).buffer)
      const counts = ratings.map(({ length }) => length)
      const words = new Uint32Array(1 + tokens.length + counts.length + values.length)
      words.set([tokens.length, ...tokens, ...counts])
      words.set(values, 1 + tokens.length + counts.length)
      return words
    }),
  )
}
