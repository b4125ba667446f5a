// Tokens to text, piece by piece: only what later tokens cannot change is given, and stop strings are found across tokens.
//
// Source: the incremental detokenisation of text-generation-inference (decode a few tokens with and without the new one).
import type { Tokenizer } from '../text/tokenizer.ts'

/** What a token added. */
export interface Piece {
  /** Text that is now certain; may be empty. */
  readonly text: string
  /** Whether a stop string is there now: the text has ended before it. */
  readonly stopped: boolean
}

/** The text of a continuation as it grows, without special tokens. */
export interface TextStream {
  /** Adds a token. With `stops` false a stop string that ends with it is text like any other. Throws after the end. */
  push(token: number, stops?: boolean): Piece
  /** The rest, where no more tokens come. */
  end(): string
}

/** What stands for bytes that are no character yet, and for those that never will be. */
const INCOMPLETE = '\ufffd'
const NO_STOPS: readonly string[] = []

/** Starts a text. Tokens that the tokenizer does not have, as padded vocabularies give them, are no text. */
export function openTextStream(tokenizer: Tokenizer, stopStrings: readonly string[] = NO_STOPS): TextStream {
  const decode = (tokens: readonly number[]): string => tokenizer.decode(tokens, { skipSpecial: true, partial: true })
  const longest = stopStrings.reduce((most, { length }) => Math.max(most, length), 0)
  /** Tokens [0, read) of these have given their text, which the decoding of others may depend on. */
  let tokens: number[] = []
  let read = 0
  /** Characters of the text of tokens from `read` on that are known already. */
  let known = 0
  /** Text that may be the beginning of a stop string. */
  let held = ''
  let ended = false

  /** What is new and certain, or with `all` what is new. */
  const advance = (all: boolean): string => {
    const before = decode(tokens.slice(0, read))
    const text = decode(tokens)
    const certain = !all && text.endsWith(INCOMPLETE) ? text.slice(0, -1) : text
    const from = before.length + known
    if (certain.length < from) return ''
    const fresh = certain.slice(from)
    if (certain === text) {
      if (text.length > before.length) {
        tokens = tokens.slice(read)
        read = tokens.length
        known = 0
      }
    } else known += fresh.length
    return fresh
  }

  return {
    push(token, stops = true) {
      if (ended) throw new Error('text stream: no token may follow the end')
      if (!knows(tokenizer, token)) return { text: '', stopped: false }
      tokens.push(token)
      const fresh = advance(false)
      if (longest === 0 || fresh === '') return { text: fresh, stopped: false }
      const text = held + fresh
      if (stops) {
        const at = firstStop(text, stopStrings, held.length)
        if (at >= 0) {
          ended = true
          return { text: text.slice(0, at), stopped: true }
        }
      }
      const keep = beginningOfStop(text, stopStrings)
      held = text.slice(text.length - keep)
      return { text: text.slice(0, text.length - keep), stopped: false }
    },
    end() {
      if (ended) return ''
      ended = true
      return held + advance(true)
    },
  }
}

/** Where the first stop string begins that ends behind the first `old` characters; -1: nowhere. */
function firstStop(text: string, stopStrings: readonly string[], old: number): number {
  let first = -1
  for (const stop of stopStrings) {
    const at = text.indexOf(stop, Math.max(0, old - stop.length + 1))
    if (at >= 0 && (first < 0 || at < first)) first = at
  }
  return first
}

/** Length of the longest end of the text that a stop string begins with and is longer than. */
function beginningOfStop(text: string, stopStrings: readonly string[]): number {
  let most = 0
  for (const stop of stopStrings) {
    for (let length = Math.min(stop.length - 1, text.length); length > most; length--) {
      if (text.endsWith(stop.slice(0, length))) most = length
    }
  }
  return most
}

const vocabularies = new WeakMap<Tokenizer, Map<number, boolean>>()

function knows(tokenizer: Tokenizer, token: number): boolean {
  const known = vocabularies.get(tokenizer) ?? new Map<number, boolean>()
  vocabularies.set(tokenizer, known)
  let found = known.get(token)
  if (found === undefined) {
    try {
      tokenizer.decode([token])
      found = true
    } catch {
      found = false
    }
    known.set(token, found)
  }
  return found
}
