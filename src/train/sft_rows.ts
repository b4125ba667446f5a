// Rows of supervised fine-tuning: tokens, and which of them are learned.
//
// Sources: the SFTTrainer of TRL 1.16 for prompts with completions and for the end of plain texts. For conversations TRL learns every
// token unless the template marks what the assistant says; here its messages are found by the template alone.
import { splitDialogue } from '../data/fields.ts'
import { isObject, show } from '../files/json.ts'
import { checkMessages } from '../reward/rows.ts'
import type { Message } from '../text/chat.ts'
import {
  chatCompletion,
  chatTokens,
  chatTurns,
  plainCompletion,
  readIds,
  type Span,
  type TextRules,
} from './row_text.ts'

/** Label of a token that is not learned. */
export const IGNORED = -100

/** What is learned: the assistant's messages or the completion, each with its end; or every token. */
export type SftLoss = 'completion' | 'all'

export interface SftRules extends TextRules {
  readonly loss: SftLoss
}

export interface SftRow {
  /** [T] */
  readonly tokens: Uint32Array<ArrayBuffer>
  /** [T], not shifted: the token itself or, in rows with "labels", another; IGNORED where it is not learned. */
  readonly labels: Int32Array<ArrayBuffer>
}

/** Fields that say of which form a row is, in the order in which they are looked for. */
const FORMS = ['input_ids', 'messages', 'completion', 'response', 'chosen'] as const

/**
 * Encodes a row: `{"input_ids", "labels"}`; `{"messages"}`; `{"prompt", "completion"}`, both plain texts or both lists of messages;
 * `{"prompt", "response"}`, where the prompt is a text or a list of messages and the response a text; or `{"chosen"}`, a text of
 * `Human:` and `Assistant:` turns or a list of messages. Other fields are passed over, null counts as absent. Throws on rows of no
 * form, values of another type, conversations that do not end with the assistant, labels of another number or outside of the
 * vocabulary, and rows from which nothing can be learned. Whether a row is too long is left to the caller.
 */
export function encodeSftRow(row: unknown, rules: SftRules): SftRow {
  if (!isObject(row)) throw new Error(`a row must be an object, got ${show(row)}`)
  const forms = FORMS.filter((field) => row[field] != null)
  // OpenRLHF's names.
  if (forms.length === 0 && row.input != null && row.output != null) {
    return encodeSftRow({ prompt: row.input, response: row.output }, rules)
  }
  if (forms.length === 0) {
    const keys = Object.keys(row)
    throw new Error(
      `a row needs "messages", "prompt" with "completion" or "response", "chosen", or "input_ids" with "labels", got ${keys.length === 0 ? 'none' : keys.slice(0, 12).map(show).join(', ')}`,
    )
  }
  if (forms.includes('completion') && forms.includes('response')) {
    throw new Error('a row has "completion" (plain text) or "response" (through the chat template), not both')
  }
  const encoded =
    forms[0] === 'input_ids' ? readLabelled(row, rules) : label(encodeForm(row, forms[0], rules), rules.loss)
  // The first token is predicted from nothing.
  if (!encoded.labels.subarray(1).some((value) => value !== IGNORED)) {
    throw new Error(
      `nothing can be learned from a row of ${encoded.tokens.length} tokens of which none after the first is to be learned`,
    )
  }
  return encoded
}

interface Spoken {
  readonly tokens: Uint32Array<ArrayBuffer>
  readonly spans: readonly Span[]
}

function encodeForm(row: Record<string, unknown>, form: (typeof FORMS)[number], rules: SftRules): Spoken {
  const { prompt, completion, response, chosen } = row
  if (form === 'messages') return turns(checkMessages(row.messages, 'messages'), 'messages', rules)
  if (form === 'chosen') {
    const found = typeof chosen === 'string' ? splitDialogue(chosen) : checkMessages(chosen, 'chosen')
    if (found === null || found.length === 0) {
      throw new Error(
        `chosen must be a text of "Human:" and "Assistant:" turns or a list of messages, got ${show(chosen)}`,
      )
    }
    return turns(found, 'chosen', rules)
  }
  if (form === 'completion') {
    if (typeof prompt === 'string' && typeof completion === 'string') return plainCompletion(prompt, completion, rules)
    if (typeof prompt === 'string' || typeof completion === 'string' || prompt == null) {
      throw new Error(
        `prompt and completion must be two texts or two lists of messages, got ${show(prompt)} and ${show(completion)}`,
      )
    }
    const said = endsWithAssistant(checkMessages(completion, 'completion'), 'completion')
    return chatCompletion(checkMessages(prompt, 'prompt'), said, rules)
  }
  if (typeof response !== 'string') throw new Error(`response must be a text, got ${show(response)}`)
  const before = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : checkMessages(prompt, 'prompt')
  return chatCompletion(before, [{ role: 'assistant', content: response }], rules)
}

