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

/** Fields that say what is scored; all others of a row are labels or unknown. */
export const ROW_FIELDS = ['prompt', 'response', 'messages', 'input_ids', 'gate_position']

/** Reads all rows of an input; see `eachRow`. */
export async function readRows(input: string): Promise<InputRow[]> {
  const rows: InputRow[] = []
  for await (const row of eachRow(input)) rows.push(row)
  return rows
}

/**
 * Yields the rows of a file of JSON Lines, a JSON list (either plain or gzip) or Parquet, or of JSON Lines from a pipe or, for `-`,
 * from standard input. Throws where there are none or they are no objects.
 */
export async function* eachRow(input: string): AsyncGenerator<InputRow> {
  let rows = 0
  for await (const { where, value } of records(input)) {
    rows++
    yield { where, row: value }
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

/** Reads one label. Throws where it is no number or not finite. */
export function readLabel(value: unknown, where: string): number {
  if (typeof value !== 'number') throw new Error(`${where} must be a number or null, got ${show(value)}`)
  // JSON knows no infinity, but 1e999 reads as one; and labels are kept as float32.
  if (!Number.isFinite(Math.fround(value))) throw new Error(`${where} must be a finite float32 number, got ${value}`)
  return value
}

/**
 * A response to a prompt as a row: a text; a list of messages, which is the whole conversation or what comes after the prompt; or a row
 * of its own. The prompt is a text or a list of messages. Throws on others; `what` is what errors call the response.
 */
export function responseRow(prompt: unknown, response: unknown, what: string): unknown {
  if (isObject(response)) return response
  if (typeof response !== 'string' && !Array.isArray(response)) {
    throw new Error(`${what} must be a text, a list of messages or a row, got ${show(response)}`)
  }
  const before = Array.isArray(prompt)
    ? prompt
    : typeof prompt === 'string'
      ? [{ role: 'user', content: prompt }]
      : null
  if (typeof response === 'string') {
    if (before === null) throw new Error(`${what} is a text, so the row needs a "prompt", got ${show(prompt)}`)
    if (typeof prompt === 'string') return { prompt, response }
    return { messages: [...before, { role: 'assistant', content: response }] }
  }
  const whole =
    before === null || (typeof prompt === 'string' ? roleOf(response[0]) !== 'assistant' : begins(response, before))
  return { messages: whole ? response : [...before, ...response] }
}

const roleOf = (message: unknown): unknown => (isObject(message) ? message.role : undefined)

/** Whether a conversation begins with all the messages of another. */
function begins(messages: readonly unknown[], first: readonly unknown[]): boolean {
  const contentOf = (message: unknown) => (isObject(message) ? message.content : undefined)
  return (
    messages.length > first.length &&
    first.every(
      (message, i) => roleOf(message) === roleOf(messages[i]) && contentOf(message) === contentOf(messages[i]),
    )
  )
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
