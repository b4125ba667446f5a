// From ratings, and pairs where there are any, to an evaluated reward model over a backbone, in one call: rows divided by item, features,
// heads, debiasing, gate, calibration, the model's directory, and what held-out rows say about it.
//
// The folder holds features/, heads/ (heads.safetensors, debiased.safetensors), reward/ (heads with gate or fixed weights, calibration),
// model/ (reward and backbone) and report.json. Everything is kept as it is finished; the same call goes on.
import type { Device } from '../device/device.ts'
import { show } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'
import type { ModelFiles } from '../files/source.ts'
import type { StoreTree } from '../files/store.ts'
import { evenLevels } from '../reward/distribution.ts'
import type { Progress } from '../reward/features.ts'
import { fingerprintOf } from '../reward/fingerprint.ts'
import { type FixedWeights, orderWeights } from '../reward/manifest.ts'
import { readRow } from '../reward/row_forms.ts'
import { type Part, splitRecords } from '../reward/split.ts'
import { type Unit, USUAL_UNIT } from '../reward/unit.ts'
import type { HeadsProgress } from '../train/heads.ts'
import { OwnModelRun } from './own_model_run.ts'
import type { PairAccuracy } from './pairs.ts'
import type { CalibrationEvaluation } from './rated_quantiles.ts'
import { openStages } from './stages.ts'

/** Settings of its gate and of the training of that. */
export interface OwnGateSettings {
  readonly hidden: number
  readonly layers: number
  readonly temperature: number
  readonly marginScale: number
  readonly batch: number
  readonly epochs: number
  readonly lr: number
}

/** Settings on which the result depends. */
export interface OwnModelSettings {
  /** Attributes [M]; absent: all fields of the ratings that hold numbers. */
  readonly labels?: readonly string[]
  /** fit, calibrate and test, with their shares. */
  readonly parts: readonly Part[]
  readonly seed: number
  readonly unit: Unit
  readonly levels: readonly number[]
  readonly alpha: number | 'auto'
  readonly intercept: boolean
  /** Attribute that is taken out of the others; null: none. */
  readonly unwanted: string | null
  /** Of the attributes, where there are no pairs for a gate. */
  readonly weights: FixedWeights
  /** Of the gate. */
  readonly gate: OwnGateSettings
  readonly dtype: 'f32' | 'bf16'
  readonly maxLength?: number
  readonly skipInvalid?: boolean
}

export const OWN_MODEL_DEFAULTS: OwnModelSettings = {
  parts: [
    { name: 'fit', share: 0.6 },
    { name: 'calibrate', share: 0.2 },
    { name: 'test', share: 0.2 },
  ],
  seed: 0,
  unit: USUAL_UNIT,
  levels: evenLevels(19),
  alpha: 0.003,
  intercept: true,
  unwanted: null,
  weights: 'mean',
  gate: { hidden: 64, layers: 3, temperature: 1, marginScale: 1, batch: 128, epochs: 3, lr: 3e-4 },
  dtype: 'f32',
}

export interface OwnModelOptions extends OwnModelSettings {
  readonly ratings: readonly FileRecord[]
  /** null: fixed weights in the place of a gate. */
  readonly pairs: readonly FileRecord[] | null
  readonly backbone: ModelFiles
  readonly out: StoreTree
  readonly threads?: number
  readonly restart?: boolean
  readonly signal?: AbortSignal
  readonly onNote?: (line: string) => void
  readonly onStage?: (name: string, done: boolean) => void
  readonly onRows?: (progress: Progress) => void
  readonly onLevels?: (progress: HeadsProgress) => void
  readonly onSteps?: (doing: string, done: number, total: number) => void
}

/** What a model has come to on rows that nothing of it has seen. */
export interface OwnModelReport {
  readonly attributes: readonly string[]
  /** Rows of each part, and pairs. */
  readonly rows: Readonly<Record<string, number>>
  readonly unit: Unit
  readonly alpha: unknown
  /** Of the test part, calibrated and not. */
  readonly calibrated: CalibrationEvaluation
  readonly plain: CalibrationEvaluation
  /** Of the test pairs; null without pairs. */
  readonly pairs: PairAccuracy | null
  readonly weights: FixedWeights | 'gate'
}

