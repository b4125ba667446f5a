// The pages of a column in a row group: their headers, levels and values, all of it checked against the bytes there are.
import type { ColumnMetaData, ParquetType } from 'hyparquet'
import { crc32 } from './crc32.ts'
import { isCodec, unpackPage } from './parquet_codecs.ts'
import {
  joinStreams,
  PageReader,
  readDeltas,
  readLengthStrings,
  readPrefixStrings,
  readRuns,
} from './parquet_encodings.ts'
import { type LeafField, Unsupported } from './parquet_schema.ts'
import { readStruct } from './parquet_thrift.ts'

/** Values of one type as they are stored; booleans are 0 and 1, texts, decimals and INT96 are bytes. */
export type Stored = Int32Array | BigInt64Array | Float32Array | Float64Array | Uint8Array | Uint8Array[]

/** The values of a column in a row group. */
export interface ColumnValues {
  /** One definition level an entry, or null where every entry has a value. */
  readonly definition: Uint8Array | null
  /** One repetition level an entry, or null where every entry is a row. */
  readonly repetition: Uint8Array | null
  readonly entries: number
  /** What `convert` made of the values, without the entries that have none. */
  readonly values: unknown[]
}

/** Reads a column chunk from its bytes. `convert` is called once for each value of a dictionary, or for each value. */
export async function readColumn(
  bytes: Uint8Array,
  leaf: LeafField,
  chunk: ColumnMetaData,
  convert: (stored: number | bigint | Uint8Array) => unknown,
): Promise<ColumnValues> {
  const entries = Number(chunk.num_values)
  const definition = leaf.present > 0 ? new Uint8Array(entries) : null
  const repetition = leaf.repeated > 0 ? new Uint8Array(entries) : null
  const values: unknown[] = []
  if (chunk.codec === undefined || !isCodec(chunk.codec)) {
    throw new Unsupported(`is packed with ${chunk.codec ?? 'an unknown codec'}, which is not read`)
  }
  let dictionary: unknown[] | null = null
  const reader = new PageReader(bytes)
  for (let read = 0; read < entries; ) {
    if (reader.at >= reader.end) throw new Error(`its pages end after ${read} of ${entries} values`)
    const header = readHeader(reader)
    const begin = reader.take(header.packed)
    const packed = bytes.subarray(begin, begin + header.packed)
    if (header.crc !== null && crc32(packed) !== header.crc) throw new Error('the checksum of a page is wrong')
    if (header.kind === INDEX_PAGE) continue
    if (header.kind === DICTIONARY_PAGE) {
      if (dictionary) throw new Error('it has two dictionaries')
      const page = await unpackPage(chunk.codec, packed, header.unpacked)
      dictionary = []
      append(dictionary, readPlain(new PageReader(page), leaf, header.values), convert)
      continue
    }
    if (!(header.values >= 0 && header.values <= entries - read)) {
      throw new Error(`a page has ${header.values} values, ${entries - read} are missing`)
    }
    const next = read + header.values
    const page = await readPage(header, packed, chunk.codec, leaf)
    readLevels(page.repetition, leaf.repeated, repetition?.subarray(read, next))
    readLevels(page.definition, leaf.present, definition?.subarray(read, next))
    const count = definition ? countLevel(definition, read, next, leaf.present) : header.values
    if (isDictionary(header.encoding)) {
      if (count > 0 && !dictionary) throw new Error('a page needs a dictionary, and none is before it')
      lookUp(values, readIndices(page.values, count), dictionary ?? [])
    } else append(values, readValues(page.values, leaf, header.encoding, count), convert)
    read = next
  }
  return { definition, repetition, entries, values }
}

function append(values: unknown[], stored: Stored, convert: (stored: number | bigint | Uint8Array) => unknown): void {
  for (let i = 0; i < stored.length; i++) values.push(convert(stored[i]))
}

function lookUp(values: unknown[], indices: Uint32Array, dictionary: readonly unknown[]): void {
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i]
    if (index >= dictionary.length) {
      throw new Error(`value ${index} of a dictionary of ${dictionary.length} is asked for`)
    }
    values.push(dictionary[index])
  }
}

