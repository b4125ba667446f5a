// What readers of feature files have in common: features read by blocks of rows, stored numbers, the choice of columns.
import { printable, show } from './json.ts'
import { type SafetensorsDType, type TensorInfo, widenBF16, widenF16 } from './safetensors.ts'
import type { Source } from './source.ts'

/** Features [rows, columns] that are read by blocks of rows, so that they need not be in memory as a whole. */
export interface FeatureBlocks {
  /** What errors call it: the file. */
  readonly name: string
  readonly rows: number
  readonly columns: number
  readonly dtype: 'f32' | 'bf16'
  /** Rows [firstRow, firstRow + count), row-major: float32, or the bits of bfloat16. Throws where one is not finite. */
  read(firstRow: number, count: number): Promise<Float32Array | Uint16Array>
}

/** Features in memory as blocks; throws where their number is not rows x columns. `name` is what errors call them. */
export function memoryBlocks(
  name: string,
  {
    data,
    rows,
    columns,
  }: { readonly data: Float32Array | Uint16Array; readonly rows: number; readonly columns: number },
): FeatureBlocks {
  if (data.length !== rows * columns) {
    throw new Error(`${name}: features of ${rows} x ${columns} must have ${rows * columns} values, got ${data.length}`)
  }
  return {
    name,
    rows,
    columns,
    dtype: data instanceof Uint16Array ? 'bf16' : 'f32',
    async read(first, count) {
      const block = data.subarray(first * columns, (first + count) * columns)
      const bad = nonFinite(block)
      if (bad === null) return block
      const [row, column] = [first + Math.floor(bad.at / columns), bad.at % columns]
      throw new Error(`${name}: features must be finite, row ${row}, column ${column} is ${bad.value}`)
    },
  }
}

/** A table with named columns: features, labels and weights, one line a row. */
export interface Table {
  readonly features: FeatureBlocks
  /** Names of the feature columns [D]. */
  readonly columns: string[]
  /** [N, M]; NaN where a cell is empty. */
  readonly labels: Float32Array
  /** [N]; null where no column was named. */
  readonly weights: Float32Array | null
  /** Lets go of what is kept in memory; the features can no longer be read. */
  release(): void
}

/** Which columns of a table are what; without `columns` all that are neither labels nor weights are features. */
export interface ColumnChoice {
  readonly labels: readonly string[]
  readonly weights?: string
  readonly columns?: readonly string[]
}

/** Positions of the chosen columns in a table; `weights` is -1 where there are none. */
export interface ChosenColumns {
  readonly features: number[]
  readonly labels: number[]
  readonly weights: number
}

/** The solver's limit for features, which are in WebAssembly memory. */
export const FEATURE_LIMIT_BYTES = 4 * 2 ** 30

/** What an error about a column that is no feature advises. */
export const CHOOSE = 'choose the feature columns with --columns a,b,c'

// How pandas calls an index without a name when it writes Parquet.
const INDEX_COLUMN = /^__index_level_\d+__$/

/** Finds the chosen columns among `names`. Throws on names that are missing or there twice, and where no feature is left. */
export function chooseColumns(names: readonly string[], choice: ColumnChoice, file: string): ChosenColumns {
  const places = new Map<string, number>()
  for (const [at, name] of names.entries()) {
    if (name !== '' && places.has(name)) throw new Error(`${file}: column ${show(name)} is there twice`)
    places.set(name, at)
  }
  const find = (name: string, option: string) => {
    const at = places.get(name)
    if (at === undefined || name === '') {
      throw new Error(`${file}: has no column ${show(name)} (${option}), it has ${list(names)}`)
    }
    return at
  }
  const labels = choice.labels.map((name) => find(name, '--labels'))
  const weights = choice.weights === undefined ? -1 : find(choice.weights, '--weights')
  if (labels.includes(weights)) throw new Error(`${file}: column ${show(names[weights])} is in --labels and --weights`)
  const taken = new Set([...labels, weights])
  if (choice.columns) {
    const features = choice.columns.map((name) => find(name, '--columns'))
    const both = features.find((at) => taken.has(at))
    if (both !== undefined) {
      throw new Error(`${file}: column ${show(names[both])} is in --columns and in --labels or --weights`)
    }
    return { features, labels, weights }
  }
  const features: number[] = []
  for (const [at, name] of names.entries()) {
    if (taken.has(at)) continue
    if (name === '') throw new Error(`${file}: column ${at + 1} has no name, so it may be an index; ${CHOOSE}`)
    if (INDEX_COLUMN.test(name)) throw new Error(`${file}: column ${show(name)} is an index; ${CHOOSE}`)
    if (printable(name) !== name) throw new Error(`${file}: column ${show(name)} has control characters; ${CHOOSE}`)
    features.push(at)
  }
  if (features.length === 0) throw new Error(`${file}: has no feature columns beside ${list(names)}`)
  return { features, labels, weights }
}

