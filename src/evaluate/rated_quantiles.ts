// The calibration of a model on ratings: quantiles of its attributes, from rows or from features, against what was rated.
import type { Device } from '../device/device.ts'
import { show } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'
import type { Checkpoint } from '../reward/checkpoint.ts'
import type { RunOptions } from '../reward/features.ts'
import { keysOf, labelledKeys, rowKeys } from '../reward/fitted.ts'
import type { RewardModel } from '../reward/model.ts'
import { predictRows } from '../reward/predict.ts'
import type { RatingFile } from '../reward/rating_file.ts'
import { ROW_FIELDS } from '../reward/responses.ts'
import { encodeNamed } from '../reward/rows.ts'
import { type RatingCounts, ratingCounts, UNITS, type Unit, USUAL_UNIT, unitWeights } from '../reward/unit.ts'
import { type CalibrationResult, calibration, constantQuantiles, type RatedValues } from './calibration.ts'

/** Quantiles of the attributes of a model that have ratings. */
export interface RatedQuantiles {
  /** [K] */
  readonly levels: readonly number[]
  /** Whether a conformal calibration was added. */
  readonly calibrated: boolean
  readonly attributes: readonly {
    readonly name: string
    /** [R, K] */
    readonly quantiles: Float64Array
    readonly rated: RatedValues
  }[]
  /** Keys (fitted.ts) of the rows that have ratings: which rows they are. */
  readonly keys?: readonly bigint[]
}

/** Ratings of each attribute with the rows they belong to. */
export function ratingsByAttribute({ labels, attributes, rowIndex, weights }: RatingFile): Map<string, RatedValues> {
  const count = labels.length / attributes.length
  const rows = rowIndex ?? Uint32Array.from({ length: count }, (_, i) => i)
  return new Map(
    attributes.map((name, m) => {
      const ratings = Float64Array.from({ length: count }, (_, i) => labels[i * attributes.length + m])
      return [name, { ratings, rows, ...(weights && { weights }) }]
    }),
  )
}

export interface RatedFeatureOptions {
  /** Whether the checkpoint's conformal calibration is added where it has one; default true. */
  readonly calibration?: boolean
  readonly onProgress?: (done: number, rows: number) => void
  readonly signal?: AbortSignal
}

/** Quantiles of rated features by the heads of a checkpoint. Throws on features of another width. */
export async function quantilesOfFeatures(
  device: Device,
  { regression, manifest, config, calibration: found }: Checkpoint,
  ratings: RatingFile,
  { calibration = true, ...run }: RatedFeatureOptions = {},
): Promise<RatedQuantiles> {
  const { columns, name: file, rows } = ratings.features
  if (columns !== config.hidden_size) {
    throw new Error(`${file}: must have the ${config.hidden_size} columns that the heads are for, got ${columns}`)
  }
  const values = await predictRows(device, ratings.features, regression, run)
  const offsets = calibration ? (found?.offsets ?? null) : null
  const [K, M] = [manifest.levels.length, manifest.attributes.length]
  const rated = ratingsByAttribute(ratings)
  const attributes = manifest.attributes.flatMap((name, j) => {
    const own = rated.get(name)
    if (!own || own.ratings.length === 0 || Array.from(own.ratings as Float64Array).every(Number.isNaN)) return []
    const quantiles = new Float64Array(rows * K)
    for (let i = 0; i < rows; i++) {
      for (let k = 0; k < K; k++) quantiles[i * K + k] = values[(i * M + j) * K + k] + (offsets?.[j * K + k] ?? 0)
    }
    return [{ name, quantiles, rated: own }]
  })
  const keys = labelledKeys(
    await rowKeys(ratings.features),
    ratings.labels,
    ratings.attributes.length,
    ratings.rowIndex,
  )
  return { levels: manifest.levels, calibrated: offsets !== null, attributes, keys }
}

/** Rated rows, read for the attributes of a model. */
export interface RatedRows {
  readonly rows: readonly FileRecord[]
  readonly ratings: ReadonlyMap<string, { readonly ratings: number[]; readonly rows: number[] }>
  /** Fields that are neither. */
  readonly unused: readonly string[]
}

/** Reads rated rows: what is scored, and the ratings of attributes, one number or a list of them. Other fields are passed over. */
export function readRatedRows(records: readonly FileRecord[], attributes: readonly string[]): RatedRows {
  const unused = new Set<string>()
  const ratings = new Map(attributes.map((name) => [name, { ratings: [] as number[], rows: [] as number[] }]))
  const rows = records.map(({ where, value: row }, n) => {
    const rest: [string, unknown][] = []
    for (const [field, value] of Object.entries(row)) {
      const own = ratings.get(field)
      if (!own) {
        if (ROW_FIELDS.includes(field)) rest.push([field, value])
        else if (field !== 'id' && field !== 'subset') unused.add(field)
        continue
      }
      for (const rating of Array.isArray(value) ? value : [value]) {
        if (rating === null) continue
        if (typeof rating !== 'number' || !Number.isFinite(rating)) {
          throw new Error(`${where}: ${show(field)} must be a number, null, or a list of them, got ${show(value)}`)
        }
        own.ratings.push(rating)
        own.rows.push(n)
      }
    }
    return { where, value: Object.fromEntries(rest) }
  })
  return { rows, ratings, unused: [...unused] }
}

