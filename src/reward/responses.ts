// Fields of rows as people write them: what is scored, responses to a prompt, labels.
import { isObject, show } from '../files/json.ts'
import { plainMessages } from '../text/messages.ts'

/** Fields that say what is scored; all others of a row are labels or unknown. */
export const ROW_FIELDS = ['prompt', 'response', 'messages', 'input_ids', 'gate_position']

/** Reads one label: NaN is a missing one, true is 1 and false 0. Throws where it is nothing of these, or not finite. */
export function readLabel(value: unknown, where: string): number {
  if (typeof value === 'boolean') return value ? 1 : 0
  if (Number.isNaN(value)) return Number.NaN
  if (typeof value !== 'number') throw new Error(`${where} must be a number or null, got ${show(value)}`)
  // JSON knows no infinity, but 1e999 reads as one; and labels are kept as float32.
  if (!Number.isFinite(Math.fround(value))) throw new Error(`${where} must be a finite float32 number, got ${value}`)
  return value
}

/**
 * A response to a prompt as a row: a text; a list of messages, which is the whole conversation or what comes after the prompt; or a row
 * of its own. The prompt is a text or a list of messages. Throws on others; `what` is what errors call the response.
 */
export function responseRow(givenPrompt: unknown, given: unknown, what: string): unknown {
  const [prompt, response] = [plainMessages(givenPrompt), plainMessages(given)]
  if (isObject(response)) return response
  if (typeof response !== 'string' && !Array.isArray(response)) {
    throw new Error(`${what} must be a text, a list of messages or a row, got ${show(response)}`)
  }
  const before = Array.isArray(prompt)
    ? prompt
    : typeof prompt === 'string'
      ? [{ role: 'user', content: prompt }]
      : null
  if (typeof response === 'string') {
    if (before === null) throw new Error(`${what} is a text, so the row needs a "prompt", got ${show(prompt)}`)
    if (typeof prompt === 'string') return { prompt, response }
    return { messages: [...before, { role: 'assistant', content: response }] }
  }
  const whole =
    before === null || (typeof prompt === 'string' ? roleOf(response[0]) !== 'assistant' : begins(response, before))
  return { messages: whole ? response : [...before, ...response] }
}

const roleOf = (message: unknown): unknown => (isObject(message) ? message.role : undefined)

/** Whether a conversation begins with all the messages of another. */
function begins(messages: readonly unknown[], first: readonly unknown[]): boolean {
  const contentOf = (message: unknown) => (isObject(message) ? message.content : undefined)
  return (
    messages.length > first.length &&
    first.every(
      (message, i) => roleOf(message) === roleOf(messages[i]) && contentOf(message) === contentOf(messages[i]),
    )
  )
}