const LISTED = 8

function list(names: readonly string[]): string {
  const shown = names.slice(0, LISTED).map(show).join(', ')
  return names.length > LISTED ? `${shown} and ${names.length - LISTED} more` : shown
}

/** How numbers are stored in a file, little-endian. */
export type NumberType = 'f16' | 'bf16' | 'f32' | 'f64' | 'i8' | 'u8' | 'i16' | 'u16' | 'i32' | 'u32' | 'i64' | 'u64'

/** An array of numbers in a file, row-major, from byte `begin` of `source`. */
export interface StoredArray {
  /** What errors call it: the file and, where it has several, the array. */
  readonly name: string
  readonly type: NumberType
  readonly shape: readonly number[]
  readonly begin: number
  readonly source: Source
}

const TYPE_BYTES: Record<NumberType, number> = {
  f16: 2,
  bf16: 2,
  f32: 4,
  f64: 8,
  i8: 1,
  u8: 1,
  i16: 2,
  u16: 2,
  i32: 4,
  u32: 4,
  i64: 8,
  u64: 8,
}

/** Bytes of one number. */
export function typeBytes(type: NumberType): number {
  return TYPE_BYTES[type]
}

/** The tensor of a safetensors file as a stored array. Throws unless it holds numbers of the types in `allowed`. */
export function tensorArray(
  { name, dtype, shape, begin, source }: TensorInfo,
  allowed: readonly SafetensorsDType[],
): StoredArray {
  if (!allowed.includes(dtype)) {
    throw new Error(`${source.name}: ${name} must be one of ${allowed.join(', ')}, got ${dtype}`)
  }
  return { name: `${source.name}: ${name}`, type: dtype.toLowerCase() as NumberType, shape, begin, source }
}

/** Reads `count` numbers from the number `first` on as float32, rounded where they are wider. */
export async function readFloats(array: StoredArray, first: number, count: number): Promise<Float32Array> {
  const { type, begin, source } = array
  const size = TYPE_BYTES[type]
  const { buffer } = await source.read(begin + first * size, count * size)
  if (type === 'f32') return new Float32Array(buffer, 0, count)
  const values = new Float32Array(count)
  if (type === 'f64') values.set(new Float64Array(buffer, 0, count))
  else if (type === 'f16') widenF16(new Uint16Array(buffer, 0, count), values)
  else if (type === 'bf16') widenBF16(new Uint16Array(buffer, 0, count), values)
  else if (type === 'i64' || type === 'u64') {
    const wide = type === 'i64' ? new BigInt64Array(buffer, 0, count) : new BigUint64Array(buffer, 0, count)
    for (let i = 0; i < count; i++) values[i] = Number(wide[i])
  } else values.set(integers(type, buffer, count))
  return values
}

type NarrowInteger = 'i8' | 'u8' | 'i16' | 'u16' | 'i32' | 'u32'

function integers(type: NarrowInteger, buffer: ArrayBuffer, count: number): ArrayLike<number> {
  if (type === 'i8') return new Int8Array(buffer, 0, count)
  if (type === 'u8') return new Uint8Array(buffer, 0, count)
  if (type === 'i16') return new Int16Array(buffer, 0, count)
  if (type === 'u16') return new Uint16Array(buffer, 0, count)
  return type === 'i32' ? new Int32Array(buffer, 0, count) : new Uint32Array(buffer, 0, count)
}

