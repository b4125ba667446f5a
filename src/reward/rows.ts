// Rows to be scored: text or token ids, checked and brought to tokens with the two positions that a reward model reads.
//
// Source: the published QRM forward pass. The heads read the state at the last token, padding left out. The gate reads the state at the first
// token of the last occurrence of its pattern, which in a Llama 3 chat is the <|eot_id|> that ends the last user turn.
import { isObject, show } from '../files/json.ts'
import { type BosPolicy, type Message, renderChat } from '../text/chat.ts'
import { plainMessages } from '../text/messages.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { type Padding, pooledLength, textPlaces } from './padding.ts'
import { copyIds, idList } from './token_ids.ts'

export type Row =
  | { readonly prompt: string; readonly response: string }
  /** A conversation that ends with an assistant's turn. */
  | { readonly messages: readonly Message[] }
  /** Tokens as they are, nothing added, padding left out; `gate_position` counts from 0 in them and is searched where absent. */
  | { readonly input_ids: ArrayLike<number>; readonly gate_position?: number }

/** A row as tokens; it is a `Row` itself. What has been encoded is not checked again, so its tokens must not be changed. */
export interface EncodedRow {
  readonly input_ids: Uint32Array<ArrayBuffer>
  /** Absent where the pattern does not occur and no position was given. */
  readonly gate_position?: number
}

export interface RowRules {
  /** What errors about the model call it. */
  readonly name: string
  readonly tokenizer: Tokenizer | null
  readonly bos: BosPolicy
  readonly gatePattern: readonly number[]
  /** V: token ids are below it. */
  readonly vocab: number
  /** The longest row in tokens. */
  readonly maxPosition: number
  /** Absent or null: the model has none. */
  readonly padding?: Padding | null
}

/**
 * Checks a row and encodes it. Throws on unknown or mixed fields, values of another type, empty rows, conversations that do not
 * end with an assistant's turn, ids outside of the vocabulary, gate positions outside of the row, rows that are too long for the
 * model, text where the model has no tokenizer, and, with `gate`, rows where neither position nor pattern says where the gate reads.
 */
export function encodeRow(row: unknown, rules: RowRules, gate = false): EncodedRow {
  const encoded = encode(row, rules)
  if (gate && encoded.gate_position === undefined) {
    throw new Error(
      `the gate's pattern ${show(rules.gatePattern)} does not occur in the row's ${encoded.input_ids.length} tokens; ` +
        'give "gate_position", or set "gate_pattern" in pinball.json to what the chat template puts before the response',
    )
  }
  return encoded
}

/** By what rules a row has been encoded. */
const encodedBy = new WeakMap<object, RowRules>()

function encode(row: unknown, rules: RowRules): EncodedRow {
  if (isObject(row) && encodedBy.get(row) === rules) return row as unknown as EncodedRow
  const encoded = encodeFields(row, rules)
  encodedBy.set(encoded, rules)
  return encoded
}

function encodeFields(row: unknown, rules: RowRules): EncodedRow {
  if (!isObject(row)) throw new Error(`a row must be an object, got ${show(row)}`)
  if ('input_ids' in row) {
    checkFields(row, ['input_ids', 'gate_position'])
    return withoutPadding(readTokens(row.input_ids, rules), row.gate_position, rules)
  }
  const messages = 'messages' in row ? readMessages(row) : readPair(row)
  if (rules.tokenizer === null) {
    throw new Error(`${rules.name} has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"`)
  }
  const tokens = renderChat(rules.tokenizer, messages, { bos: rules.bos })
  return pooled(locate(readTokens(tokens, rules), rules), rules)
}

function withoutPadding(tokens: Uint32Array<ArrayBuffer>, given: unknown, rules: RowRules): EncodedRow {
  const places = textPlaces(tokens, rules.padding)
  const text = places === null ? tokens : Uint32Array.from(places, (place) => tokens[place])
  if (given === undefined) return locate(text, rules)
  const position = readPosition(given, tokens.length)
  const at = places === null ? position : places.indexOf(position)
  if (at < 0) throw new Error(`gate_position ${position} is padding (token ${tokens[position]})`)
  return { input_ids: text, gate_position: at }
}

/** Leaves out the padding that a text ends with, as where <|eot_id|> is padding. */
function pooled(row: EncodedRow, { padding }: RowRules): EncodedRow {
  const { input_ids: tokens, gate_position: at } = row
  const length = pooledLength(tokens, padding)
  if (length === tokens.length) return row
  const kept = tokens.slice(0, length)
  return at === undefined || at >= length ? { input_ids: kept } : { input_ids: kept, gate_position: at }
}

