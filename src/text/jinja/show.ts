// How Python writes values: str(), repr() and json.dumps().
import { type Budget, TemplateError } from './budget.ts'
import {
  Callable,
  Dict,
  Markup,
  Members,
  Namespace,
  Range,
  Stream,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts'

/** Python's repr of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf'
  if (Object.is(value, -0)) return '-0.0'
  const [digits, exponent] = value.toExponential().split('e')
  const power = Number(exponent)
  if (value !== 0 && (power < -4 || power >= 16))
    return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  const text = power < 0 ? value.toFixed(Math.max(0, digits.replace(/[-.]/g, '').length - 1 - power)) : String(value)
  return text.includes('.') ? text : `${text}.0`
}

/** Python's repr of a text. */
export function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\\'"]|[^\x20-\x7e]/gu, (character) => {
    if (character === '\\' || character === mark) return `\\${character}`
    if (character === "'" || character === '"') return character
    if (character === '\n') return '\\n'
    if (character === '\r') return '\\r'
    if (character === '\t') return '\\t'
    const code = character.codePointAt(0)!
    // Python prints what is not of the categories Other and Separator.
    if (code > 0x7f && !/[\p{C}\p{Z}]/u.test(character)) return character
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`
    if (code < 0x10000) return `\\u${code.toString(16).padStart(4, '0')}`
    return `\\U${code.toString(16).padStart(8, '0')}`
  })
  return `${mark}${escaped}${mark}`
}

/** Python's str(). */
export function textOf(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value
  if (value instanceof Markup) return value.text
  if (value instanceof Undefined) return ''
  return repr(value, budget)
}

/** Python's repr(). */
export function repr(value: Value, budget: Budget): string {
  budget.spend()
  if (value === null) return 'None'
  if (typeof value === 'string') return quote(value)
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return floatText(value)
  const list = (items: readonly Value[]): string =>
    joined(
      items.map((item) => repr(item, budget)),
      budget,
    )
  if (Array.isArray(value)) return `[${list(value)}]`
  if (value instanceof Tuple) return `(${list(value.items)}${value.items.length === 1 ? ',' : ''})`
  if (value instanceof Dict) {
    const entries = Array.from(value.entries(), ([key, of]) => `${repr(key, budget)}: ${repr(of, budget)}`)
    return `{${joined(entries, budget)}}`
  }
  if (value instanceof View) return `dict_${value.part}([${list(value.list())}])`
  if (value instanceof Range) {
    return `range(${value.start}, ${value.stop}${value.step === 1 ? '' : `, ${value.step}`})`
  }
  if (value instanceof Markup) return `Markup(${quote(value.text)})`
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Members) return value.show()
  if (value instanceof Namespace) {
    return `<Namespace ${repr(new Dict(value.members), budget)}>`
  }
  if (value instanceof Callable && value.type === 'Macro')
    return `<Macro ${value.members.get('name') === null ? 'anonymous' : quote(value.name)}>`
  if (value instanceof Stream || value instanceof Callable) {
    throw new TemplateError(`a ${typeName(value)} is printed; Python would print an address of its memory`)
  }
  throw new TemplateError(`a ${typeName(value)} cannot be printed`)
}

function joined(parts: readonly string[], budget: Budget): string {
  budget.size(parts.reduce((sum, part) => sum + part.length + 2, 0))
  return parts.join(', ')
}

export interface JsonStyle {
  readonly ascii: boolean
  readonly indent: string | null
  readonly separators: readonly [string, string] | null
  readonly sorted: boolean
}

/** Python's json.dumps(). */
export function json(value: Value, style: JsonStyle, budget: Budget, depth = 0): string {
  budget.spend()
  if (value === null) return 'null'
  if (typeof value === 'boolean' || typeof value === 'bigint') return String(value)
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return floatText(value)
    return Number.isNaN(value) ? 'NaN' : value < 0 ? '-Infinity' : 'Infinity'
  }
  const [comma, colon] = style.separators ?? [style.indent === null ? ', ' : ',', ': ']
  const inside = (open: string, parts: readonly string[], close: string): string => {
    if (parts.length === 0) return open + close
    budget.size(parts.reduce((sum, part) => sum + part.length + 2, 0))
    if (style.indent === null) return open + parts.join(comma) + close
    const line = `\n${style.indent.repeat(depth + 1)}`
    return `${open}${line}${parts.join(comma + line)}\n${style.indent.repeat(depth)}${close}`
  }
  if (typeof value === 'string' || value instanceof Markup)
    return jsonText(typeof value === 'string' ? value : value.text, style.ascii)
  if (Array.isArray(value) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items
    return inside(
      '[',
      items.map((item) => json(item, style, budget, depth + 1)),
      ']',
    )
  }
  if (value instanceof Dict) {
    const entries = Array.from(value.entries(), ([key, of]) => [key, of] as const)
    if (style.sorted) {
      if (entries.some(([key]) => typeof key !== 'string'))
        throw new TemplateError('sort_keys needs keys that are texts')
      entries.sort(([a], [b]) => ((a as string) < (b as string) ? -1 : 1))
    }
    const parts = entries.map(([key, of]) => {
      return `${jsonText(jsonKey(key, style, budget), style.ascii)}${colon}${json(of, style, budget, depth + 1)}`
    })
    return inside('{', parts, '}')
  }
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`)
}

function jsonKey(key: Value, style: JsonStyle, budget: Budget): string {
  if (typeof key === 'string') return key
  if (key === null || typeof key === 'boolean' || typeof key === 'bigint' || typeof key === 'number') {
    return json(key, style, budget)
  }
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`)
}

function jsonText(text: string, ascii: boolean): string {
  const named: Record<string, string> = {
    '"': '\\"',
    '\\': '\\\\',
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
    '\f': '\\f',
    '\b': '\\b',
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what JSON escapes
  const escaped = text.replace(ascii ? /["\\]|[^\x20-\x7e]/g : /["\\\x00-\x1f]/g, (character) => {
    return named[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
  return `"${escaped}"`
}
