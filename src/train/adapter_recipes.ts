// How the commands that fine-tune with LoRA read their rows, which of the options they pass on, and what each of them trains.
import type { Device } from '../device/device.ts'
import type { FileRecord } from '../files/records.ts'
import type { ModelFiles } from '../files/source.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import { ADAPTER_DEFAULTS, type AdapterTraining, type KeepOptions } from './adapter_training.ts'
import { encodePreferenceRows, type PreferenceRow } from './preference_rows.ts'
import { QUANTILE_DEFAULTS, type QuantileResult, trainQuantileModel } from './quantile_model.ts'
import { encodeRatedExamples, type RatedExample } from './rated_examples.ts'
import { REWARD_DEFAULTS, type RewardResult, trainRewardModel } from './reward_model.ts'
import type { TextRules } from './row_text.ts'
import { holdOut, type SftResult, type SftSettings, trainSft } from './sft.ts'
import { encodeSftRows, type SftLoss, type SftRow } from './sft_rows.ts'

/** What differs between one training of adapters and another. */
export interface AdapterRecipe<Row, Result extends object> {
  /** Encodes the rows of a file; those that are too long are counted. */
  encode(
    records: AsyncIterable<FileRecord>,
    rules: TextRules,
  ): Promise<{ readonly rows: readonly Row[]; readonly dropped: number }>
  train(
    base: { readonly device: Device; readonly files: ModelFiles },
    rows: { readonly training: readonly Row[]; readonly held: readonly Row[] },
    settings: Partial<AdapterTraining> & KeepOptions,
  ): Promise<{ readonly result: Result; readonly finished: boolean }>
}

/** Supervised fine-tuning of a causal model. */
export function sftRecipe({
  loss,
  packing = false,
  maxLength,
}: Pick<SftSettings, 'maxLength'> & { readonly loss: SftLoss; readonly packing?: boolean }): AdapterRecipe<
  SftRow,
  SftResult
> {
  return {
    encode: (records, rules) => encodeSftRows(records, { ...rules, loss }),
    async train({ device, files }, { training, held }, settings) {
      const record = { ...settings.record, '--loss': loss }
      const choice = { ...settings, packing, maxLength, record }
      const { adapter: _, finished, ...result } = await trainSft(device, files, training, held, choice)
      return { result, finished }
    },
  }
}

/** A score head, trained on pairs. */
export function scoreRecipe({
  center = REWARD_DEFAULTS.center,
  merge = false,
}: {
  readonly center?: number
  readonly merge?: boolean
}): AdapterRecipe<PreferenceRow, RewardResult> {
  return {
    encode: encodePreferenceRows,
    async train({ device, files }, { training, held }, settings) {
      const choice = { ...settings, center, merge }
      const { adapter: _, finished, ...result } = await trainRewardModel(device, files, training, held, choice)
      return { result, finished }
    },
  }
}

/** Quantile heads, trained on ratings; the levels are those that are given, else those of the heads to begin with. */
export function quantileRecipe({
  attributes,
  heads,
  levels = heads?.levels ?? QUANTILE_DEFAULTS.levels,
  intercept = false,
  onUnrated,
}: {
  readonly attributes: readonly string[]
  readonly heads: HeadsFile | null
  readonly levels?: readonly number[]
  readonly intercept?: boolean
  /** Takes the number of a file's rows that have no rating, if there are any. */
  readonly onUnrated: (rows: number) => void
}): AdapterRecipe<RatedExample, QuantileResult> {
  return {
    async encode(records, rules) {
      const { rows, dropped, unrated } = await encodeRatedExamples(records, attributes, rules)
      if (unrated > 0) onUnrated(unrated)
      return { rows, dropped }
    },
    async train({ device, files }, { training, held }, settings) {
      const choice = { ...settings, attributes, levels, heads, intercept }
      const tuned = await trainQuantileModel(device, files, training, held, choice)
      const { adapter: _, heads: __, finished, ...result } = tuned
      return { result, finished }
    },
  }
}

/** Reads and encodes rows, and those that are held out: other rows, a share of the same, or none. */
export async function readTrainingRows<Row>(
  { encode }: Pick<AdapterRecipe<Row, object>, 'encode'>,
  rules: TextRules,
  data: AsyncIterable<FileRecord>,
  held: AsyncIterable<FileRecord> | number | undefined,
  seed: number,
): Promise<{ readonly training: readonly Row[]; readonly held: readonly Row[]; readonly dropped: number }> {
  const { rows, dropped } = await encode(data, rules)
  if (typeof held === 'number') return { ...holdOut(rows, held, seed), dropped }
  if (held === undefined) return { training: rows, held: [], dropped }
  const others = await encode(held, rules)
  return { training: rows, held: others.rows, dropped: dropped + others.dropped }
}

/** Of options, those that are settings of a training of adapters and are given. */
export function pickSettings(options: Partial<AdapterTraining>): Partial<AdapterTraining> {
  const names = Object.keys(ADAPTER_DEFAULTS) as (keyof AdapterTraining)[]
  return Object.fromEntries(names.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])))
}