function checkFields(row: Record<string, unknown>, fields: readonly string[]): void {
  for (const key of Object.keys(row)) {
    if (!fields.includes(key))
      throw new Error(`unknown field ${show(key)}; beside ${show(fields[0])} a row may have ${rest(fields)}`)
  }
}

function rest(fields: readonly string[]): string {
  return fields.length === 1 ? 'nothing' : fields.slice(1).map(show).join(' and ')
}

function readPair(row: Record<string, unknown>): Message[] {
  const { prompt, response } = row
  if (prompt === undefined || response === undefined) {
    const keys = Object.keys(row)
    throw new Error(
      `a row needs "prompt" and "response", or "messages", or "input_ids", got ${keys.length === 0 ? 'none' : keys.map(show).join(', ')}`,
    )
  }
  checkFields(row, ['prompt', 'response'])
  if (typeof prompt !== 'string') throw new Error(`prompt must be a text, got ${show(prompt)}`)
  if (typeof response !== 'string') throw new Error(`response must be a text, got ${show(response)}`)
  if (prompt === '' && response === '') throw new Error('prompt and response must not both be empty')
  return [
    { role: 'user', content: prompt },
    { role: 'assistant', content: response },
  ]
}

function readMessages(row: Record<string, unknown>): Message[] {
  checkFields(row, ['messages'])
  const messages = checkMessages(row.messages, 'messages')
  const { role } = messages[messages.length - 1]
  if (role !== 'assistant') throw new Error(`messages must end with role "assistant", got ${show(role)}`)
  return messages
}

/** Checks a list of one message or more, each a role and a content (`plainMessages`); `what` is what errors call it. */
export function checkMessages(given: unknown, what: string): Message[] {
  const messages = plainMessages(given)
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new Error(`${what} must be a list of at least one message, got ${show(given)}`)
  }
  for (const [i, message] of messages.entries()) {
    if (!isObject(message)) throw new Error(`${what}[${i}] must be an object, got ${show(message)}`)
    for (const key of Object.keys(message)) {
      if (key !== 'role' && key !== 'content') throw new Error(`${what}[${i}]: unknown field ${show(key)}`)
    }
    for (const key of ['role', 'content']) {
      if (typeof message[key] !== 'string')
        throw new Error(`${what}[${i}].${key} must be a text, got ${show(message[key])}`)
    }
  }
  return messages as Message[]
}

function readTokens(ids: unknown, { vocab, maxPosition }: RowRules): Uint32Array<ArrayBuffer> {
  const tokens = idList(ids)
  if (tokens === null) throw new Error(`input_ids must be a list of token ids, got ${show(ids)}`)
  if (tokens.length === 0) throw new Error('input_ids must have at least one token, got none')
  if (tokens.length > maxPosition) {
    throw new Error(`the row has ${tokens.length} tokens, the model takes ${maxPosition} (max_position_embeddings)`)
  }
  return copyIds(tokens, vocab, 'input_ids')
}

function readPosition(position: unknown, length: number): number {
  if (!Number.isSafeInteger(position) || (position as number) < 0 || (position as number) >= length) {
    throw new Error(`gate_position must be a whole number from 0 to ${length - 1}, got ${show(position)}`)
  }
  return position as number
}

function locate(tokens: Uint32Array<ArrayBuffer>, { gatePattern }: RowRules): EncodedRow {
  const position = lastOccurrence(tokens, gatePattern)
  return position < 0 ? { input_ids: tokens } : { input_ids: tokens, gate_position: position }
}

/** The largest index at which `pattern` begins in `tokens`, or -1. */
export function lastOccurrence(tokens: ArrayLike<number>, pattern: ArrayLike<number>): number {
  for (let begin = tokens.length - pattern.length; begin >= 0; begin--) {
    let i = 0
    while (i < pattern.length && tokens[begin + i] === pattern[i]) i++
    if (i === pattern.length) return begin
  }
  return -1
}

/** Encodes rows in order; what a row throws gets its number, counted from 1, in front. */
export function encodeRows(rows: readonly unknown[], rules: RowRules, gate = false): EncodedRow[] {
  return encodeNamed(
    rows,
    (row) => encodeRow(row, rules, gate),
    (i) => `row ${i + 1}`,
  )
}

/** Encodes things in order by `encode`; what one throws gets its name in front, unless that is empty. */
export function encodeNamed<R, E>(rows: readonly R[], encode: (row: R) => E, nameOf: (index: number) => string): E[] {
  return rows.map((row, i) => {
    try {
      return encode(row)
    } catch (error) {
      const [name, reason] = [nameOf(i), (error as Error).message]
      throw new Error(name === '' ? reason : `${name}: ${reason}`)
    }
  })
}
