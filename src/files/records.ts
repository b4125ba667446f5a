// Records of a file, whatever it is: JSON Lines, a JSON list (either plain or gzip) or Parquet, told apart by content, or CSV by its name.
import { parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { csvRecords } from './csv_records.ts'
import { gunzip, isGzip } from './gzip.ts'
import { isObject, show } from './json.ts'
import { readJsonList } from './json_list.ts'
import { pieces, readJsonl } from './jsonl.ts'
import { guarded, openParquetFile, rowGroup } from './parquet_file.ts'
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
 * Yields the records of a file in order, at most one row group of a Parquet file in memory. Parquet integers become numbers, dates
 * ISO texts, lists arrays and structs objects. Throws, with the file's name, on damaged and cut off files, records that are no
 * objects and integers beyond 2^53.
 */
export async function* readRecords(source: Source, { columns }: RecordOptions = {}): AsyncGenerator<FileRecord> {
  const { name, byteLength } = source
  const head = await source.read(0, Math.min(4, byteLength))
  if (String.fromCharCode(...head) === 'PAR1') {
    yield* readParquet(source, columns)
    return
  }
  const wanted = columns && new Set(columns)
  const chunks = isGzip(head) ? gunzip(pieces(source), name) : pieces(source)
  const [, separated] = /\.(csv|tsv)(?:\.gz)?$/i.exec(name) ?? []
  if (separated !== undefined) {
    const separator = separated.toLowerCase() === 'tsv' ? '\t' : ','
    for await (const { where, value } of csvRecords(chunks, name, separator))
      yield { where, value: wanted ? pick(value, wanted) : value }
    return
  }
  const { list, all } = await startsList(chunks)
  const found = list ? listRecords(all, name) : lineRecords(all, name)
  for await (const { where, value } of found) {
    if (!isObject(value)) throw new Error(`${where}: a record must be an object, got ${show(value)}`)
    yield { where, value: wanted ? pick(value, wanted) : value }
  }
}

/**
 * Yields rows of JSON Lines or of a JSON list, plain or gzip, of something that can be read only once, such as a pipe. Throws as
 * `readRecords`; it is closed when the rows are no longer read.
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
  const { list, all: whole } = await startsList(bytes)
  for await (const { where, value } of list ? listRecords(whole, name) : lineRecords(whole, name)) {
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
    try {
      yield* seen
      yield* chunks
    } finally {
      await chunks.return(undefined)
    }
  }
  return { list: first === '['.charCodeAt(0), all: all() }
}

function pick(value: Record<string, unknown>, wanted: ReadonlySet<string>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([key]) => wanted.has(key)))
}

async function* readParquet(source: Source, columns?: readonly string[]): AsyncGenerator<FileRecord> {
  const file = await openParquetFile(source)
  const { name, buffer, starts, elements } = file
  const names = elements.map((element) => element.name)
  const twice = names.find((column, i) => names.indexOf(column) !== i)
  if (twice !== undefined) throw new Error(`${name}: column ${show(twice)} is there twice`)
  const wanted = columns ? names.filter((column) => columns.includes(column)) : names
  for (let group = 0; group + 1 < starts.length; group++) {
    const rows = starts[group + 1] - starts[group]
    const values = await guarded(name, `row group ${group + 1}`, async () => {
      if (rows === 0 || wanted.length === 0) return Array.from({ length: rows }, () => ({}))
      const metadata = rowGroup(file, group)
      const found = await parquetReadObjects({ file: buffer, metadata, columns: [...wanted], compressors })
      if (found.length !== rows) throw new Error(`it has ${found.length} rows, ${rows} are announced`)
      return found
    })
    for (const [i, value] of values.entries()) {
      const where = `${name} row ${starts[group] + i + 1}`
      yield { where, value: plain(value, where) as Record<string, unknown> }
    }
  }
}

/** Values as JSON has them. */
function plain(value: unknown, where: string): unknown {
  if (typeof value === 'bigint') {
    if (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER) return Number(value)
    throw new Error(`${where}: the integer ${value} is beyond 2^53`)
  }
  if (value === undefined) return null
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map((inner) => plain(inner, where))
  if (ArrayBuffer.isView(value)) return value instanceof Uint8Array ? value : Array.from(value as Float64Array)
  const entries = Object.entries(value).map(([key, inner]) => [key, plain(inner, where)])
  return Object.fromEntries(entries)
}
