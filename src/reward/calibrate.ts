// Calibration of a model's heads on ratings that they have not seen: one offset for each attribute and level.
import type { Device } from '../device/device.ts'
import { show } from '../files/json.ts'
import type { ModelFiles } from '../files/source.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import {
  CALIBRATION_FILE,
  type CalibratedAttribute,
  type Calibration,
  checkCalibrationFile,
  conformalOffset,
  headsDigest,
  roundUp,
} from './conformal.ts'
import { fittedTo, labelledKeys, rowKeys } from './fitted.ts'
import { predictRows } from './predict.ts'
import type { RatingFile } from './rating_file.ts'
import { type Unit, USUAL_UNIT } from './unit.ts'

export interface CalibrateOptions {
  /** What counts once where items have several ratings; default 'item'. */
  readonly unit?: Unit
  /** Called after each block of rows, then after each quantile. */
  readonly onProgress?: (doing: 'rows' | 'quantiles', done: number, total: number) => void
  readonly signal?: AbortSignal
}

/**
 * Reads the heads of a model directory that is to be calibrated. What it has of a calibration is passed over: it may be damaged, or of
 * heads that were there before these. Throws where something else has its name.
 */
export async function readUncalibrated(files: ModelFiles): Promise<Checkpoint> {
  await checkCalibrationFile(files)
  return readCheckpoint({ ...files, open: async (file) => (file === CALIBRATION_FILE ? null : files.open(file)) })
}

/**
 * Finds the offsets [M, K] of heads on rated features, by attribute names; `encodeCalibration` makes the file of them. Weights of the
 * ratings are not used: every item, or every rating, counts alike. Throws, before anything is computed, on another width and where an attribute has no
 * rating.
 */
export async function calibrate(
  device: Device,
  { regression, manifest, config }: Checkpoint,
  ratings: RatingFile,
  { unit = USUAL_UNIT, onProgress, signal }: CalibrateOptions = {},
): Promise<Calibration> {
  const { columns, name } = ratings.features
  if (columns !== config.hidden_size) {
    throw new Error(`${name}: must have the ${config.hidden_size} columns that the heads are for, got ${columns}`)
  }
  const { attributes, levels } = manifest
  checkRated(ratings, attributes)
  const values = await predictRows(device, ratings.features, regression, {
    onProgress: (done, rows) => onProgress?.('rows', done, rows),
    signal,
  })
  const keys = await rowKeys(ratings.features)
  const { rows } = await fittedTo(labelledKeys(keys, ratings.labels, ratings.attributes.length, ratings.rowIndex), unit)
  const K = levels.length
  const offsets = new Float32Array(attributes.length * K)
  const about: CalibratedAttribute[] = []
  for (const [j, attribute] of attributes.entries()) {
    const m = ratings.attributes.indexOf(attribute)
    let unreachable = 0
    let counts = { items: 0, ratings: 0 }
    for (const [k, level] of levels.entries()) {
      signal?.throwIfAborted()
      const { scores, items } = differences(ratings, m, (row) => values[(row * attributes.length + j) * K + k])
      const found = conformalOffset(scores, items, level, unit)
      offsets[j * K + k] = roundUp(found.offset)
      if (!found.reached) unreachable++
      counts = { items: found.items, ratings: found.ratings }
      onProgress?.('quantiles', j * K + k + 1, offsets.length)
    }
    about.push({ name: attribute, ...counts, unreachable })
  }
  return { offsets, attributes: about, heads: await headsDigest(regression), unit, rows }
}

function checkRated({ name, labels, attributes: rated }: RatingFile, attributes: readonly string[]): void {
  for (const attribute of attributes) {
    const m = rated.indexOf(attribute)
    if (m < 0) throw new Error(`${name}: has no ratings of ${show(attribute)}, it has ${rated.map(show).join(', ')}`)
    let i = m
    while (i < labels.length && Number.isNaN(labels[i])) i += rated.length
    if (i >= labels.length) throw new Error(`${name}: ratings of ${show(attribute)} are all missing`)
  }
}

/** Ratings of attribute m less what is predicted for their rows, with these rows. */
function differences({ labels, attributes, rowIndex }: RatingFile, m: number, predicted: (row: number) => number) {
  const scores: number[] = []
  const items: number[] = []
  const count = labels.length / attributes.length
  for (let i = 0; i < count; i++) {
    const rating = labels[i * attributes.length + m]
    if (Number.isNaN(rating)) continue
    const row = rowIndex?.[i] ?? i
    scores.push(rating - predicted(row))
    items.push(row)
  }
  return { scores, items }
}