export const PARTS = ['fit', 'calibrate', 'test'] as const
const STAGES = ['fit', 'debias', 'gate', 'weights', 'calibrate', 'assemble', 'evaluate']

/** Fields of rated rows that hold ratings: numbers, truth, or lists of them. */
export function ratedFields(records: readonly FileRecord[]): string[] {
  const found = new Set<string>()
  for (const { value } of records) {
    for (const [field, label] of Object.entries(readRow(value).rest)) {
      const ratings = [label].flat().filter((one) => one !== null)
      const rated = ratings.length > 0 && ratings.every((one) => typeof one === 'number' || typeof one === 'boolean')
      if (rated && field !== 'id' && !field.endsWith('_id')) found.add(field)
    }
  }
  return [...found]
}

/**
 * Makes and evaluates a reward model. A call that was cut off goes on where it was; a stage is not done again where its settings, what it
 * reads and its files are as it left them. Throws where the folder holds anything else, or a fit or training that was begun with other
 * settings, unless `restart` begins it anew; where a part has no rows; and as its stages do.
 */
export async function trainOwnModel(
  device: Device,
  given: Partial<OwnModelSettings> & Omit<OwnModelOptions, keyof OwnModelSettings>,
): Promise<OwnModelReport> {
  const options: OwnModelOptions = { ...OWN_MODEL_DEFAULTS, ...given }
  const { ratings, pairs, backbone, out, parts, seed, signal, onNote, onStage } = options
  const labels = options.labels ?? ratedFields(ratings)
  if (labels.length === 0) throw new Error('ratings: no field of the rows holds ratings; name some by --labels')
  orderWeights(options.weights, labels, '--attribute-weights')
  if (options.unwanted !== null && !labels.includes(options.unwanted))
    throw new Error(
      `--debias: there is no attribute ${show(options.unwanted)}; there are ${labels.map(show).join(', ')}`,
    )
  if (pairs !== null && labels.length === 1) onNote?.('one attribute needs no gate: pairs are for the evaluation alone')
  const gated = pairs !== null && labels.length > 1
  const made = splitRecords(ratings, parts, { seed })
  const [fit, held, test] = PARTS.map((name) => made[parts.findIndex((part) => part.name === name)])
  const madePairs = pairs && splitRecords(pairs, parts, { seed })
  const testPairs = madePairs?.[parts.findIndex(({ name }) => name === 'test')] ?? []
  const ownPairs = madePairs?.flatMap((some, i) => (parts[i].name === 'test' ? [] : some)) ?? []
  for (const [name, rows] of [
    ['fit', fit],
    ['calibrate', held],
    ['test', test],
  ] as const)
    if (rows.length === 0)
      throw new Error(`--parts: no row is in the part ${show(name)}; give it a larger share, or more rows`)
  if (gated && ownPairs.length < 2)
    throw new Error(`--pairs: at least 2 are needed for the gate, got ${ownPairs.length}`)
  const fingerprint = await fingerprintOf(backbone, null)
  const { unwanted } = options
  const stages = await openStages(out, { command: 'train', settings: {}, names: STAGES, onNote, onStage, signal })
  const run = new OwnModelRun(device, options, stages, labels, fingerprint)
  try {
    const files: Record<string, string> = {}
    for (const [name, rows] of [
      ['fit', fit],
      ['calibrate', held],
      ['test', test],
    ] as const)
      files[name] = await run.features(name, rows, labels)
    if (ownPairs.length > 0 && gated) files.pairs = await run.features('pairs', ownPairs, [])
    if (testPairs.length > 0) files.test_pairs = await run.features('test_pairs', testPairs, [])
    await run.fit(files)
    const heads = unwanted === null ? 'heads.safetensors' : await run.debias(files, unwanted)
    await (gated ? run.gate(heads) : run.weigh(heads))
    await run.calibrate(files)
    await run.assemble()
    return await run.evaluate(files, { gated, pairs: pairs !== null })
  } finally {
    await run.close()
  }
}
