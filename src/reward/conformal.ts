// Split conformal calibration of quantiles: what must be added to a level so that it covers what it promises.
//
// Source: Vovk, Gammerman and Shafer 2005; Romano, Patterson and Candès 2019 (one-sided, level by level). For ratings y of items that
// the heads have not seen, scores s = y - q(x), and n items: the offset of level t is the ceil((n + 1) t)-th smallest score. If the
// items and a new one are exchangeable and have one rating each, P(y <= q(x) + offset) is at least t, and at most t + 1 / (n + 1)
// where no two scores are equal. With several ratings of an item, by item each counts 1 / (their number): items are exchangeable, ratings
// of one item are not. By rating each counts n / (the number of all). The bounds then hold up to terms that vanish with n (Dunn,
// Wasserman and Ramdas 2022, pooled distributions). The two are one where all items have as many ratings.

import { digest } from '../files/hash.ts'
import { parseJson, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensor, readTensorF32, type TensorData } from '../files/safetensors.ts'
import type { ModelFiles } from '../files/source.ts'
import { readUnit, type Unit, USUAL_UNIT } from './unit.ts'

/** Of a model directory. */
export const CALIBRATION_FILE = 'calibration.safetensors'

export interface Calibration {
  /** Added to the quantile values [M, K]. */
  readonly offsets: Float32Array
  /** Of each attribute: items and ratings that it was found on, and how many levels are too high for so few items. */
  readonly attributes: readonly CalibratedAttribute[]
  /** SHA-256 of the heads that it belongs to. */
  readonly heads: string
  /** What it counts by; absent: by item. */
  readonly unit?: Unit
  /** Keys of the rows that it was found on (fitted.ts), where they are known. */
  readonly rows?: BigInt64Array<ArrayBuffer>
}

export interface CalibratedAttribute {
  readonly name: string
  readonly items: number
  readonly ratings: number
  /** Levels t with (n + 1) t > n, for which no finite offset has a guarantee; theirs is the largest score. */
  readonly unreachable: number
}

/**
 * The offset of one level in (0, 1) from scores [L] of labels with the item of each [L]; NaN are left out. Throws where nothing is left, a
 * score is infinite, or sizes differ. `reached` is false where the level is above n / (n + 1).
 */
export function conformalOffset(
  scores: ArrayLike<number>,
  items: ArrayLike<number>,
  level: number,
  unit: Unit = USUAL_UNIT,
): { readonly offset: number; readonly reached: boolean; readonly items: number; readonly ratings: number } {
  if (!(level > 0 && level < 1)) throw new Error(`conformal: level must lie between 0 and 1, got ${level}`)
  if (items.length !== scores.length) {
    throw new Error(`conformal: items must be ${scores.length}, one for each score, got ${items.length}`)
  }
  const counts = new Map<number, number>()
  const kept: number[] = []
  for (let i = 0; i < scores.length; i++) {
    if (Number.isNaN(scores[i])) continue
    if (!Number.isFinite(scores[i])) throw new Error(`conformal: scores must be finite, score ${i} is ${scores[i]}`)
    kept.push(i)
    counts.set(items[i], (counts.get(items[i]) ?? 0) + 1)
  }
  if (kept.length === 0) throw new Error('conformal: at least one rating is needed, got none')
  kept.sort((a, b) => scores[a] - scores[b])
  // Shares of items may add up to a hair less than the whole numbers that they stand for.
  const wanted = (counts.size + 1) * level * (1 - 1e-12)
  const alike = counts.size / kept.length
  let sum = 0
  const at = kept.find((i) => {
    sum += unit === 'item' ? 1 / counts.get(items[i])! : alike
    return sum >= wanted
  })
  const place = at ?? kept[kept.length - 1]
  return { offset: scores[place], reached: at !== undefined, items: counts.size, ratings: kept.length }
}

/**
 * The smallest f32 that is at least x. An offset rounded down would leave a rating that was to be covered a hair above its quantile, and
 * of discrete ratings all that are equal; rounded up, the sum with the quantile is at least the rating also in f32.
 */
export function roundUp(x: number): number {
  const near = Math.fround(x)
  if (near >= x) return near
  const value = Float32Array.of(near)
  const bits = new Int32Array(value.buffer)
  // The bits of floats of one sign are in the order of their size; above the largest negative one is -0.
  bits[0] += near < 0 ? -1 : 1
  return value[0]
}