/**
 * Quantiles of rated rows by a model, which must show raw values (`rewards: 'raw'`): ratings are not debiased. Throws on the first row
 * that cannot be scored.
 */
export async function quantilesOfRows(
  model: RewardModel,
  { rows, ratings }: RatedRows,
  run: RunOptions = {},
): Promise<RatedQuantiles> {
  const encoded = encodeNamed(
    rows,
    ({ value }) => model.encode(value, { gate: true }),
    (i) => rows[i].where,
  )
  const keys: bigint[] = []
  const onState = (_: number, state: Float32Array) => keys.push(keysOf(state, state.length)[0])
  const scores = await model.score(encoded, { ...run, onState })
  const attributes = model.attributes.flatMap((name) => {
    const rated = ratings.get(name)!
    if (rated.ratings.length === 0) return []
    return [{ name, quantiles: Float64Array.from(scores.flatMap((s) => s.attributes[name].quantiles)), rated }]
  })
  return { levels: model.levels, calibrated: model.calibrated, attributes, keys }
}

/** Means over levels and attributes. */
export interface CalibrationMeans {
  readonly pinball: number
  readonly crps: number
  readonly coverage_error: number
}

export interface CalibrationEvaluation {
  /** What `attributes` and `mean` count by. */
  readonly unit: Unit
  readonly attributes: Readonly<Record<string, CalibrationResult>>
  readonly mean: CalibrationMeans
  /** The means, and the coverage error of each attribute, by both units. */
  readonly units: Readonly<
    Record<Unit, CalibrationMeans & { readonly coverage_errors: Readonly<Record<string, number>> }>
  >
  /** Attributes whose items have different numbers of ratings, for which the units differ. */
  readonly unequal: Readonly<Record<string, RatingCounts>>
  /** Attributes without ratings in the reference; theirs are compared with themselves. */
  readonly missing: readonly string[]
}

/**
 * Measures quantiles against the ratings they belong to, beside the unconditional quantiles of a reference, or of the same ratings, all of
 * them by one unit (default: by item). Throws where no attribute has ratings.
 */
export function evaluateCalibration(
  quantiles: RatedQuantiles,
  reference: ReadonlyMap<string, RatedValues> | null = null,
  { unit = USUAL_UNIT }: { readonly unit?: Unit } = {},
): CalibrationEvaluation {
  const { attributes } = quantiles
  if (attributes.length === 0) throw new Error('calibration: none of the attributes has ratings')
  const unequal: Record<string, RatingCounts> = {}
  for (const { name, rated } of attributes) {
    const counts = ratingCounts(rated)
    if (counts.least < counts.most) unequal[name] = counts
  }
  const [own, other] = [unit, UNITS.find((one) => one !== unit)!].map((by) => measureBy(by, quantiles, reference))
  const means = ({ results, mean }: Measured) => ({
    ...mean,
    coverage_errors: Object.fromEntries(Object.entries(results).map(([name, one]) => [name, one.coverage_error])),
  })
  const [item, rating] = unit === 'item' ? [own, other] : [other, own]
  return {
    unit,
    attributes: own.results,
    mean: own.mean,
    units: { item: means(item), rating: means(rating) },
    unequal,
    missing: reference ? attributes.flatMap(({ name }) => (reference.has(name) ? [] : [name])) : [],
  }
}

interface Measured {
  readonly results: Record<string, CalibrationResult>
  readonly mean: CalibrationMeans
}

function measureBy(
  unit: Unit,
  { levels, attributes }: RatedQuantiles,
  reference: ReadonlyMap<string, RatedValues> | null,
): Measured {
  const counted = (rated: RatedValues): RatedValues => ({ ...rated, weights: unitWeights(unit, rated) })
  const results: Record<string, CalibrationResult> = {}
  for (const { name, quantiles, rated } of attributes) {
    const constant = constantQuantiles(counted(reference?.get(name) ?? rated), levels)
    results[name] = calibration(quantiles, levels, counted(rated), constant)
  }
  const mean = (key: keyof CalibrationMeans) =>
    Object.values(results).reduce((sum, result) => sum + result[key], 0) / attributes.length
  return { results, mean: { pinball: mean('pinball'), crps: mean('crps'), coverage_error: mean('coverage_error') } }
}
