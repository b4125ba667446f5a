// Rows of an input: a file, a pipe, or standard input.
import { joinRatings } from '../data/long_ratings.ts'
import { openInput } from '../files/disk.ts'
import { type FileRecord, readRecords, streamRecords } from '../files/records.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Reads all rows of inputs; see `eachRow`. */
export async function readRows(inputs: readonly string[]): Promise<FileRecord[]> {
  const rows: FileRecord[] = []
  for await (const row of eachRow(...inputs)) rows.push(row)
  return rows
}

/**
 * Yields the rows of inputs: files of JSON Lines, a JSON list (either plain or gzip), Parquet or CSV, or JSON Lines or a list from a pipe
 * or, for `-`, from standard input. Ratings in long form come together. Throws where an input has no rows or they are no objects.
 */
export function eachRow(...inputs: string[]): AsyncGenerator<FileRecord> {
  return joinRatings(inputs.map(rowsOf))
}

async function* rowsOf(input: string): AsyncGenerator<FileRecord> {
  let rows = 0
  for await (const record of records(input)) {
    rows++
    yield record
  }
  const name = input === '-' ? 'standard input' : input
  if (rows === 0) throw new Error(`${name}: has no rows; give one JSON object a line`)
}

async function* records(input: string): AsyncGenerator<FileRecord> {
  if (input === '-') return yield* streamRecords(process.stdin, 'standard input')
  // By its name it cannot be opened where it is a socket.
  if (input === '/dev/stdin') return yield* streamRecords(process.stdin, input)
  // Opening a pipe may wait for a writer, in a call that only the system can end.
  const source = await withoutInterruptHandler(() => openInput(input))
  if (!('byteLength' in source)) return yield* streamRecords(source, input)
  try {
    yield* readRecords(source)
  } finally {
    await source.close()
  }
}
