// Python's three ways to format: '%s' % x, '{}'.format(x), and the numbers in both.
import { type Budget, TemplateError } from './budget.ts'
import { floatText, repr, textOf } from './show.ts'
import { Dict, isNumber, numeric, Tuple, typeName, Undefined, type Value } from './values.ts'

/** Pads by code points. */
export function pad(text: string, width: number, align: '<' | '>' | '^', fill: string, budget: Budget): string {
  const missing = width - Array.from(text).length
  if (missing <= 0) return text
  budget.size(text.length + missing)
  const left = align === '<' ? 0 : align === '>' ? missing : Math.floor(missing / 2)
  return fill.repeat(left) + text + fill.repeat(missing - left)
}

/** The digits of a number without its sign, in the style of e, f, g or %. */
function floatDigits(value: number, style: string, precision: number, alternate: boolean): string {
  const lower = style.toLowerCase()
  const upper = (text: string): string => (style === lower ? text : text.toUpperCase())
  if (!Number.isFinite(value)) return upper(Number.isNaN(value) ? 'nan' : 'inf')
  if (precision > 100) throw new TemplateError('a precision above 100 is not supported')
  const scientific = (digits: number): string => {
    const [mantissa, exponent] = value.toExponential(digits).split('e')
    const power = Number(exponent)
    return `${mantissa}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  }
  if (lower === 'f') {
    if (value >= 1e21) return decimalDigits(value, precision)
    return value.toFixed(precision)
  }
  if (lower === 'e') return upper(scientific(precision))
  const digits = precision === 0 ? 1 : precision
  const power = value === 0 ? 0 : Number(value.toExponential(digits - 1).split('e')[1])
  const wide = power < -4 || power >= digits
  const text = wide ? scientific(digits - 1) : value.toFixed(Math.max(0, digits - 1 - power))
  if (alternate) return upper(text)
  return upper(text.replace(/(\.\d*?)0+(e|$)/, '$1$2').replace(/\.(e|$)/, '$1'))
}

/** toFixed gives an exponent from 1e21 on; such floats are whole. */
function decimalDigits(value: number, precision: number): string {
  return String(BigInt(value)) + (precision > 0 ? `.${'0'.repeat(precision)}` : '')
}

function signOf(value: bigint | number, style: string): string {
  if (value < 0 || Object.is(value, -0)) return '-'
  return style === '+' || style === ' ' ? style : ''
}

const magnitude = (value: bigint): bigint => (value < 0n ? -value : value)

function whole(value: Value, style: string): bigint {
  if (value instanceof Undefined) value.fail()
  if (isNumber(value)) {
    const number = numeric(value)
    if (typeof number === 'bigint') return number
    if ('diu'.includes(style) && Number.isFinite(number)) return BigInt(Math.trunc(number))
  }
  const wanted = 'diu'.includes(style) ? 'a real number is required' : 'an integer is required'
  throw new TemplateError(`%${style} format: ${wanted}, not ${typeName(value)}`)
}

const BASES: Readonly<Record<string, [number, string]>> = { b: [2, '0b'], o: [8, '0o'], x: [16, '0x'], X: [16, '0X'] }

function based(value: bigint, style: string, alternate: boolean): string {
  const [base, prefix] = BASES[style] ?? [10, '']
  const digits = magnitude(value).toString(base)
  return (alternate ? prefix : '') + (style === 'X' ? digits.toUpperCase() : digits)
}

/** '%s and %d' % values. */
export function percentFormat(format: string, values: Value, budget: Budget): string {
  const list = values instanceof Tuple ? values.items : [values]
  let used = 0
  const next = (): Value => {
    if (used >= list.length) throw new TemplateError('not enough arguments for format string')
    return list[used++]
  }
  let named = false
  const pattern = /%(?:\(([^)]*)\))?([-#0 +]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?([\s\S])?/gu
  const text = format.replace(pattern, (_, key, flags, width, precision, style) => {
    if (style === undefined) throw new TemplateError('incomplete format')
    let value: Value | undefined
    if (key !== undefined) {
      if (!(values instanceof Dict)) throw new TemplateError('format requires a mapping')
      named = true
      value = values.get(key)
      if (value === undefined) throw new TemplateError(repr(key, budget))
    }
    const count = (of: string | undefined): number | null => {
      if (of === undefined) return null
      if (of !== '*') return Number(of === '' ? 0 : of)
      const number = next()
      if (typeof number !== 'bigint') throw new TemplateError('* wants int')
      return Number(number)
    }
    const [wide, exact] = [count(width), count(precision)]
    if (style === '%') return '%'
    value ??= next()
    const shown = percentOne(value, style, flags, exact, budget)
    const left = flags.includes('-') || (wide ?? 0) < 0
    if (flags.includes('0') && !left && !'srac'.includes(style)) {
      const [, head, digits] = /^([-+ ]?(?:0[xXob])?)(.*)$/s.exec(shown)!
      return head + pad(digits, (wide ?? 0) - head.length, '>', '0', budget)
    }
    return pad(shown, Math.abs(wide ?? 0), left ? '<' : '>', ' ', budget)
  })
  if (
    !named &&
    used < list.length &&
    !(values instanceof Dict || Array.isArray(values) || values instanceof Undefined)
  ) {
    throw new TemplateError('not all arguments converted during string formatting')
  }
  return budget.text(text)
}

function percentOne(value: Value, style: string, flags: string, exact: number | null, budget: Budget): string {
  const sign = flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '-'
  if ('sra'.includes(style)) {
    const text = style === 's' ? textOf(value, budget) : style === 'r' ? repr(value, budget) : asciiRepr(value, budget)
    return exact === null ? text : Array.from(text).slice(0, exact).join('')
  }
  if (style === 'c') {
    if (typeof value === 'string' && Array.from(value).length === 1) return value
    if (typeof value === 'bigint' && value >= 0n && value < 0x110000n) return String.fromCodePoint(Number(value))
    throw new TemplateError('%c requires int or char')
  }
  if ('diuoxX'.includes(style)) {
    const number = whole(value, style)
    const text = based(number, style, flags.includes('#'))
    const [, prefix, digits] = /^(0[xXo])?(.*)$/.exec(text)!
    return signOf(number, sign) + (prefix ?? '') + digits.padStart(exact ?? 0, '0')
  }
  if ('eEfFgG'.includes(style)) {
    if (!isNumber(value)) {
      if (value instanceof Undefined) value.fail()
      throw new TemplateError(`must be real number, not ${typeName(value)}`)
    }
    const number = Number(numeric(value))
    return signOf(number, sign) + floatDigits(Math.abs(number), style, exact ?? 6, flags.includes('#'))
  }
  throw new TemplateError(`unsupported format character '${style}'`)
}

function asciiRepr(value: Value, budget: Budget): string {
  return repr(value, budget).replace(/[^\p{ASCII}]|\x7f/gu, (character) => {
    const code = character.codePointAt(0)!
    if (code < 0x100) return `\\x${code.toString(16)}`
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`
  })
}