function turns(messages: readonly Message[], what: string, rules: SftRules): Spoken {
  endsWithAssistant(messages, what)
  // Where every token is learned, it need not be told who speaks.
  return rules.loss === 'all' ? { tokens: chatTokens(messages, rules), spans: [] } : chatTurns(messages, rules)
}

/** Gives the messages; throws where the last one is not the assistant's. */
export function endsWithAssistant(messages: readonly Message[], what: string): readonly Message[] {
  const { role } = messages[messages.length - 1]
  if (role !== 'assistant') throw new Error(`${what} must end with role "assistant", got ${show(role)}`)
  return messages
}

function label({ tokens, spans }: Spoken, loss: SftLoss): SftRow {
  if (loss === 'all') return { tokens, labels: Int32Array.from(tokens) }
  const labels = new Int32Array(tokens.length).fill(IGNORED)
  for (const [begin, end] of spans) labels.set(tokens.subarray(begin, end), begin)
  return { tokens, labels }
}

function readLabelled(row: Record<string, unknown>, rules: SftRules): SftRow {
  const tokens = readIds(row.input_ids, rules, 'input_ids')
  const given = row.labels
  if (given == null) {
    if (rules.loss === 'all') return { tokens, labels: Int32Array.from(tokens) }
    throw new Error('a row with "input_ids" needs "labels" (-100 = not learned), or --loss all')
  }
  if (!Array.isArray(given) && !(given instanceof Int32Array))
    throw new Error(`labels must be a list, got ${show(given)}`)
  if (given.length !== tokens.length) {
    throw new Error(`labels must be as many as input_ids, ${tokens.length}, got ${given.length}`)
  }
  const labels = new Int32Array(tokens.length)
  for (let i = 0; i < labels.length; i++) {
    const value: unknown = given[i]
    if (
      value !== IGNORED &&
      (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) >= rules.vocab)
    ) {
      throw new Error(
        `labels[${i}] must be ${IGNORED} or a whole number from 0 to ${rules.vocab - 1} (vocab_size), got ${show(value)}`,
      )
    }
    labels[i] = value as number
  }
  return { tokens, labels }
}

/** Rows as they were read, with what errors call each. */
type Read = { readonly where: string; readonly value: unknown }
export type Records = AsyncIterable<Read> | Iterable<Read>

/** Rows of a file that are trained on. */
export interface SftRows {
  readonly rows: readonly SftRow[]
  /** Rows that were left out because they have more than `maxLength` tokens. */
  readonly dropped: number
}

/**
 * Encodes the rows of a file in their order; those that are too long are left out and counted. What a row throws gets the place of the
 * row in front. Throws where no row is left.
 */
export async function encodeSftRows(records: Records, rules: SftRules): Promise<SftRows> {
  return collect(
    records,
    (value) => encodeSftRow(value, rules),
    ({ tokens }) => tokens.length <= rules.maxLength,
    rules,
  )
}

/** Encodes records one by one, as `encodeSftRows` says. */
export async function collect<T>(
  records: Records,
  encode: (value: unknown) => T,
  fits: (row: T) => boolean,
  { maxLength, onInvalid }: Pick<TextRules, 'maxLength' | 'onInvalid'>,
  tooLong = (dropped: number) =>
    `${dropped === 1 ? 'the only row has' : `all ${dropped} rows have`} more than ${maxLength} tokens`,
): Promise<{ rows: T[]; dropped: number }> {
  const rows: T[] = []
  let dropped = 0
  let first = ''
  for await (const { where, value } of records) {
    let row: T
    try {
      row = encode(value)
    } catch (error) {
      const reason = `${where}: ${(error as Error).message}`
      if (!onInvalid) throw new Error(reason)
      onInvalid(reason)
      continue
    }
    if (fits(row)) rows.push(row)
    else if (dropped++ === 0) first = where
  }
  if (rows.length === 0) {
    const why =
      dropped === 0 ? 'there are no rows' : `${tooLong(dropped)} (${dropped === 1 ? first : `the first is ${first}`})`
    throw new Error(`nothing to train on: ${why}`)
  }
  return { rows, dropped }
}