function countLevel(levels: Uint8Array, from: number, to: number, level: number): number {
  let count = 0
  for (let i = from; i < to; i++) if (levels[i] === level) count++
  return count
}

const [DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2] = [0, 1, 2, 3]
const ENCODINGS = [
  'PLAIN',
  'GROUP_VAR_INT',
  'PLAIN_DICTIONARY',
  'RLE',
  'BIT_PACKED',
  'DELTA_BINARY_PACKED',
  'DELTA_LENGTH_BYTE_ARRAY',
  'DELTA_BYTE_ARRAY',
  'RLE_DICTIONARY',
  'BYTE_STREAM_SPLIT',
]

function isDictionary(encoding: string): boolean {
  return encoding === 'PLAIN_DICTIONARY' || encoding === 'RLE_DICTIONARY'
}

interface PageHeader {
  readonly kind: number
  readonly packed: number
  readonly unpacked: number
  readonly crc: number | null
  readonly values: number
  readonly encoding: string
  /** Of the first version: encodings of the levels. Old writers name one where there are no levels. */
  readonly definition: string
  readonly repetition: string
  /** Of the second version: bytes of the levels, which are not packed, and whether the values are. */
  readonly levels: { readonly repetition: number; readonly definition: number; readonly packed: boolean } | null
}

/** Numbers of the fields of PageHeader and what it holds, in parquet.thrift of the format. */
function readHeader(reader: PageReader): PageHeader {
  const fields = readStruct(reader)
  const number = (value: unknown) => (typeof value === 'number' ? value : -1)
  const kind = number(fields[1])
  const inner = fields[kind === DATA_PAGE ? 5 : kind === DICTIONARY_PAGE ? 7 : kind === DATA_PAGE_V2 ? 8 : 6]
  const page = typeof inner === 'object' ? inner : null
  if (page === null && kind !== INDEX_PAGE) throw new Error(`a page has no header of its kind, ${kind}`)
  const [unpacked, packed] = [number(fields[2]), number(fields[3])]
  const second = kind === DATA_PAGE_V2
  return {
    kind,
    packed,
    unpacked,
    crc: typeof fields[4] === 'number' ? fields[4] >>> 0 : null,
    values: number(page?.[1]),
    encoding: ENCODINGS[number(page?.[second ? 4 : 2])] ?? 'unknown',
    definition: ENCODINGS[number(page?.[3])] ?? 'unknown',
    repetition: ENCODINGS[number(page?.[4])] ?? 'unknown',
    levels: second ? { definition: number(page![5]), repetition: number(page![6]), packed: page![7] !== false } : null,
  }
}

interface PageParts {
  readonly repetition: PageReader | null
  readonly definition: PageReader | null
  readonly values: PageReader
}

/** Unpacks a page. In the first version the levels are packed with the values, and their length is before them. */
async function readPage(header: PageHeader, packed: Uint8Array, codec: string, leaf: LeafField): Promise<PageParts> {
  const { levels } = header
  if (!levels) {
    const values = new PageReader(await unpackPage(codec, packed, header.unpacked))
    const repetition = leaf.repeated > 0 ? levelsOf(header.repetition, values) : null
    return { repetition, definition: leaf.present > 0 ? levelsOf(header.definition, values) : null, values }
  }
  const reader = new PageReader(packed)
  const repetition = reader.take(levels.repetition)
  const definition = reader.take(levels.definition)
  const rest = packed.subarray(reader.at)
  const length = header.unpacked - reader.at
  return {
    repetition: new PageReader(packed.subarray(repetition, definition)),
    definition: new PageReader(packed.subarray(definition, reader.at)),
    values: new PageReader(await unpackPage(levels.packed ? codec : 'UNCOMPRESSED', rest, length)),
  }
}

function levelsOf(encoding: string, page: PageReader): PageReader {
  if (encoding === 'RLE') return measured(page)
  throw new Unsupported(`has levels in the encoding ${encoding}, which is not read`)
}

