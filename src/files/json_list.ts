// A JSON file that holds one list, streamed element by element: files of rows are larger than the longest string.
import { parseJsonRow } from './json.ts'
import { BLANK_LIMIT_BYTES } from './jsonl.ts'
import { decodeUtf8, joinBytes } from './source.ts'

// One element is one row: the bound of a line of JSON Lines.
const ELEMENT_LIMIT_BYTES = 64 * 2 ** 20

/**
 * Yields the elements of the JSON list in `chunks` with their numbers, counted from 1. Throws `NAME element N: ...` on elements
 * that are not JSON, and `NAME: ...` on anything but one list.
 */
export async function* readJsonList(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
): AsyncGenerator<{ element: number; value: unknown }> {
  let element = 0
  let depth = 0 // of brackets and braces; 1 is inside of the list, 0 after it
  let state = 'before' as 'before' | 'inside' | 'after'
  let blanks = 0
  let quoted = false
  let escaped = false
  let kept: Uint8Array[] = []
  let keptBytes = 0
  const parse = (last: boolean) => {
    const where = `${name} element ${element + 1}`
    const text = decodeUtf8(joinBytes(kept), where)
    kept = []
    keptBytes = 0
    if (last && element === 0 && text.trim() === '') return null
    element++
    return { element, value: parseJsonRow(text, where) }
  }
  for await (const chunk of chunks) {
    let start = 0
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at]
      if (state !== 'inside') {
        if (isBlank(byte) || (state === 'before' && isMark(byte))) {
          if (++blanks <= BLANK_LIMIT_BYTES) continue
          throw new Error(`${name}: more than ${BLANK_LIMIT_BYTES} bytes of blanks are ${state} the JSON list`)
        }
        if (state === 'after' || byte !== OPEN_LIST) {
          throw new Error(`${name}: must hold one JSON list${state === 'after' ? ', more follows it' : ''}`)
        }
        state = 'inside'
        depth = 1
        start = at + 1
      } else if (quoted) {
        if (escaped) escaped = false
        else if (byte === BACKSLASH) escaped = true
        else if (byte === QUOTE) quoted = false
      } else if (byte === QUOTE) quoted = true
      else if (byte === OPEN_LIST || byte === OPEN_OBJECT) depth++
      else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth--
      if (state === 'inside' && !quoted && (depth === 0 || (depth === 1 && byte === COMMA))) {
        keep(chunk.slice(start, at))
        start = at + 1
        const found = parse(depth === 0)
        if (found) yield found
        if (depth === 0) state = 'after'
      }
    }
    if (state === 'inside') keep(chunk.slice(start))
  }
  if (state !== 'after') throw new Error(`${name}: the JSON list is cut off after element ${element}; fetch it again`)

  function keep(bytes: Uint8Array): void {
    kept.push(bytes)
    keptBytes += bytes.length
    if (keptBytes > ELEMENT_LIMIT_BYTES) {
      throw new Error(`${name} element ${element + 1}: is longer than ${ELEMENT_LIMIT_BYTES} bytes`)
    }
  }
}

const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT, COMMA, QUOTE, BACKSLASH] = [91, 93, 123, 125, 44, 34, 92]

function isBlank(byte: number): boolean {
  return byte === 32 || byte === 9 || byte === 10 || byte === 13
}

/** A byte of the byte order mark. */
function isMark(byte: number): boolean {
  return byte === 0xef || byte === 0xbb || byte === 0xbf
}