/** Reads a whole array [L] of row numbers, each below `rows`. Throws where one is not, and on types that are no integers. */
export async function readRowNumbers(array: StoredArray, rows: number): Promise<Uint32Array> {
  const { name, type, begin, source, shape } = array
  if (shape.length !== 1) throw new Error(`${name} must have one dimension, got ${show(shape)}`)
  if (type === 'f16' || type === 'bf16' || type === 'f32' || type === 'f64') {
    throw new Error(`${name} must hold integers, got ${type}`)
  }
  const { buffer } = await source.read(begin, shape[0] * TYPE_BYTES[type])
  let values: ArrayLike<number | bigint>
  if (type === 'i64') values = new BigInt64Array(buffer, 0, shape[0])
  else if (type === 'u64') values = new BigUint64Array(buffer, 0, shape[0])
  else values = integers(type, buffer, shape[0])
  const numbers = new Uint32Array(shape[0])
  for (let i = 0; i < numbers.length; i++) {
    if (!(values[i] >= 0 && values[i] < rows)) {
      throw new Error(`${name} must be below the ${rows} rows of the features, entry ${i} is ${values[i]}`)
    }
    numbers[i] = Number(values[i])
  }
  return numbers
}

/** Features [N, D] in a file as blocks: bfloat16 as it is, everything else as float32. */
export function arrayBlocks(array: StoredArray): FeatureBlocks {
  const { name, type, begin, source } = array
  const [rows, columns] = array.shape
  return {
    name: source.name,
    rows,
    columns,
    dtype: type === 'bf16' ? 'bf16' : 'f32',
    async read(firstRow, count) {
      let block: Float32Array | Uint16Array
      if (type === 'bf16') {
        const { buffer } = await source.read(begin + firstRow * columns * 2, count * columns * 2)
        block = new Uint16Array(buffer, 0, count * columns)
      } else block = await readFloats(array, firstRow * columns, count * columns)
      const bad = nonFinite(block)
      if (bad === null) return block
      throw new Error(`${name} must be finite, row ${firstRow + Math.floor(bad.at / columns)} has ${bad.value}`)
    },
  }
}

/**
 * Features of the same columns, one after the other, as one: bfloat16 where all are, else float32. Throws where there are none,
 * and where columns differ.
 */
export function concatBlocks(parts: readonly FeatureBlocks[], name: string): FeatureBlocks {
  if (parts.length === 1) return parts[0]
  const columns = parts[0]?.columns
  const other = parts.find((part) => part.columns !== columns)
  if (columns === undefined || other) {
    throw new Error(`${name}: features must all be of ${columns} columns, got ${other?.columns ?? 'none'}`)
  }
  const dtype = parts.every((part) => part.dtype === 'bf16') ? 'bf16' : 'f32'
  const rows = parts.reduce((sum, part) => sum + part.rows, 0)
  return {
    name,
    rows,
    columns,
    dtype,
    async read(firstRow, count) {
      const block = dtype === 'bf16' ? new Uint16Array(count * columns) : new Float32Array(count * columns)
      let first = 0
      for (const part of parts) {
        const begin = Math.max(firstRow, first)
        const end = Math.min(firstRow + count, first + part.rows)
        if (begin < end) {
          const read = await part.read(begin - first, end - begin)
          const target = block.subarray((begin - firstRow) * columns, (end - firstRow) * columns)
          if (read instanceof Uint16Array && target instanceof Float32Array) widenBF16(read, target)
          else target.set(read)
        }
        first += part.rows
      }
      return block
    },
  }
}

/** Where the first value that is not finite stands, and what it is; null where all are. */
function nonFinite(block: Float32Array | Uint16Array): { readonly at: number; readonly value: number } | null {
  const at = block instanceof Uint16Array ? firstNonFinite16(block) : firstNonFinite32(block)
  if (at < 0) return null
  return { at, value: block instanceof Uint16Array ? widened(block[at]) : block[at] }
}

// NaN * 0 and Infinity * 0 are NaN: one test for many values.
function firstNonFinite32(values: Float32Array): number {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i] * 0
  return sum === 0 ? -1 : values.findIndex((value) => !Number.isFinite(value))
}

function firstNonFinite16(bits: Uint16Array): number {
  for (let i = 0; i < bits.length; i++) if ((bits[i] & 0x7f80) === 0x7f80) return i
  return -1
}

function widened(bits: number): number {
  const value = new Float32Array(1)
  widenBF16(Uint16Array.of(bits), value)
  return value[0]
}
