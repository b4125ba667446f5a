// Rows of reward model training: chosen and rejected as tokens, with a margin.
//
// Source: the RewardTrainer of TRL 1.16 for plain texts, margins and lengths. Texts with a prompt, and texts of turns, go through the
// chat template, so that a model is trained on what `pinball score` gives it.
import { splitDialogue } from '../data/fields.ts'
import { isObject, show } from '../files/json.ts'
import { checkMessages } from '../reward/rows.ts'
import type { Message } from '../text/chat.ts'
import { chatTokens, plainTokens, pooledTokens, readRow, type TextRules } from './row_text.ts'
import { collect, endsWithAssistant, type Records } from './sft_rows.ts'

export interface PreferenceRow {
  /** [T] */
  readonly chosen: Uint32Array<ArrayBuffer>
  /** [T] */
  readonly rejected: Uint32Array<ArrayBuffer>
  /** By how much the chosen reward should be above the rejected one; 0 where the row has none. */
  readonly margin: number
}

/**
 * Encodes a pair. `chosen` and `rejected` are
 *   token ids, as `chosen_input_ids` and `rejected_input_ids` (or TRL's newer `chosen_ids` and `rejected_ids`);
 *   lists of messages, whole conversations or what comes after a `prompt` (a text or a list of messages);
 *   texts after a `prompt`, the assistant's answers;
 *   texts without one: conversations of `Human:` and `Assistant:` turns, or plain texts, which get EOS.
 * `margin` is a number; other fields are passed over, null counts as absent. Throws on rows of no form, values of another type and
 * conversations that do not end with the assistant. Whether a side is too long is left to the caller.
 */
export function encodePreferenceRow(row: unknown, rules: TextRules): PreferenceRow {
  if (!isObject(row)) throw new Error(`a row must be an object, got ${show(row)}`)
  const margin = readMargin(row.margin ?? 0)
  for (const [chosen, rejected] of [
    ['chosen_input_ids', 'rejected_input_ids'],
    ['chosen_ids', 'rejected_ids'],
  ]) {
    const missing = [chosen, rejected].filter((side) => row[side] == null)
    if (missing.length === 2) continue
    if (missing.length === 1)
      throw new Error(`a pair needs "${chosen}" and "${rejected}", this one has no "${missing[0]}"`)
    return { chosen: readRow(row[chosen], rules, chosen), rejected: readRow(row[rejected], rules, rejected), margin }
  }
  if (row.chosen == null || row.rejected == null) {
    const keys = Object.keys(row)
    throw new Error(
      `a pair needs "chosen" and "rejected", or "chosen_input_ids" and "rejected_input_ids", got ${keys.length === 0 ? 'none' : keys.slice(0, 12).map(show).join(', ')}`,
    )
  }
  const prompt = row.prompt == null ? null : readPrompt(row.prompt)
  const sides = (['chosen', 'rejected'] as const).map((what) => readSide(prompt, row[what], what))
  if ((typeof sides[0] === 'string') !== (typeof sides[1] === 'string')) {
    throw new Error('chosen and rejected must both be conversations or both be plain texts')
  }
  const [chosen, rejected] = sides.map((side) =>
    pooledTokens(typeof side === 'string' ? plainTokens(side, rules) : chatTokens(side, rules), rules),
  )
  return { chosen, rejected, margin }
}

/** Rewards are float32: what is larger can never be reached. */
function readMargin(margin: unknown): number {
  if (typeof margin !== 'number') throw new Error(`margin must be a number, got ${show(margin)}`)
  if (Number.isFinite(Math.fround(margin))) return margin
  const got = Number.isFinite(margin) ? `${margin}` : `a number beyond 1.8e308`
  throw new Error(`margin must be a number of at most 3.4e38 in size, got ${got}`)
}

function readPrompt(prompt: unknown): Message[] {
  return typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : checkMessages(prompt, 'prompt')
}

/** A side as a conversation, or as a plain text. */
function readSide(prompt: readonly Message[] | null, side: unknown, what: string): readonly Message[] | string {
  if (typeof side !== 'string') {
    const messages = endsWithAssistant(checkMessages(side, what), what)
    return prompt === null || begins(messages, prompt) ? messages : [...prompt, ...messages]
  }
  if (prompt !== null) return [...prompt, { role: 'assistant', content: side }]
  const turns = /^\s*Human:/.test(side) ? splitDialogue(side) : null
  return turns === null ? side : endsWithAssistant(turns, what)
}

/** Whether a conversation begins with all the messages of another. */
function begins(messages: readonly Message[], first: readonly Message[]): boolean {
  return (
    messages.length > first.length &&
    first.every(({ role, content }, i) => role === messages[i].role && content === messages[i].content)
  )
}

/** Pairs of a file that are trained on. */
export interface PreferenceRows {
  readonly rows: readonly PreferenceRow[]
  /** Pairs that were left out because a side has more than `maxLength` tokens. */
  readonly dropped: number
}

/** Encodes the pairs of a file in their order, as `encodeSftRows` does rows. */
export async function encodePreferenceRows(records: Records, rules: TextRules): Promise<PreferenceRows> {
  const fits = ({ chosen, rejected }: PreferenceRow) => Math.max(chosen.length, rejected.length) <= rules.maxLength
  return collect(records, (value) => encodePreferenceRow(value, rules), fits, rules)
}
