// The one reader of rows: what of a row is scored, one response or a pair, in the forms in which people write it, and what is not.
//
// Forms of a response: {"prompt", "response"}, where TRL says "completion" and OpenRLHF "input" and "output"; {"messages"}; {"input_ids"}.
// Forms of a pair: {"chosen", "rejected"}, with a "prompt" or without. Sides without one are lists of messages, texts of "Human:" and
// "Assistant:" turns (HH-RLHF), or texts that begin alike, whose common beginning is the prompt, as TRL's extract_prompt has it, but cut
// between words. null counts as absent. Everything else (ids, labels, sources, margins) is carried along as it is.
import { splitDialogue } from '../data/fields.ts'
import { show } from '../files/json.ts'
import { responseRow } from './responses.ts'

/** A row, read. */
export interface ReadRow {
  /** What is scored, in the forms that `encodeRow` takes: one response, or chosen and rejected. What is wrong in them it will say. */
  readonly sides: readonly unknown[]
  readonly isPair: boolean
  /** All other fields. */
  readonly rest: Readonly<Record<string, unknown>>
}

/** Words for a response to a prompt, the first that a row has. */
const RESPONSES = ['response', 'completion', 'output'] as const
const PROMPTS = ['prompt', 'input'] as const
const PAIRS = ['chosen', 'rejected', 'chosen_input_ids', 'rejected_input_ids'] as const
const TOKENS = ['input_ids', 'gate_position', 'attention_mask'] as const

/** Names that say what is scored, and can be no labels. */
export const SCORED_FIELDS: readonly string[] = ['messages', ...RESPONSES, ...PROMPTS, ...PAIRS, ...TOKENS]

/** Whether a row is a pair. */
export function isPairRow(row: Readonly<Record<string, unknown>>): boolean {
  return PAIRS.some((field) => field in row)
}

/** Reads a row. Throws on pairs of one side, and on sides that are no form of one. */
export function readRow(row: Readonly<Record<string, unknown>>): ReadRow {
  return isPairRow(row) ? readPair(row) : readResponse(row)
}

const has = (row: Readonly<Record<string, unknown>>) => (field: string) =>
  row[field] !== undefined && row[field] !== null

function readResponse(row: Readonly<Record<string, unknown>>): ReadRow {
  const own = has(row)
  const taken: string[] = []
  const take = (fields: readonly string[]): Record<string, unknown> => {
    const found = fields.filter(own)
    taken.push(...fields)
    return Object.fromEntries(found.map((field) => [field, row[field]]))
  }
  const side = (): unknown => {
    if (own('input_ids')) return { ...take(TOKENS), ...take(['messages', 'prompt', 'response']) }
    if (own('messages')) return { ...take(['messages']), ...take(['response', 'gate_position']) }
    const answer = RESPONSES.find(own)
    // Someone else's "input" and "output" are no prompt and response, unless they are the only ones.
    const prompt = answer === 'output' ? PROMPTS.find(own) : own('prompt') ? 'prompt' : undefined
    if (answer === undefined || prompt === undefined) {
      const alone = answer !== undefined && Array.isArray(row[answer])
      if (!alone) return take(['prompt', 'response', 'gate_position'])
      taken.push(answer)
      return { messages: row[answer] }
    }
    taken.push(answer, prompt)
    const plain = typeof row[prompt] !== 'object' && typeof row[answer] !== 'object'
    const made = plain ? { prompt: row[prompt], response: row[answer] } : responseRow(row[prompt], row[answer], answer)
    return { ...(made as object), ...take(['gate_position']) }
  }
  const sides = [side()]
  const rest = Object.fromEntries(Object.entries(row).filter(([field]) => !taken.includes(field)))
  return { sides, isPair: false, rest }
}

function readPair(row: Readonly<Record<string, unknown>>): ReadRow {
  const own = has(row)
  const rest = Object.fromEntries(
    Object.entries(row).filter(([field]) => field !== 'prompt' && !PAIRS.some((name) => name === field)),
  )
  if (own('chosen_input_ids') && own('rejected_input_ids')) {
    return { sides: [{ input_ids: row.chosen_input_ids }, { input_ids: row.rejected_input_ids }], isPair: true, rest }
  }
  const { chosen, rejected } = row
  const prompt = row.prompt ?? undefined
  if (prompt === undefined && typeof chosen === 'string' && typeof rejected === 'string') {
    return { sides: textSides(chosen, rejected), isPair: true, rest }
  }
  return {
    sides: [responseRow(prompt, chosen, 'chosen'), responseRow(prompt, rejected, 'rejected')],
    isPair: true,
    rest,
  }
}

/** Two texts without a prompt: dialogues of turns, or texts that begin alike. */
function textSides(chosen: string, rejected: string): unknown[] {
  const turns = [chosen, rejected].map((text) => (/^\s*Human:/.test(text) ? splitDialogue(text) : null))
  if (turns.every((found) => found !== null)) return turns.map((messages) => ({ messages }))
  let length = 0
  while (length < Math.min(chosen.length, rejected.length) && chosen[length] === rejected[length]) length++
  // Not in the middle of a word.
  while (length > 0 && !/\s/.test(chosen[length] ?? ' ')) length--
  // Texts that have nothing in common are refused as what they are: answers without a prompt.
  const prompt = length === 0 ? undefined : chosen.slice(0, length)
  if (prompt === undefined) return [responseRow(prompt, chosen, 'chosen'), responseRow(prompt, rejected, 'rejected')]
  return [chosen, rejected].map((text) => ({ prompt, response: text.slice(length) }))
}

/** The fields of a row but its id, as they are given out beside its score; null where there are none. */
export function carriedFields(rest: Readonly<Record<string, unknown>>): Record<string, unknown> | null {
  const entries = Object.entries(rest).filter(([field]) => field !== 'id')
  return entries.length === 0 ? null : Object.fromEntries(entries)
}

/** What names a row: its id, a text that is not empty or a whole number. Throws on others. */
export function readId({ id }: Readonly<Record<string, unknown>>): string | number | undefined {
  if (id === undefined || id === null) return undefined
  if ((typeof id === 'string' && id !== '') || Number.isSafeInteger(id)) return id as string | number
  throw new Error(`id must be a text that is not empty, or a whole number, got ${show(id)}`)
}
