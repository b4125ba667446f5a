// Messages as people write them, as plain ones of role and content.
import { isObject } from '../files/json.ts'

/**
 * Messages as Hugging Face writes them, as plain ones: a "name", "tool_calls" and the like that are null are left out, and content that
 * is a list of {"type": "text", "text"} becomes one text. What else they hold is left for `checkMessages` to refuse.
 */
export function plainMessages(messages: unknown): unknown {
  if (!Array.isArray(messages) || !messages.some(needsWork)) return messages
  return messages.map((message: unknown) => {
    if (!isObject(message)) return message
    const entries = Object.entries(message).filter(
      ([field, value]) => value !== null || field === 'role' || field === 'content',
    )
    const plain = Object.fromEntries(entries)
    return Array.isArray(plain.content) ? { ...plain, content: joinParts(plain.content) } : plain
  })
}

function needsWork(message: unknown): boolean {
  return isObject(message) && Object.values(message).some((value) => value === null || Array.isArray(value))
}

/** Parts of text as one text; a list that holds anything else stays as it is. */
function joinParts(parts: readonly unknown[]): unknown {
  const texts = parts.map((part) => {
    if (typeof part === 'string') return part
    return isObject(part) && part.type === 'text' && typeof part.text === 'string' ? part.text : null
  })
  return texts.includes(null) || texts.length === 0 ? parts : texts.join('')
}
