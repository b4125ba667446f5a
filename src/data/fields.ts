// Fields of records: texts, conversations and what makes a row unusable.
import { isObject, show } from '../files/json.ts'
import type { Message } from '../text/chat.ts'
import { plainMessages } from '../text/messages.ts'

/** A row that is left out and counted, with a reason that is the same for all rows of its kind. */
export class Unusable extends Error {
  /** Under which the row is counted. */
  get reason(): string {
    return this.message
  }
}

/** A record does not have the form of its dataset: the file or the entry is wrong, so nothing is read on. */
export class FormError extends Error {}

/** The field of a record; throws where it has none of this name. */
export function field(record: Record<string, unknown>, name: string): unknown {
  if (Object.hasOwn(record, name)) return record[name]
  const names = Object.keys(record)
  throw new FormError(`has no field ${show(name)}, it has ${names.slice(0, 12).map(show).join(', ') || 'none'}`)
}

/** A text, empty or not. Throws FormError where it is none. */
export function anyText(record: Record<string, unknown>, name: string): string {
  const value = field(record, name)
  if (typeof value !== 'string') throw new FormError(`${show(name)} must be a text, got ${show(value)}`)
  return value
}

/** A text that is not empty. Throws Unusable where it is null or blank, FormError where it is no text. */
export function text(record: Record<string, unknown>, name: string): string {
  const value = field(record, name)
  if (value === null || value === undefined) throw new Unusable(`no ${name}`)
  const found = anyText(record, name)
  if (found.trim() === '') throw new Unusable(`an empty ${name}`)
  return found
}

/** A list of objects. */
export function objects(record: Record<string, unknown>, name: string): Record<string, unknown>[] {
  const value = field(record, name)
  if (value === null) return []
  if (Array.isArray(value) && value.every(isObject)) return value
  throw new FormError(`${show(name)} must be a list of objects, got ${show(value)}`)
}

/** A list of texts, empty ones included. */
export function texts(record: Record<string, unknown>, name: string): string[] {
  const value = field(record, name)
  if (!Array.isArray(value) || !value.every((one) => typeof one === 'string')) {
    throw new FormError(`${show(name)} must be a list of texts, got ${show(value)}`)
  }
  return value
}

/** A conversation that ends with an assistant's turn. Turns of nothing and of unknown roles make the row unusable. */
export function messages(record: Record<string, unknown>, name: string): Message[] {
  const found = (plainMessages(objects(record, name)) as Record<string, unknown>[]).map(({ role, content }) => {
    if (typeof role !== 'string' || (typeof content !== 'string' && content !== null)) {
      throw new FormError(`${show(name)} must be messages with "role" and "content", got ${show({ role, content })}`)
    }
    return { role, content: content ?? '' }
  })
  return conversation(found, name)
}

/** Checks a conversation: system or user first, an assistant last, no empty turn. */
export function conversation(found: readonly Message[], name: string): Message[] {
  if (found.length < 2) throw new Unusable(`fewer than two messages in ${name}`)
  if (found.some(({ role }) => !['system', 'user', 'assistant'].includes(role))) {
    throw new Unusable(`an unknown role in ${name}`)
  }
  if (found.some(({ content }) => content.trim() === '')) throw new Unusable(`an empty message in ${name}`)
  if (found[found.length - 1].role !== 'assistant') throw new Unusable(`no answer at the end of ${name}`)
  if (!found.some(({ role }) => role === 'user')) throw new Unusable(`no user in ${name}`)
  return [...found]
}

/** Turns of a text such as Anthropic's, where a blank line and `Human:` or `Assistant:` begin each. */
export function dialogue(record: Record<string, unknown>, name: string): Message[] {
  const found = splitDialogue(text(record, name))
  if (found === null) throw new Unusable(`text before the first turn of ${name}`)
  return conversation(found, name)
}

/** The turns of such a text, empty ones included, without blanks around them; null where text stands before the first. */
export function splitDialogue(whole: string): Message[] | null {
  const parts = `\n\n${whole.trimStart()}`.split(/\n\n(Human|Assistant):/)
  if (parts[0].trim() !== '') return null
  const found: Message[] = []
  for (let i = 1; i + 1 < parts.length; i += 2) {
    const role = parts[i] === 'Human' ? 'user' : 'assistant'
    found.push({ role, content: parts[i + 1].trim() })
  }
  return found
}

/** A single question with its answer as texts, or null where the conversation is more than that. */
export function asPair(turns: readonly Message[]): { prompt: string; response: string } | null {
  const [first, second] = turns
  if (turns.length !== 2 || first.role !== 'user') return null
  return { prompt: first.content, response: second.content }
}
