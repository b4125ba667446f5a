// Rows of an input file: read with their line numbers, and encoded by the model.
import { openInput } from '../files/disk.ts'
import { gunzip, isGzip } from '../files/gzip.ts'
import { isObject, show } from '../files/json.ts'
import { readJsonl } from '../files/jsonl.ts'
import { type FileRecord, readRecords } from '../files/records.ts'
import type { FeatureModel } from '../reward/features.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { withoutInterruptHandler } from './signals.ts'

/** A row as it was given, with what errors call it. */
export interface InputRow {
  readonly where: string
  readonly row: Record<string, unknown>
}

/** Reads all rows of an input; see `eachRow`. */
export async function readRows(input: string): Promise<InputRow[]> {
  const rows: InputRow[] = []
  for await (const { where, value } of eachRow(input)) rows.push({ where, row: value })
  return rows
}

/**
 * Yields the rows of a file of JSON Lines, a JSON list (either plain or gzip) or Parquet, or of JSON Lines from a pipe or, for `-`,
 * from standard input. Throws where there are none or they are no objects.
 */
export async function* eachRow(input: string): AsyncGenerator<FileRecord> {
  let rows = 0
  for await (const record of records(input)) {
    rows++
    yield record
  }
  const name = input === '-' ? 'standard input' : input
  if (rows === 0) throw new Error(`${name}: has no rows; give one JSON object a line`)
}

async function* records(input: string): AsyncGenerator<FileRecord> {
  if (input === '-') return yield* streamed(process.stdin, 'standard input')
  // By its name it cannot be opened where it is a socket.
  if (input === '/dev/stdin') return yield* streamed(process.stdin, input)
  // Opening a pipe may wait for a writer, in a call that only the system can end.
  const source = await withoutInterruptHandler(() => openInput(input))
  if (!('byteLength' in source)) return yield* streamed(source, input)
  try {
    yield* readRecords(source)
  } finally {
    await source.close()
  }
}

/** JSON Lines, plain or gzip, of something that can be read only once. */
async function* streamed(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<FileRecord> {
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
  for await (const { line, value } of readJsonl(bytes, name)) {
    const where = `${name} line ${line}`
    if (!isObject(value)) throw new Error(`${where}: a row must be an object, got ${show(value)}`)
    yield { where, value }
  }
}

/** Checks and encodes every row before any is computed; with `gate`, each must have a gate position. */
export function encodeAll(model: FeatureModel, rows: readonly InputRow[], gate: boolean): EncodedRow[] {
  return rows.map(({ where, row }) => {
    try {
      return model.encode(row, { gate })
    } catch (error) {
      throw new Error(where === '' ? (error as Error).message : `${where}: ${(error as Error).message}`)
    }
  })
}
