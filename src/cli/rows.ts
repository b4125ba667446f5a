// Rows of an input: a file, a pipe, or standard input.
import { openInput } from '../files/disk.ts'
import { type FileRecord, readRecords, streamRecords } from '../files/records.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Reads all rows of inputs; see `eachRow`. */
export async function readRows(inputs: readonly string[]): Promise<FileRecord[]> {
  const rows: FileRecord[] = []
  for (const input of inputs) for await (const row of eachRow(input)) rows.push(row)
  return rows
}

/**
 * Yields the rows of JSON Lines or a JSON list, either plain or gzip, in a file, a pipe or, for `-`, standard input, or of a Parquet
 * file. Throws where there are none or they are no objects.
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
