// JSON from untrusted files: one-line errors, repeated names refused, and strings shown safely.

// Whoever walks over values by calling itself has room for this, and no real file is nested so deep.
const DEEPEST = 500

/**
 * Parses JSON; throws `NAME: not valid JSON (...)`, `NAME: is nested more than 500 deep` or, where an object has one name twice,
 * `NAME: "x" is there twice`.
 */
export function parseJson(text: string, name: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new Error(`${name}: not valid JSON (${printable((error as Error).message)})`)
  }
  checkNames(text, name)
  return value
}

/** Parses the JSON of a row as `parseJson` does, but `NaN`, which Python writes for numbers that are missing, is null. */
export function parseJsonRow(text: string, name: string): unknown {
  return parseJson(text.includes('NaN') ? withoutNaN(text) : text, name)
}

/** The text with `null` for each NaN outside of strings. */
function withoutNaN(text: string): string {
  let [out, from] = ['', 0]
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '"') at = endOfString(text, at)
    else if (text.startsWith('NaN', at)) {
      out += `${text.slice(from, at)}null`
      from = at + 3
      at += 2
    }
  }
  return out + text.slice(from)
}

/** Where the string that begins at a quote ends: at its last quote, or at the end of the text. */
function endOfString(text: string, begin: number): number {
  let at = begin + 1
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at
}

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

/** Shows any value in an error: on one line, without control characters, at most about 100 characters. */
export function show(value: unknown): string {
  const text = inWords(value) ?? JSON.stringify(value)
  return printable(text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}...`)
}

/** What has no JSON, or one that would mislead; null for all other values. */
function inWords(value: unknown): string | null {
  if (value === undefined) return 'nothing'
  if (typeof value === 'number') return String(value)
  if (typeof value === 'bigint') return `${value}`
  return typeof value === 'function' || typeof value === 'symbol' ? `a ${typeof value}` : null
}

/** Replaces characters that would break a line or steer a terminal by their \u escapes. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

/** Throws where one object of the (valid) text has a name twice, of which JSON.parse keeps the last silently, and on deep nesting. */
function checkNames(text: string, where: string): void {
  const open: (Set<string> | null)[] = [] // names so far of each enclosing object, null for an array
  let expectName = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '{') {
      open.push(new Set())
      expectName = true
      checkDepth(open.length, where)
    } else if (character === '[') {
      open.push(null)
      expectName = false
      checkDepth(open.length, where)
    } else if (character === '}' || character === ']') {
      open.pop()
      expectName = false
    } else if (character === ',') {
      expectName = open[open.length - 1] !== null
    } else if (character === '"') {
      const start = at
      at = endOfString(text, at)
      if (!expectName) continue
      const name = JSON.parse(text.slice(start, at + 1)) as string
      const names = open[open.length - 1]
      if (names?.has(name)) throw new Error(`${where}: ${show(name)} is there twice`)
      names?.add(name)
      expectName = false
    }
  }
}

function checkDepth(depth: number, where: string): void {
  if (depth > DEEPEST) throw new Error(`${where}: is nested more than ${DEEPEST} deep`)
}
