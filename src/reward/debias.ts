// Taking an unwanted attribute, in the published models verbosity, out of the others.
//
// Source: stage-2_train.py of ArmoRM, whose penalties QRM applies. With point predictions r of every response of a reference set and
// the unwanted attribute v: for each other attribute i the penalty is the first p of a fixed list, ascending, for which the rank
// correlation of r_i - p r_v with r_v is at most a threshold (signed, not absolute); 1 where none is. T = I, T[v, :] -= penalty, also
// for v itself, which keeps 1: its debiased value is 0 whatever it was.

import type { Device } from '../device/device.ts'
import { show } from '../files/json.ts'
import type { FeatureBlocks } from '../files/table.ts'
import { expectationMap, type HeadsFile } from './heads_file.ts'
import { predictRows } from './predict.ts'

/** The 24 candidates. */
export const PENALTIES: readonly number[] = [
  0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
  0.85, 0.9, 0.95,
]
/** Of the published command line. */
export const THRESHOLD = 0.03
/** Taken where heads have it and no other is named. */
export const USUAL_UNWANTED = 'helpsteer-verbosity'

export interface Debiased {
  /** T [M, M], rows = from. */
  readonly transform: Float32Array
  /** [M] */
  readonly penalties: readonly number[]
  /** Rank correlation of each attribute with the unwanted one [M], as it was and with the penalty; NaN for constant ones. */
  readonly before: readonly number[]
  readonly after: readonly number[]
}

/**
 * Penalties from rewards [R, M] and the index of the unwanted attribute; `onProgress` is called after each of the M attributes, which
 * take up to 25 sorts of R values. Throws below two rows, and on NaN and infinity.
 */
export function debias(
  rewards: ArrayLike<number>,
  attributes: number,
  unwanted: number,
  threshold = THRESHOLD,
  onProgress: (done: number, attributes: number) => void = () => {},
): Debiased {
  const rows = rewards.length / attributes
  if (!Number.isSafeInteger(rows) || rows < 2) {
    throw new Error(`debias: at least 2 rows of ${attributes} rewards are needed, got ${rewards.length} values`)
  }
  if (!(Number.isSafeInteger(unwanted) && unwanted >= 0 && unwanted < attributes)) {
    throw new Error(`debias: the attribute must be one of 0 to ${attributes - 1}, got ${unwanted}`)
  }
  const column = (j: number) => Float64Array.from({ length: rows }, (_, i) => rewards[i * attributes + j])
  const v = column(unwanted)
  const ranks = averageRanks(v)
  const penalties: number[] = []
  const before: number[] = []
  const after: number[] = []
  for (let j = 0; j < attributes; j++) {
    const r = column(j)
    const correlation = (p: number) => pearson(averageRanks(r.map((value, i) => value - p * v[i])), ranks)
    before.push(correlation(0))
    // What is constant correlates with nothing: NaN, which is above no threshold and below none.
    const found = j === unwanted ? undefined : PENALTIES.find((p) => correlation(p) <= threshold)
    penalties.push(found ?? 1)
    after.push(correlation(found ?? 1))
    onProgress(j + 1, attributes)
  }
  const transform = new Float32Array(attributes * attributes)
  for (let j = 0; j < attributes; j++) transform[j * attributes + j] = 1
  for (let j = 0; j < attributes; j++) transform[unwanted * attributes + j] -= penalties[j]
  return { transform, penalties, before, after }
}

/** Spearman's rank correlation with average ranks of ties; NaN where one side is constant. */
export function spearman(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return pearson(averageRanks(Float64Array.from(a)), averageRanks(Float64Array.from(b)))
}

/** Ranks from 1 on; equal values share the mean of their ranks. */
function averageRanks(values: Float64Array): Float64Array {
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new Error(`debias: rewards must be finite, row ${bad} has ${values[bad]}`)
  const order = Uint32Array.from(values, (_, i) => i).sort((a, b) => values[a] - values[b])
  const ranks = new Float64Array(values.length)
  for (let from = 0; from < order.length; ) {
    let to = from + 1
    while (to < order.length && values[order[to]] === values[order[from]]) to++
    for (let i = from; i < to; i++) ranks[order[i]] = (from + to + 1) / 2
    from = to
  }
  return ranks
}

function pearson(a: Float64Array, b: Float64Array): number {
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [ma, mb] = [mean(a), mean(b)]
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    ab += (a[i] - ma) * (b[i] - mb)
    aa += (a[i] - ma) ** 2
    bb += (b[i] - mb) ** 2
  }
  return aa === 0 || bb === 0 ? Number.NaN : ab / Math.sqrt(aa * bb)
}

export interface DebiasOptions {
  /** The unwanted attribute, by name or by number from 0; 'helpsteer-verbosity' by default. */
  readonly attribute?: string | number
  /** The largest rank correlation that may be left, from -1 to 1; 0.03 by default. */
  readonly threshold?: number
  /** Called after each block of rows, then after each attribute. */
  readonly onProgress?: (doing: 'rows' | 'attributes', done: number, total: number) => void
  readonly signal?: AbortSignal
}

export interface DebiasedHeads extends Debiased {
  /** With the transform, and in the metadata how it was found: to be written by `encodeHeads(heads, heads.metadata)`. */
  readonly heads: HeadsFile & { readonly metadata: Readonly<Record<string, string>> }
  /** The attribute that was taken out, and its number. */
  readonly attribute: string
  readonly unwanted: number
  readonly threshold: number
  /** R: the responses that the penalties come from. */
  readonly rows: number
}

/**
 * The number of an attribute of heads, given by name or number; a text that is no name may be a number too. Throws, with the names there
 * are, where there is none.
 */
export function unwantedIndex({ attributes, name }: HeadsFile, attribute: string | number = USUAL_UNWANTED): number {
  const digits = typeof attribute === 'string' && !attributes.includes(attribute) && /^\d+$/.test(attribute)
  const index = typeof attribute === 'number' || digits ? Number(attribute) : attributes.indexOf(attribute)
  if (Number.isInteger(index) && index >= 0 && index < attributes.length) return index
  throw new Error(`${name} has no attribute ${show(attribute)}; it has ${attributes.map(show).join(', ')}`)
}

/**
 * Takes an attribute out of the others: `debias` of the heads' point predictions, not debiased, of reference features [R, D] (of pairs
 * both sides: `stateRows`). Throws on features of another width and on unknown attributes.
 */
export async function debiasHeads(
  device: Device,
  heads: HeadsFile,
  features: FeatureBlocks,
  { attribute, threshold = THRESHOLD, onProgress, signal }: DebiasOptions = {},
): Promise<DebiasedHeads> {
  const unwanted = unwantedIndex(heads, attribute)
  if (features.columns !== heads.columns) {
    throw new Error(
      `${heads.name}: heads must be for features of ${features.columns} columns, as those of ${features.name} are, got ${heads.columns}`,
    )
  }
  const rewards = await predictRows(device, features, expectationMap({ ...heads, transform: null }), {
    onProgress: (done, total) => onProgress?.('rows', done, total),
    signal,
  })
  const names = heads.attributes
  const found = debias(rewards, names.length, unwanted, threshold, (done, total) => {
    signal?.throwIfAborted()
    onProgress?.('attributes', done, total)
  })
  const said = { attribute: names[unwanted], threshold, penalties: found.penalties }
  const metadata = { ...heads.metadata, debias: JSON.stringify(said) }
  return {
    ...found,
    heads: { ...heads, transform: found.transform, metadata },
    attribute: names[unwanted],
    unwanted,
    threshold,
    rows: features.rows,
  }
}
