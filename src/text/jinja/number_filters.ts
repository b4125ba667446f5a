// Texts and numbers to numbers: int, float and round.
import { BLANKS } from './blanks.ts'
import { TemplateError } from './budget.ts'
import { isNumber, Markup, numeric, typeName, Undefined, type Value } from './values.ts'

const EDGES = new RegExp(`^[${BLANKS}]+|[${BLANKS}]+$`, 'g')
const FLOAT = /^[+-]?(?:(?:\d+(?:_\d+)*)?\.?\d+(?:_\d+)*|\d+(?:_\d+)*\.)(?:e[+-]?\d+(?:_\d+)*)?$/i
const NAMED = /^([+-]?)(inf|infinity|nan)$/i
/** Numbers of more characters than this are nobody's. */
const LENGTH = 4300

/** Decimal digits of all scripts are digits to Python. */
function ascii(text: string): string {
  return text
    .slice(0, LENGTH + 1)
    .replace(EDGES, '')
    .replace(/\p{Nd}/gu, (digit) => {
      const code = digit.codePointAt(0)!
      let zero = code
      while (code - zero < 9 && /\p{Nd}/u.test(String.fromCodePoint(zero - 1))) zero--
      if (code - zero > 9) throw new TemplateError(`the digit ${digit} is not supported`)
      return code < 128 ? digit : String(code - zero)
    })
}

/** Python's float(), or null where it refuses. */
export function floatOf(value: Value): number | null {
  if (value instanceof Undefined) return value.fail()
  if (isNumber(value)) {
    const number = Number(numeric(value))
    if (typeof value === 'bigint' && !Number.isFinite(number))
      throw new TemplateError('int too large to convert to float')
    return number
  }
  const text = value instanceof Markup ? value.text : value
  if (typeof text !== 'string') return null
  const digits = ascii(text)
  const [, sign, name] = NAMED.exec(digits) ?? []
  if (name !== undefined) return (sign === '-' ? -1 : 1) * (name.toLowerCase() === 'nan' ? Number.NaN : Infinity)
  return digits.length <= LENGTH && FLOAT.test(digits) ? Number(digits.replaceAll('_', '')) : null
}

const DIGITS: Readonly<Record<number, RegExp>> = {
  2: /^(?:0b_?)?[01]+(?:_[01]+)*$/i,
  8: /^(?:0o_?)?[0-7]+(?:_[0-7]+)*$/i,
  10: /^\d+(?:_\d+)*$/,
  16: /^(?:0x_?)?[\da-f]+(?:_[\da-f]+)*$/i,
}

/** Python's int(), by way of float() where that fails, or null where both refuse. */
export function intOf(value: Value, base: number): bigint | null {
  if (value instanceof Undefined) return value.fail()
  if (typeof value === 'string') {
    if (!(base in DIGITS)) throw new TemplateError(`int of base ${base} is not supported`)
    const [, sign, digits] = /^([+-]?)(.*)$/s.exec(ascii(value))!
    if (digits.length <= LENGTH && DIGITS[base].test(digits)) {
      const bare = digits.replaceAll('_', '').toLowerCase()
      const prefix = { 2: '0b', 8: '0o', 16: '0x' }[base] ?? ''
      const number = BigInt(bare.startsWith(prefix) ? (prefix === '' ? bare : bare) : prefix + bare)
      return sign === '-' ? -number : number
    }
  }
  if (typeof value === 'bigint' || typeof value === 'boolean') return BigInt(value)
  const float = floatOf(value)
  return float === null || !Number.isFinite(float) ? null : BigInt(Math.trunc(float))
}

/** Python's round: to the nearest, to the even one of two. */
function nearest(value: number, precision: number): number {
  if (!Number.isFinite(value) || Math.abs(value) >= 1e21) return value
  const digits = Math.abs(value).toFixed(precision)
  const exact = Math.abs(value).toFixed(100)
  const rest = exact.slice(exact.indexOf('.') + 1 + precision)
  const tie = /^50*$/.test(rest)
  const down = exact.slice(0, exact.indexOf('.') + (precision === 0 ? 0 : 1 + precision))
  const rounded = tie && /[02468]\.?$/.test(down) ? down : digits
  return Math.sign(value) * Number(rounded) || (value < 0 || Object.is(value, -0) ? -0 : 0)
}

export function rounded(value: Value, precision: number, method: Value): Value {
  if (value instanceof Undefined) return value.fail()
  if (!['common', 'ceil', 'floor'].includes(method as string))
    throw new TemplateError('method must be common, ceil or floor')
  if (!isNumber(value)) throw new TemplateError(`type ${typeName(value)} doesn't define __round__ method`)
  if (precision < 0 || precision > 50)
    throw new TemplateError('a precision of round below 0 or above 50 is not supported')
  const number = numeric(value)
  if (method === 'common') return typeof number === 'bigint' ? number : nearest(number, precision)
  const scaled = Number(number) * 10 ** precision
  if (!Number.isFinite(scaled)) throw new TemplateError('cannot convert float infinity or NaN to integer')
  return (method === 'ceil' ? Math.ceil(scaled) : Math.floor(scaled)) / 10 ** precision + 0
}