/** What reads a member of a value: `{0.name}` and `{0[name]}`. */
export interface Reader {
  attribute(of: Value, name: string): Value
  item(of: Value, key: Value): Value
}

/** '{} and {name:>5}'.format(...). */
export function braceFormat(
  format: string,
  positional: readonly Value[],
  named: ReadonlyMap<string, Value>,
  reader: Reader,
  budget: Budget,
): string {
  let automatic = 0
  let manual = false
  const field = (name: string): Value => {
    const [first] = /^[^.[]*/.exec(name)!
    let value: Value | undefined
    if (first === '' || /^\d+$/.test(first)) {
      if (first === '' ? manual : automatic > 0) {
        throw new TemplateError('cannot switch between automatic field numbering and manual field specification')
      }
      if (first !== '') manual = true
      value = positional[first === '' ? automatic++ : Number(first)]
      if (value === undefined) throw new TemplateError('Replacement index out of range for positional args tuple')
    } else {
      value = named.get(first)
      if (value === undefined) throw new TemplateError(repr(first, budget))
    }
    let rest = name.slice(first.length)
    while (rest !== '') {
      const [whole, attribute, item] = /^(?:\.([^.[]+)|\[([^\]]+)\])/.exec(rest) ?? []
      if (whole === undefined) throw new TemplateError('Empty attribute in format string')
      value =
        attribute !== undefined
          ? reader.attribute(value, attribute)
          : reader.item(value, /^\d+$/.test(item) ? BigInt(item) : item)
      rest = rest.slice(whole.length)
    }
    return value
  }
  const fill = (text: string, depth: number): string => {
    if (depth < 0) throw new TemplateError('Max string recursion exceeded')
    let result = ''
    for (let i = 0; i < text.length; i++) {
      const character = text[i]
      if (character !== '{' && character !== '}') {
        result += character
        continue
      }
      if (text[i + 1] === character) {
        result += character
        i++
        continue
      }
      if (character === '}') throw new TemplateError("Single '}' encountered in format string")
      const end = closing(text, i + 1)
      const [, name, conversion, spec] =
        /^((?:\[[^\]]*\]|[^!:[])*)(?:!([^:]*))?(?::(.*))?$/s.exec(text.slice(i + 1, end)) ?? []
      if (name === undefined) throw new TemplateError("expected '}' before end of string")
      let value = field(name)
      if (conversion !== undefined) {
        if (conversion === 's') value = textOf(value, budget)
        else if (conversion === 'r') value = repr(value, budget)
        else if (conversion === 'a') value = asciiRepr(value, budget)
        else throw new TemplateError(`Unknown conversion specifier '${conversion}'`)
      }
      result += formatValue(value, fill(spec ?? '', depth - 1), budget)
      i = end
    }
    return result
  }
  return budget.text(fill(format, 2))
}

function closing(text: string, from: number): number {
  let depth = 1
  for (let i = from; i < text.length; i++) {
    if (text[i] === '{') depth++
    else if (text[i] === '}' && --depth === 0) return i
  }
  throw new TemplateError("expected '}' before end of string")
}

const SPEC = /^(?:([\s\S])?([<>=^]))?([-+ ])?(z)?(#)?(0)?(\d+)?([_,])?(?:\.(\d+))?([\s\S])?$/u

/** Python's format(value, spec). */
function formatValue(value: Value, spec: string, budget: Budget): string {
  if (spec === '') return textOf(value, budget)
  if (!(typeof value === 'string' || isNumber(value))) {
    throw new TemplateError(`unsupported format string passed to ${typeName(value)}.__format__`)
  }
  const found = SPEC.exec(spec)
  if (found === null || found[4])
    throw new TemplateError(`Invalid format specifier '${spec}' for object of type '${typeName(value)}'`)
  const [, fill, align, sign, , alternate, zero, width, group, precision, style] = found
  const wide = Number(width ?? 0)
  if (typeof value === 'string') {
    if (sign || alternate || group || align === '=' || (style ?? 's') !== 's') {
      throw new TemplateError(`the format '${spec}' is not one for a text`)
    }
    const text = precision === undefined ? value : Array.from(value).slice(0, Number(precision)).join('')
    return pad(text, wide, (align as '<' | undefined) ?? '<', fill ?? (zero ? '0' : ' '), budget)
  }
  if (typeof value === 'boolean' && style === undefined)
    throw new TemplateError('formatting bool with a width is not supported')
  const number = numeric(value)
  let digits = numberDigits(number, style, precision, alternate !== undefined, spec)
  if (group) digits = digits.replace(/^\d+/, (head) => head.replace(/\B(?=(\d{3})+$)/g, group))
  const head = signOf(number, sign ?? '-')
  const character = fill ?? (zero ? '0' : ' ')
  const at = align ?? (zero ? '=' : '>')
  if (at !== '=') return pad(head + digits, wide, at as '<', character, budget)
  if (group && character === '0') throw new TemplateError('zeros together with separators are not supported')
  return head + pad(digits, wide - head.length, '>', character, budget)
}

function numberDigits(
  number: bigint | number,
  style: string | undefined,
  precision: string | undefined,
  alternate: boolean,
  spec: string,
): string {
  const exact = precision === undefined ? null : Number(precision)
  if (typeof number === 'bigint' && (style === undefined || 'bdoxXnc'.includes(style))) {
    if (exact !== null) throw new TemplateError('Precision not allowed in integer format specifier')
    if (style === 'c') return String.fromCodePoint(Number(number))
    return based(number, style ?? 'd', alternate)
  }
  const value = Math.abs(Number(number))
  if (style === undefined) {
    if (exact === null) return floatText(value)
    throw new TemplateError(`the format '${spec}' of a float without a letter is not supported`)
  }
  if (style === '%') return `${floatDigits(value * 100, 'f', exact ?? 6, alternate)}%`
  if ('eEfFgG'.includes(style)) return floatDigits(value, style, exact ?? 6, alternate)
  throw new TemplateError(
    `Unknown format code '${style}' for object of type '${typeof number === 'bigint' ? 'int' : 'float'}'`,
  )
}
