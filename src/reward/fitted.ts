// What heads were fitted to: keys of the rows, so that whoever measures heads on the same rows is told.
//
// A key is a hash of a row's features as bfloat16, which is what is the same in files of 16 and of 32 bits. Files need no ids for it, and
// equal texts have equal keys.
import { digest } from '../files/hash.ts'
import { encodeSafetensors, narrowBF16, openSafetensors, readTensor, type Safetensors } from '../files/safetensors.ts'
import type { ModelFiles, Source } from '../files/source.ts'
import type { FeatureBlocks } from '../files/table.ts'
import { headsDigest } from './conformal.ts'
import { readUnit, type Unit } from './unit.ts'

/** Of a model directory. */
export const FITTED_FILE = 'fitted.safetensors'

/** Tensor of keys in that file, and in a file of heads. */
export const FITTED_TENSOR = 'fitted_rows'

const PAIRS_TENSOR = 'fitted_pairs'

/** What is known of the ratings that heads were fitted to. */
export interface Fitted {
  /** What the fit counted by; null where it has no say, as for point estimates. */
  readonly unit: Unit | null
  /** Keys of the rows that have a rating, ascending, each once. */
  readonly rows: BigInt64Array<ArrayBuffer>
  /** SHA-256 of these keys, 64 hexadecimal digits. */
  readonly hash: string
  /** Keys of the pairs that a gate or a score head was trained on, ascending, each once. */
  readonly pairs?: BigInt64Array<ArrayBuffer>
}

const BLOCK_VALUES = 2 ** 22
// Hidden states of different texts differ everywhere: more columns would tell nothing new.
const COLUMNS = 512

/** The key of one row of bfloat16 features: 63 bits, from two lanes of 32. */
function keyOf(bits: Uint16Array): bigint {
  let a = 0x9e3779b9 ^ bits.length
  let b = 0x85ebca6b
  for (let i = 0; i < bits.length; i++) {
    // -0 is 0: devices differ in it.
    const word = bits[i] === 0x8000 ? 0 : bits[i]
    a = Math.imul(a ^ word, 0xcc9e2d51)
    a ^= a >>> 15
    b = Math.imul(b ^ word, 0x1b873593)
    b ^= b >>> 13
  }
  a = Math.imul(a ^ (b >>> 16), 0x2c1b3c6d)
  a ^= a >>> 12
  b = Math.imul(b ^ (a >>> 15), 0x297a2d39)
  b ^= b >>> 15
  return (BigInt(a >>> 1) << 32n) | BigInt(b >>> 0)
}

/** Keys of rows of features, given as they lie in memory [R, D]. */
export function keysOf(data: Float32Array | Uint16Array, columns: number): BigInt64Array<ArrayBuffer> {
  const rows = data.length / columns
  const width = Math.min(columns, COLUMNS)
  return BigInt64Array.from({ length: rows }, (_, n) => {
    const row = data.subarray(n * columns, n * columns + width)
    return keyOf(row instanceof Uint16Array ? row : narrowBF16(row))
  })
}

/** Keys of pairs, of the states of their sides [P, 2, D] as they lie in memory. */
export function pairKeysOf(data: Float32Array, columns: number): bigint[] {
  const sides = keysOf(data, columns)
  return Array.from({ length: sides.length / 2 }, (_, i) => BigInt.asIntN(63, sides[2 * i] * 3n + sides[2 * i + 1]))
}

/** Keys of all rows of features [N]. One block of rows is in memory. */
export async function rowKeys({ rows, columns, read }: FeatureBlocks): Promise<BigInt64Array<ArrayBuffer>> {
  const all = new BigInt64Array(rows)
  const step = Math.max(1, Math.floor(BLOCK_VALUES / columns))
  for (let first = 0; first < rows; first += step) {
    all.set(keysOf(await read(first, Math.min(step, rows - first)), columns), first)
  }
  return all
}

/** What heads are fitted to that are fitted to these keys. */
export async function fittedTo(keys: Iterable<bigint>, unit: Unit | null): Promise<Fitted> {
  const rows = BigInt64Array.from(new Set(keys)).sort()
  return { unit, rows, hash: await digest(new Uint8Array(rows.buffer)) }
}

/**
 * Keys of the rows that have a label of some attribute, of a weight above 0; `labels` are [L, M], `weights` [L], the row of each line is
 * in `rowIndex` or its number.
 */
export function labelledKeys(
  keys: BigInt64Array,
  labels: Float32Array,
  attributes: number,
  rowIndex: ArrayLike<number> | undefined,
  weights?: ArrayLike<number>,
): bigint[] {
  const found = new Set<number>()
  for (let i = 0; i < labels.length; i++) {
    const line = Math.floor(i / attributes)
    if (Number.isNaN(labels[i]) || weights?.[line] === 0) continue
    found.add(rowIndex ? rowIndex[line] : line)
  }
  return [...found].map((row) => keys[row])
}

/** The tensor and the metadata that files of heads have of it. */
export function fittedParts({ unit, rows, hash }: Fitted) {
  return {
    tensor: { name: FITTED_TENSOR, dtype: 'I64', shape: [rows.length], data: rows } as const,
    metadata: { ...(unit && { unit }), fitted_sha256: hash },
  }
}

/** Reads what a file says of it; null where it says nothing. Throws on what is damaged. */
export async function fittedOf({ tensors, metadata }: Safetensors, where: string): Promise<Fitted | null> {
  const info = tensors.get(FITTED_TENSOR)
  if (info === undefined) return null
  if (info.dtype !== 'I64' || info.shape.length !== 1) {
    throw new Error(`${where}: ${FITTED_TENSOR} must be [N] of I64, got ${JSON.stringify(info.shape)} of ${info.dtype}`)
  }
  const bytes = new Uint8Array(await readTensor(info))
  const rows = new BigInt64Array(bytes.buffer)
  const hash = await digest(bytes)
  if (metadata.fitted_sha256 !== undefined && metadata.fitted_sha256 !== hash) {
    throw new Error(`${where}: ${FITTED_TENSOR} is not what was written; fit the heads again`)
  }
  const unit = metadata.unit === undefined ? null : readUnit(metadata.unit, `${where}: unit in the metadata`)
  return { unit, rows, hash }
}

type Regression = Parameters<typeof headsDigest>[0]

/** The file of a model directory. */
export async function encodeFitted(fitted: Fitted, regression: Regression): Promise<Uint8Array[]> {
  const { tensor, metadata } = fittedParts(fitted)
  const { pairs } = fitted
  const own = pairs && ({ name: PAIRS_TENSOR, dtype: 'I64', shape: [pairs.length], data: pairs } as const)
  return encodeSafetensors(own ? [tensor, own] : [tensor], { ...metadata, heads: await headsDigest(regression) })
}

/** Reads the file of a model directory; null where there is none, or it is of other heads. */
export async function readFitted(files: ModelFiles, regression: Regression): Promise<Fitted | null> {
  const source: Source | null = await files.open(FITTED_FILE)
  if (source === null) return null
  try {
    const opened = await openSafetensors(source)
    if (opened.metadata.heads !== (await headsDigest(regression))) return null
    const fitted = await fittedOf(opened, source.name)
    const info = opened.tensors.get(PAIRS_TENSOR)
    if (fitted === null || info?.dtype !== 'I64' || info.shape.length !== 1) return fitted
    return { ...fitted, pairs: new BigInt64Array((await readTensor(info)).buffer) }
  } finally {
    await source.close()
  }
}
