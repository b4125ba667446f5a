// JSON Lines: one JSON value a line, streamed from a source or from standard input, with line numbers for errors.
import { parseJsonRow } from './json.ts'
import { decodeUtf8, joinBytes, type Source } from './source.ts'

export interface JsonLine {
  /** Counted from 1. */
  readonly line: number
  readonly value: unknown
}

const PIECE_BYTES = 4 * 2 ** 20
/** A gzip file of blanks has a thousandth of their length: who reads blanks stops here. */
export const BLANK_LIMIT_BYTES = 2 ** 20
// A row is a conversation; the bound keeps a file without line breaks from being gathered whole.
const LINE_LIMIT_BYTES = 64 * 2 ** 20

/**
 * Yields the values of a JSON Lines file in order. Lines end in LF or CR LF, the last one may lack it; blank lines are
 * accepted at the end only. Throws `NAME line N: ...` on a blank line before others, bytes that are not UTF-8 and text that
 * is not JSON. An empty file yields nothing.
 */
export async function* readJsonl(input: Source | AsyncIterable<Uint8Array>, name: string): AsyncGenerator<JsonLine> {
  let [blank, blankBytes] = [0, 0]
  for await (const { line, bytes } of splitLines('byteLength' in input ? pieces(input) : input, name)) {
    const where = `${name} line ${line}`
    const text = decodeUtf8(bytes, where)
    if (text.trim() === '') {
      if (blank === 0) blank = line
      blankBytes += bytes.length + 1
      if (blankBytes > BLANK_LIMIT_BYTES) {
        throw new Error(`${name} line ${blank}: more than ${BLANK_LIMIT_BYTES} bytes of blanks are there`)
      }
      continue
    }
    if (blank > 0) throw new Error(`${name} line ${blank}: is blank; every line up to the last must hold a JSON value`)
    yield { line, value: parseJsonRow(text, where) }
  }
}

const CHUNK_CHARACTERS = 2 ** 20

/** Encodes values as JSON Lines, about a megabyte at a time. Throws `none` where there is no value. */
export async function* encodeJsonl(values: AsyncIterable<unknown>, none: string): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  let text = ''
  let empty = true
  for await (const value of values) {
    empty = false
    text += `${JSON.stringify(value)}\n`
    if (text.length < CHUNK_CHARACTERS) continue
    yield encoder.encode(text)
    text = ''
  }
  if (empty) throw new Error(none)
  yield encoder.encode(text)
}

/** The bytes of a source in order, a few megabytes at a time. */
export async function* pieces(source: Source): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.byteLength; at += PIECE_BYTES) {
    yield await source.read(at, Math.min(PIECE_BYTES, source.byteLength - at))
  }
}

async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
): AsyncGenerator<{ line: number; bytes: Uint8Array }> {
  let line = 1
  let kept: Uint8Array[] = [] // the beginning of the current line, from earlier chunks
  let keptBytes = 0
  for await (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      yield { line, bytes: joinBytes([...kept, chunk.subarray(start, end)]) }
      kept = []
      keptBytes = 0
      line++
      start = end + 1
    }
    if (start < chunk.length) {
      kept.push(chunk.slice(start)) // a copy: a stream may use its buffer again
      keptBytes += chunk.length - start
    }
    if (keptBytes > LINE_LIMIT_BYTES) throw new Error(`${name} line ${line}: is longer than ${LINE_LIMIT_BYTES} bytes`)
  }
  if (keptBytes > 0) yield { line, bytes: joinBytes(kept) }
}
