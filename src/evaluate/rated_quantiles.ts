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
import { readLabel } from '../reward/responses.ts'
import { readRow } from '../reward/row_forms.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { checkLength, type RowLimits } from '../reward/scored_rows.ts'
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

/**
 * Reads rated rows: what is scored (row_forms.ts), and the ratings of attributes, one number or a list of them, where null and NaN are
 * missing ones. Other fields are passed over. Throws on ratings that are no numbers, and on pairs.
 */
export function readRatedRows(records: readonly FileRecord[], attributes: readonly string[]): RatedRows {
  const unused = new Set<string>()
  const ratings = new Map(attributes.map((name) => [name, { ratings: [] as number[], rows: [] as number[] }]))
  const rows = records.map(({ where, value: row }, n) => {
    try {
      const { sides, isPair, rest } = readRow(row)
      if (isPair) throw new Error('is a pair of "chosen" and "rejected", which has no ratings')
      for (const [field, value] of Object.entries(rest)) {
        const own = ratings.get(field)
        if (!own && field !== 'id' && field !== 'subset') unused.add(field)
        for (const one of own ? [value].flat() : []) {
          if (one !== null && typeof one !== 'number' && typeof one !== 'boolean')
            throw new Error(`${show(field)} must be a number, null, or a list of them, got ${show(one)}`)
          const rating = one === null ? Number.NaN : readLabel(one, show(field))
          if (Number.isNaN(rating)) continue
          own!.ratings.push(rating)
          own!.rows.push(n)
        }
      }
      return { where, value: sides[0] as Record<string, unknown> }
    } catch (error) {
      throw new Error(`${where}: ${(error as Error).message}`)
    }
  })
  return { rows, ratings, unused: [...unused] }
}

/** What cannot be scored is left out, where `skipInvalid` says so. */
export interface RatedRowOptions extends RunOptions, RowLimits {}

/**
 * Quantiles of rated rows by a model, which must show raw values (`rewards: 'raw'`): ratings are not debiased. Throws on the first row
 * that cannot be scored, unless `skipInvalid` leaves such rows out.
 */
export async function quantilesOfRows(
  model: RewardModel,
  { rows, ratings }: RatedRows,
  { maxLength, skipInvalid, ...run }: RatedRowOptions = {},
): Promise<RatedQuantiles & { readonly skipped: readonly string[] }> {
  const { encoded, places, skipped } = encodeRated(model, rows, { maxLength, skipInvalid })
  const keys: bigint[] = []
  const onState = (_: number, state: Float32Array) => keys.push(keysOf(state, state.length)[0])
  const scores = await model.score(encoded, { ...run, onState })
  const attributes = model.attributes.flatMap((name) => {
    const all = ratings.get(name)!
    const kept = [...all.ratings.keys()].filter((i) => places.has(all.rows[i]))
    if (kept.length === 0) return []
    const rated = { ratings: kept.map((i) => all.ratings[i]), rows: kept.map((i) => places.get(all.rows[i])!) }
    return [{ name, quantiles: Float64Array.from(scores.flatMap((s) => s.attributes[name].quantiles)), rated }]
  })
  return { levels: model.levels, calibrated: model.calibrated, attributes, keys, skipped }
}

/** Encodes rows; `places` has the number of each that is kept among those that are. */
function encodeRated(model: RewardModel, rows: readonly FileRecord[], { maxLength, skipInvalid }: RowLimits) {
  const encoded: EncodedRow[] = []
  const places = new Map<number, number>()
  const skipped: string[] = []
  for (const [n, { where, value }] of rows.entries()) {
    try {
      const row = model.encode(value, { gate: true })
      checkLength(row, maxLength)
      places.set(n, encoded.length)
      encoded.push(row)
    } catch (error) {
      const reason = `${where}: ${(error as Error).message}`
      if (!skipInvalid) throw new Error(reason)
      skipped.push(reason)
    }
  }
  if (encoded.length === 0)
    throw new Error(`no row can be scored${skipped.length > 0 ? `; the first: ${skipped[0]}` : ''}`)
  return { encoded, places, skipped }
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
