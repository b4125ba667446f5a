// Prompts of RLOO from rows: those of `generate`, and conversations of preference data without their last answer.
import { splitDialogue } from '../../data/fields.ts'
import { isObject, show } from '../../files/json.ts'
import { encodePrompt, type PromptRules } from '../../generate/prompt_rows.ts'
import { checkMessages } from '../../reward/rows.ts'
import type { Message } from '../../text/chat.ts'
import type { TextRules } from '../row_text.ts'
import { collect, type Records } from '../sft_rows.ts'

/** A prompt; each is a group of its own, whatever others there are. */
export interface RlooPrompt {
  readonly tokens: Uint32Array
  /** Its turns, a plain text as one of the user's; null where it is given as token ids. */
  readonly messages: readonly Message[] | null
  /** Names it in the table of generations; default its number. */
  readonly id?: string | number
  /** What rewards may want to know of it; default null. */
  readonly label?: unknown
  /** The row that it comes from. */
  readonly row?: unknown
}

/**
 * Encodes a row: `{"prompt"}`, a text or a list of messages; `{"messages"}` that end with the user; `{"input_ids"}`; or `{"chosen"}`, a
 * text of `Human:` and `Assistant:` turns or a list of messages, without the answer that it ends with. `id` and `label` are kept, other
 * fields are for functions that reward. Throws as `encodePrompt` does.
 */
export function encodeRlooPrompt(row: unknown, rules: PromptRules): RlooPrompt {
  if (!isObject(row)) throw new Error(`a row must be an object, got ${show(row)}`)
  const bare = row.prompt == null && row.messages == null && row.input_ids == null
  const own = bare && row.chosen != null ? { id: row.id, messages: beforeAnswer(row.chosen) } : row
  const { tokens, id, given } = encodePrompt(own, rules)
  const messages: readonly Message[] | null =
    typeof given === 'string'
      ? [{ role: 'user', content: given }]
      : typeof given[0] === 'number'
        ? null
        : (given as readonly Message[])
  return { tokens, messages, ...(id !== undefined && { id }), label: row.label ?? null, row }
}

function beforeAnswer(chosen: unknown): readonly Message[] {
  const turns = typeof chosen === 'string' ? splitDialogue(chosen) : checkMessages(chosen, 'chosen')
  if (turns === null || turns.at(-1)?.role !== 'assistant' || turns.length < 2) {
    throw new Error(`chosen must be turns that end with an answer of the assistant, got ${show(chosen)}`)
  }
  return turns.slice(0, -1)
}

/** Prompts of a file. */
export interface RlooPrompts {
  readonly rows: readonly RlooPrompt[]
  /** Rows that were left out because they have `maxLength` tokens or more. */
  readonly dropped: number
}

/**
 * Encodes the rows of a file; prompts of `maxLength` tokens or more are left out and counted: the paper takes those of fewer than 348.
 * What a row throws gets its place in front.
 */
export async function encodeRlooPrompts(records: Records, rules: TextRules): Promise<RlooPrompts> {
  const { maxLength } = rules
  return collect(
    records,
    (row) => encodeRlooPrompt(row, { ...rules, maxPosition: Infinity }),
    ({ tokens }) => tokens.length < maxLength,
    rules,
    (dropped) => `all ${dropped} prompts have ${maxLength} tokens or more; --max-prompt or the model sets that`,
  )
}