/** SHA-256 over heads, by which a calibration knows its own. */
export async function headsDigest(regression: {
  readonly weight: Float32Array
  readonly bias: Float32Array | null
}): Promise<string> {
  const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) =>
    digest(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength))
  const parts = [await bytes(regression.weight), regression.bias ? await bytes(regression.bias) : 'none']
  return digest(new TextEncoder().encode(parts.join(' ')))
}

/** The file of a calibration. */
export function encodeCalibration({ offsets, attributes, heads, unit = 'item', rows }: Calibration): Uint8Array[] {
  const shape = [attributes.length, offsets.length / attributes.length]
  const tensors: TensorData[] = [{ name: 'offsets', dtype: 'F32', shape, data: offsets }]
  if (rows) tensors.push({ name: 'rows', dtype: 'I64', shape: [rows.length], data: rows })
  return encodeSafetensors(tensors, {
    attributes: JSON.stringify(attributes),
    heads,
    method: 'split conformal, one-sided, each level alone',
    unit,
  })
}

/** Reads the calibration of a model directory, or gives null where there is none. Throws where it belongs to other heads. */
export async function readCalibration(
  files: ModelFiles,
  regression: { readonly weight: Float32Array; readonly bias: Float32Array | null },
  outputs: number,
): Promise<Calibration | null> {
  const source = await files.open(CALIBRATION_FILE)
  if (source === null) return null
  const where = source.name
  try {
    const { tensors, metadata } = await openSafetensors(source)
    const info = tensors.get('offsets')
    if (info === undefined || info.shape.length !== 2 || info.shape[0] * info.shape[1] !== outputs) {
      throw new Error(`${where}: offsets must be [M, K] with ${outputs} values, got ${show(info?.shape)}`)
    }
    const offsets = await readTensorF32(info)
    const bad = offsets.findIndex((value) => !Number.isFinite(value))
    if (bad >= 0) throw new Error(`${where}: offsets must be finite, got ${offsets[bad]} at element ${bad}`)
    const heads = await headsDigest(regression)
    if (metadata.heads !== heads) {
      throw new Error(`${where}: belongs to other heads than those here; run "pinball calibrate" again, or remove it`)
    }
    const attributes = parseJson(metadata.attributes ?? 'null', `${where}: attributes in the metadata`)
    if (!Array.isArray(attributes) || attributes.length !== info.shape[0]) {
      throw new Error(
        `${where}: attributes in the metadata must be a list of ${info.shape[0]}, got ${show(attributes)}`,
      )
    }
    // Files from before there was a choice are by item.
    const unit = readUnit(metadata.unit ?? 'item', `${where}: unit in the metadata`)
    const keys = tensors.get('rows')
    const rows =
      keys?.dtype === 'I64' && keys.shape.length === 1 ? new BigInt64Array((await readTensor(keys)).buffer) : null
    return {
      offsets,
      attributes: attributes as CalibratedAttribute[],
      heads,
      unit,
      ...(rows && { rows }),
    }
  } finally {
    await source.close()
  }
}

// What every file of a calibration has first in its header: it tells one that is damaged from something else.
const BEGIN = '{"__metadata__":{"attributes":'
const PREFIX_BYTES = 8

/**
 * Throws where the name of the calibration is taken by a file that is none, which must not be overwritten. Calibrations of other heads
 * and damaged ones may be.
 */
export async function checkCalibrationFile(files: ModelFiles): Promise<void> {
  const source = await files.open(CALIBRATION_FILE)
  if (source === null) return
  try {
    const opened = await openSafetensors(source).catch(() => null)
    const head = await source.read(0, Math.min(PREFIX_BYTES + BEGIN.length, source.byteLength))
    const text = new TextDecoder().decode(head.subarray(PREFIX_BYTES))
    const ours = opened
      ? /^[0-9a-f]{64}$/.test(opened.metadata.heads ?? '')
      : source.byteLength === 0 || (text !== '' && BEGIN.startsWith(text))
    if (ours) return
    throw new Error(`${source.name}: is where the calibration goes, and is something else; move it away`)
  } finally {
    await source.close()
  }
}
