// JSON from untrusted files: one-line errors, repeated names refused, and strings shown safely.

/** Parses JSON; throws `NAME: not valid JSON (...)` or, where an object has one name twice, `NAME: "x" is there twice`. */
export function parseJson(text: string, name: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new Error(`${name}: not valid JSON (${printable((error as Error).message)})`)
  }
  const twice = repeatedName(text)
  if (twice !== null) throw new Error(`${name}: ${show(twice)} is there twice`)
  return value
}

/** Parses JSON as `parseJson` does, where NaN may stand for a value, as Python writes it: it is read as null. */
export function parseRow(text: string, name: string): unknown {
  return parseJson(text.includes('NaN') ? withoutNaN(text) : text, name)
}

/** A text of JSON with null for each NaN that is no part of a string or of a word. */
function withoutNaN(text: string): string {
  const parts: string[] = []
  let [from, quoted] = [0, false]
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (quoted && character === '\\') at++
    else if (character === '"') quoted = !quoted
    else if (
      !quoted &&
      character === 'N' &&
      text.startsWith('NaN', at) &&
      !inWord(text[at - 1]) &&
      !inWord(text[at + 3])
    ) {
      parts.push(text.slice(from, at), 'null')
      from = at + 3
      at += 2
    }
  }
  return parts.join('') + text.slice(from)
}

const inWord = (character: string | undefined): boolean => character !== undefined && /[\w.+-]/.test(character)

/** Parses JSON as `parseJson` does and requires an object. */
export function parseJsonObject(text: string, name: string): Record<string, unknown> {
  const value = parseJson(text, name)
  if (!isObject(value)) throw new Error(`${name}: must be a JSON object, got ${show(value)}`)
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const SHOWN = 100

/** Shows any JSON value in an error: on one line, without control characters, at most about 100 characters. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return printable(text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}...`)
}

/** Replaces characters that would break a line or steer a terminal by their \u escapes. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

/** Finds a name that one object of the (valid) JSON text has twice; JSON.parse keeps the last one silently. */
function repeatedName(text: string): string | null {
  const open: (Set<string> | null)[] = [] // names so far of each enclosing object, null for an array
  let expectName = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '{') {
      open.push(new Set())
      expectName = true
    } else if (character === '[') {
      open.push(null)
      expectName = false
    } else if (character === '}' || character === ']') {
      open.pop()
      expectName = false
    } else if (character === ',') {
      expectName = open[open.length - 1] !== null
    } else if (character === '"') {
      const start = at
      at++
      while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
      if (!expectName) continue
      const name = JSON.parse(text.slice(start, at + 1)) as string
      const names = open[open.length - 1]
      if (names?.has(name)) return name
      names?.add(name)
      expectName = false
    }
  }
  return null
}
