// Prompts from rows: texts and conversations through the chat template with the assistant's turn begun, plain texts, and token ids.
//
// Rows are those of `score` without the response. TRL begins the assistant's turn in the same way (`add_generation_prompt`).

import { isObject, show } from '../files/json.ts'
import { Sha256 } from '../files/sha256.ts'
import { checkMessages, type RowRules } from '../reward/rows.ts'
import { copyIds, idList } from '../reward/token_ids.ts'
import { type Message, renderChat } from '../text/chat.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { Prompt } from './continuation.ts'

export type PromptRow =
  /** Through the chat template where the tokenizer has one, else plain; a list of messages always through it. */
  | { readonly prompt: string | readonly Message[]; readonly id?: RowId }
  /** A conversation that ends with a turn of the user (or of a tool). */
  | { readonly messages: readonly Message[]; readonly id?: RowId }
  /** Tokens as they are, nothing added. */
  | { readonly input_ids: ArrayLike<number>; readonly id?: RowId }

export type RowId = string | number

/** What of a model the encoding of prompts depends on. */
export interface PromptRules extends Pick<RowRules, 'name' | 'tokenizer' | 'bos' | 'vocab' | 'maxPosition'> {
  /** Texts are plain, whatever template there is: with what the tokenizer itself puts before a text, and nothing after it. */
  readonly plain?: boolean
}

export interface EncodedPrompt {
  readonly tokens: Uint32Array<ArrayBuffer>
  /** As the row has it. */
  readonly id?: RowId
  /** The prompt as the row gives it: its text, its messages or its token ids. */
  readonly given: string | readonly Message[] | readonly number[]
}

const FORMS = ['input_ids', 'messages', 'prompt'] as const

/**
 * Checks a row and encodes its prompt; other fields, such as responses and labels, are passed over. Throws on rows of no form or of
 * several, values of another type, conversations that end with the assistant, ids outside of the vocabulary, prompts of no token or of
 * more than the model takes, and text where there is no tokenizer.
 */
export function encodePrompt(row: unknown, rules: PromptRules): EncodedPrompt {
  if (!isObject(row)) throw new Error(`a row must be an object, got ${show(row)}`)
  const forms = FORMS.filter((field) => row[field] != null)
  if (forms.length !== 1) {
    const found = forms.length > 1 ? forms : Object.keys(row)
    throw new Error(
      `a row needs one of "prompt", "messages" and "input_ids", got ${found.length === 0 ? 'none' : found.slice(0, 12).map(show).join(', ')}`,
    )
  }
  const id = readId(row.id)
  const given = row[forms[0]]
  const tokens = checkLength(
    forms[0] === 'input_ids' ? readIds(given, rules) : textTokens(given, forms[0], rules),
    rules,
  )
  const shown = forms[0] === 'input_ids' ? Array.from(tokens) : (given as string | Message[])
  return { tokens, ...(id !== undefined && { id }), given: shown }
}

function readId(id: unknown): RowId | undefined {
  if (id == null) return undefined
  if (typeof id === 'string' || Number.isFinite(id)) return id as RowId
  throw new Error(`id must be a text or a number, got ${show(id)}`)
}

function textTokens(given: unknown, field: string, rules: PromptRules): Uint32Array<ArrayBuffer> {
  const { name, tokenizer, bos, plain = false } = rules
  const list = typeof given !== 'string'
  if (list && !Array.isArray(given)) {
    throw new Error(`${field} must be a text or a list of messages, got ${show(given)}`)
  }
  if (!list && field === 'messages') throw new Error(`messages must be a list of messages, got ${show(given)}`)
  const messages = list ? endsWithAsker(checkMessages(given, field), field) : null
  if (tokenizer === null) {
    throw new Error(`${name} has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"`)
  }
  if (messages === null && (plain || tokenizer.chatTemplate === null)) return plainTokens(given as string, tokenizer)
  const turns = messages ?? [{ role: 'user', content: given as string }]
  return readIds(renderChat(tokenizer, turns, { bos, addGenerationPrompt: true }), rules)
}

/** A text as the tokenizer frames its beginning: what it puts after a text, as some put EOS, is no part of a prompt. */
function plainTokens(text: string, tokenizer: Tokenizer): Uint32Array<ArrayBuffer> {
  const framed = tokenizer.encode(text, { framed: true })
  const own = tokenizer.encode(text)
  // What stands before the text is what the frame of an empty text begins with.
  for (let before = framed.length - own.length; before > 0; before--) {
    if (own.every((token, i) => framed[before + i] === token)) return framed.slice(0, before + own.length)
  }
  return own
}

function endsWithAsker(messages: readonly Message[], field: string): readonly Message[] {
  const { role } = messages[messages.length - 1]
  if (role === 'user' || role === 'tool') return messages
  throw new Error(`${field} must end with role "user", whose turn is answered, got ${show(role)}`)
}

function readIds(ids: unknown, { vocab }: PromptRules): Uint32Array<ArrayBuffer> {
  const list = idList(ids)
  if (list === null) throw new Error(`input_ids must be a list of token ids, got ${show(ids)}`)
  return copyIds(list, vocab, 'input_ids')
}

function checkLength(tokens: Uint32Array<ArrayBuffer>, { maxPosition }: PromptRules): Uint32Array<ArrayBuffer> {
  if (tokens.length === 0) throw new Error('a prompt must have at least one token, got none')
  if (tokens.length > maxPosition) {
    throw new Error(
      `the prompt has ${tokens.length} tokens, the model takes ${maxPosition} (max_position_embeddings); shorten it`,
    )
  }
  return tokens
}

/**
 * Prompts with the keys of their draws. A key follows from the prompt's tokens and from how many equal prompts come before it, so that
 * neither the order of different prompts nor their number changes what is drawn for one.
 */
export function keyPrompts(prompts: readonly Uint32Array[], samples: number): Prompt[] {
  const before = new Map<string, number>()
  return prompts.map((tokens) => {
    const hash = new Sha256().update(new Uint8Array(tokens.slice().buffer)).hex()
    const count = before.get(hash) ?? 0
    before.set(hash, count + 1)
    return { tokens, samples, key: (Number.parseInt(hash.slice(0, 8), 16) + count) >>> 0 }
  })
}