/** The bytes after a length of four bytes. */
function measured(reader: PageReader): PageReader {
  const length = reader.view.getUint32(reader.take(4), true)
  const from = reader.take(length)
  return new PageReader(reader.bytes.subarray(from, from + length))
}

/** Reads levels of at most `highest` into `levels`, one an entry. */
function readLevels(reader: PageReader | null, highest: number, levels: Uint8Array | undefined): void {
  if (!reader || !levels) return
  readRuns(reader, 32 - Math.clz32(highest), levels)
  for (const level of levels) {
    if (level > highest) throw new Error(`a level is ${level}, the schema allows ${highest}`)
  }
}

function readIndices(reader: PageReader, count: number): Uint32Array {
  const indices = new Uint32Array(count)
  if (count > 0) readRuns(reader, reader.bytes[reader.take(1)], indices)
  return indices
}

const BYTES: Partial<Record<ParquetType, number>> = { INT32: 4, INT64: 8, INT96: 12, FLOAT: 4, DOUBLE: 8 }

function sizeOf({ element }: LeafField): number | undefined {
  return element.type === 'FIXED_LEN_BYTE_ARRAY' ? (element.type_length ?? 0) : BYTES[element.type!]
}

function readPlain(reader: PageReader, leaf: LeafField, count: number): Stored {
  const { type } = leaf.element
  if (type === 'BOOLEAN') {
    const from = reader.take(Math.ceil(count / 8))
    return Uint8Array.from({ length: count }, (_, i) => (reader.bytes[from + (i >> 3)] >> (i & 7)) & 1)
  }
  const size = sizeOf(leaf)
  if (size !== undefined) {
    const from = reader.take(count * size)
    return typed(reader.bytes.slice(from, reader.at), leaf, count, size)
  }
  const strings: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const length = reader.view.getUint32(reader.take(4), true)
    const from = reader.take(length)
    strings.push(reader.bytes.subarray(from, from + length))
  }
  return strings
}

/** Bytes of `count` values of one size as values of their type. */
function typed(bytes: Uint8Array<ArrayBuffer>, { element }: LeafField, count: number, size: number): Stored {
  const { buffer } = bytes
  if (element.type === 'INT32') return new Int32Array(buffer, 0, count)
  if (element.type === 'INT64') return new BigInt64Array(buffer, 0, count)
  if (element.type === 'FLOAT') return new Float32Array(buffer, 0, count)
  if (element.type === 'DOUBLE') return new Float64Array(buffer, 0, count)
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * size, (i + 1) * size))
}

function readValues(reader: PageReader, leaf: LeafField, encoding: string, count: number): Stored {
  const { type } = leaf.element
  if (count === 0) return []
  if (encoding === 'PLAIN') return readPlain(reader, leaf, count)
  const isText = type === 'BYTE_ARRAY'
  if (encoding === 'RLE' && type === 'BOOLEAN') {
    const values = new Uint8Array(count)
    readRuns(measured(reader), 1, values)
    return values
  }
  if (encoding === 'DELTA_BINARY_PACKED' && (type === 'INT32' || type === 'INT64')) {
    const values = type === 'INT32' ? new Int32Array(count) : new BigInt64Array(count)
    readDeltas(reader, values)
    return values
  }
  if (encoding === 'DELTA_LENGTH_BYTE_ARRAY' && isText) return readLengthStrings(reader, count)
  if (encoding === 'DELTA_BYTE_ARRAY' && (isText || type === 'FIXED_LEN_BYTE_ARRAY')) {
    const strings = readPrefixStrings(reader, count)
    const other = isText ? undefined : strings.find(({ length }) => length !== sizeOf(leaf))
    if (other) throw new Error(`a value has ${other.length} bytes, the schema says ${sizeOf(leaf)}`)
    return strings
  }
  const size = sizeOf(leaf)
  if (encoding === 'BYTE_STREAM_SPLIT' && size !== undefined && type !== 'INT96') {
    return typed(joinStreams(reader, count, size), leaf, count, size)
  }
  throw new Unsupported(`has values of type ${type} in the encoding ${encoding}, which is not read`)
}
