// Records of a file, whatever it is: JSON Lines, a JSON list (either plain or gzip) or Parquet, told apart by content, or CSV
// by its name.
import { csvRecords } from './csv_records.ts'
import { gunzip, isGzip } from './gzip.ts'
import { isObject, show } from './json.ts'
import { readJsonList } from './json_list.ts'
import { BLANK_LIMIT_BYTES, pieces, readJsonl } from './jsonl.ts'
import { readParquetRecords } from './parquet_records.ts'
import { joinBytes, type Source } from './source.ts'

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
  if (isParquet(head)) {
    yield* readParquetRecords(source, columns)
    return
  }
  const wanted = columns && new Set(columns)
  const chunks = isGzip(head) ? gunzip(pieces(source), name) : pieces(source)
  const [, separated] = /\.(csv|tsv)(?:\.gz)?$/i.exec(name) ?? []
  const found = separated
    ? csvRecords(chunks, name, separated.toLowerCase() === 'tsv' ? '\t' : ',')
    : textRecords(chunks, name)
  for await (const { where, value } of found) yield { where, value: wanted ? pick(value, wanted) : value }
}

/**
 * Yields rows of JSON Lines or a JSON list, plain or gzip, of something that can be read only once, such as a pipe. Throws as
 * `readRecords`; it is closed when the rows are no longer read.
 */
export async function* streamRecords(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<FileRecord> {
  const all = chunks[Symbol.asyncIterator]()
  // A pipe may give its bytes one by one.
  let head = new Uint8Array(0)
  try {
    while (head.length < 4) {
      const { value, done } = await all.next()
      if (done) break
      head = new Uint8Array(joinBytes([head, value]))
    }
  } catch (error) {
    await all.return?.()
    throw error
  }
  async function* whole() {
    try {
      yield head
      yield* { [Symbol.asyncIterator]: () => all }
    } finally {
      await all.return?.()
    }
  }
  if (isParquet(head)) {
    await all.return?.()
    throw new Error(`${name}: holds Parquet, which is read from its end; give the file itself`)
  }
  yield* textRecords(isGzip(head) ? gunzip(whole(), name) : whole(), name)
}

/** Records of JSON Lines or a JSON list. */
async function* textRecords(chunks: AsyncGenerator<Uint8Array>, name: string): AsyncGenerator<FileRecord> {
  try {
    const { list, all } = await startsList(chunks, name)
    for await (const { where, value } of list ? listRecords(all, name) : lineRecords(all, name)) {
      if (!isObject(value)) throw new Error(`${where}: a row must be an object, got ${show(value)}`)
      yield { where, value }
    }
  } finally {
    await chunks.return(undefined)
  }
}

/** Rows in memory as records; errors call the first `row 1`. */
export function* recordsOf(rows: Iterable<Record<string, unknown>>): Generator<FileRecord> {
  let row = 0
  for (const value of rows) yield { where: `row ${++row}`, value }
}

function isParquet(head: Uint8Array): boolean {
  return String.fromCharCode(...head.subarray(0, 4)) === 'PAR1'
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
  name: string,
): Promise<{ list: boolean; all: AsyncIterable<Uint8Array> }> {
  const seen: Uint8Array[] = []
  let first: number | undefined
  let bytes = 0
  while (first === undefined) {
    const { value, done } = await chunks.next()
    if (done) break
    if (bytes > BLANK_LIMIT_BYTES)
      throw new Error(`${name}: begins with more than ${BLANK_LIMIT_BYTES} bytes of blanks`)
    seen.push(value)
    bytes += value.length
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
