// Records of a file, whatever it is: JSON Lines, a JSON list (either plain or gzip) or Parquet, told apart by content.
import { gunzip, isGzip } from './gzip.ts'
import { isObject, show } from './json.ts'
import { readJsonList } from './json_list.ts'
import { pieces, readJsonl } from './jsonl.ts'
import { readParquetRecords } from './parquet_records.ts'
import type { Source } from './source.ts'

/** A row with what errors call it. */
export interface FileRecord {
  /** The file and the line, element or row in it, counted from 1. */
  readonly where: string
  readonly value: Record<string, unknown>
}

export interface RecordOptions {
  /** Names of the columns to read; all without it. Columns that the file lacks are absent from the records. */
  readonly columns?: readonly string[]
}

/**
 * Yields the records of a file in order, at most one row group of a Parquet file in memory. Parquet integers and decimals become
 * numbers, dates and times ISO texts (with Z where they are of UTC), lists arrays, structs and maps with text keys objects, other maps
 * lists of `{ key, value }`. Throws, with the file's name, on damaged and cut off files and records that are no objects. A Parquet
 * value that JSON cannot hold (an integer beyond 2^53, a decimal of more than 15 digits, bytes that are no UTF-8) and a column that
 * cannot be read (of an unknown codec, encrypted) throw where they are in `columns`; without `columns` they are not among the
 * enumerable fields of the record, and only reading the field throws.
 */
export async function* readRecords(source: Source, { columns }: RecordOptions = {}): AsyncGenerator<FileRecord> {
  const { name, byteLength } = source
  const head = await source.read(0, Math.min(4, byteLength))
  if (String.fromCharCode(...head) === 'PAR1') {
    yield* readParquetRecords(source, columns)
    return
  }
  const wanted = columns && new Set(columns)
  const chunks = isGzip(head) ? gunzip(pieces(source), name) : pieces(source)
  const { list, all } = await startsList(chunks)
  const found = list ? listRecords(all, name) : lineRecords(all, name)
  for await (const { where, value } of found) {
    if (!isObject(value)) throw new Error(`${where}: a record must be an object, got ${show(value)}`)
    yield { where, value: wanted ? pick(value, wanted) : value }
  }
}

/**
 * Yields rows of JSON Lines, plain or gzip, of something that can be read only once, such as a pipe. Throws as `readRecords`; it is
 * closed when the rows are no longer read.
 */
export async function* streamRecords(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<FileRecord> {
  const all = chunks[Symbol.asyncIterator]()
  const first = await all.next()
  async function* rest() {
    try {
      if (!first.done) yield first.value
      yield* { [Symbol.asyncIterator]: () => all }
    } finally {
      await all.return?.()
    }
  }
  const bytes = !first.done && isGzip(first.value) ? gunzip(rest(), name) : rest()
  for await (const { where, value } of lineRecords(bytes, name)) {
    if (!isObject(value)) throw new Error(`${where}: a row must be an object, got ${show(value)}`)
    yield { where, value }
  }
}

/** Rows in memory as records; errors call the first `row 1`. */
export function* recordsOf(rows: Iterable<Record<string, unknown>>): Generator<FileRecord> {
  let row = 0
  for (const value of rows) yield { where: `row ${++row}`, value }
}

interface Found {
  readonly where: string
  readonly value: unknown
}

async function* listRecords(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Found> {
  for await (const { element, value } of readJsonList(chunks, name))
    yield { where: `${name} element ${element}`, value }
}

async function* lineRecords(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Found> {
  for await (const { line, value } of readJsonl(chunks, name)) yield { where: `${name} line ${line}`, value }
}

/** Says whether the first character is that of a list, and gives all chunks, those that were looked at included. */
async function startsList(
  chunks: AsyncGenerator<Uint8Array>,
): Promise<{ list: boolean; all: AsyncIterable<Uint8Array> }> {
  const seen: Uint8Array[] = []
  let first: number | undefined
  while (first === undefined) {
    const { value, done } = await chunks.next()
    if (done) break
    seen.push(value)
    first = value.find((byte) => ![9, 10, 13, 32, 0xef, 0xbb, 0xbf].includes(byte))
  }
  async function* all() {
    yield* seen
    yield* chunks
  }
  return { list: first === '['.charCodeAt(0), all: all() }
}

function pick(value: Record<string, unknown>, wanted: ReadonlySet<string>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([key]) => wanted.has(key)))
}
