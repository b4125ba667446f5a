// Python's operators on the values of a template.
import { type Budget, TemplateError } from './budget.ts'
import { percentFormat } from './format.ts'
import {
  compare,
  Dict,
  isEqual,
  isNumber,
  iterate,
  Markup,
  numeric,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts'

const BITS = 65536

function unsupported(operator: string, a: Value, b: Value): never {
  const name = operator === '**' ? '** or pow()' : operator
  throw new TemplateError(`unsupported operand type(s) for ${name}: '${typeName(a)}' and '${typeName(b)}'`)
}

export function arithmetic(operator: string, a: Value, b: Value, budget: Budget): Value {
  // '%s' % undefined prints nothing.
  if (operator === '%' && typeof a === 'string') return percentFormat(a, b, budget)
  if (a instanceof Undefined) a.fail()
  if (b instanceof Undefined) b.fail()
  if (isNumber(a) && isNumber(b)) return numbers(operator, numeric(a), numeric(b))
  if (operator === '+') return plus(a, b, budget)
  if (operator === '*') {
    if (isCount(b)) return times(a, b, budget)
    if (isCount(a)) return times(b, a, budget)
  }
  return unsupported(operator, a, b)
}

const isCount = (value: Value): value is bigint | boolean => typeof value === 'bigint' || typeof value === 'boolean'

function plus(a: Value, b: Value, budget: Budget): Value {
  if (typeof a === 'string' && typeof b === 'string') {
    budget.size(a.length + b.length)
    return a + b
  }
  if (a instanceof Markup || b instanceof Markup) {
    const parts = [a, b].map((part) => {
      if (part instanceof Markup) return part.text
      return typeof part === 'string' ? escapeHtml(part) : unsupported('+', a, b)
    })
    return new Markup(budget.text(parts.join('')))
  }
  if (Array.isArray(a) && Array.isArray(b)) {
    budget.size(16 * (a.length + b.length))
    return [...a, ...b]
  }
  if (a instanceof Tuple && b instanceof Tuple) {
    budget.size(16 * (a.items.length + b.items.length))
    return new Tuple([...a.items, ...b.items])
  }
  if (typeof a === 'string') throw new TemplateError(`can only concatenate str (not "${typeName(b)}") to str`)
  return unsupported('+', a, b)
}

function times(of: Value, count: bigint | boolean, budget: Budget): Value {
  const n = Number(BigInt(count) < 0n ? 0n : BigInt(count))
  if (typeof of === 'string') {
    budget.size(of.length * n)
    return of.repeat(of === '' ? 0 : n)
  }
  const items = Array.isArray(of) ? of : of instanceof Tuple ? of.items : unsupported('*', of, count)
  budget.size(16 * items.length * n)
  const repeated = items.length === 0 ? [] : Array.from({ length: n }, () => items).flat()
  return Array.isArray(of) ? repeated : new Tuple(repeated)
}

function numbers(operator: string, a: bigint | number, b: bigint | number): Value {
  if (operator === '/') return divide(a, b)
  if (typeof a === 'bigint' && typeof b === 'bigint') return wholeNumbers(operator, a, b)
  const [x, y] = [toFloat(a), toFloat(b)]
  switch (operator) {
    case '+':
      return x + y
    case '-':
      return x - y
    case '*':
      return x * y
    case '**':
      return power(x, y)
  }
  if (y === 0) throw new TemplateError(operator === '//' ? 'float floor division by zero' : 'float modulo')
  // Python's float_divmod: the remainder has the sign of the divisor.
  let remainder = x % y
  let quotient = (x - remainder) / y
  if (remainder !== 0) {
    if (y < 0 !== remainder < 0) {
      remainder += y
      quotient -= 1
    }
  } else remainder = y < 0 ? -0 : 0
  if (operator === '%') return remainder
  if (quotient === 0) return x / y < 0 || Object.is(x / y, -0) ? -0 : 0
  const floor = Math.floor(quotient)
  return quotient - floor > 0.5 ? floor + 1 : floor
}

function toFloat(value: bigint | number): number {
  const float = Number(value)
  if (typeof value === 'bigint' && !Number.isFinite(float)) throw new TemplateError('int too large to convert to float')
  return float
}

function divide(a: bigint | number, b: bigint | number): number {
  if (Number(b) === 0)
    throw new TemplateError(
      typeof a === 'bigint' && typeof b === 'bigint' ? 'division by zero' : 'float division by zero',
    )
  if (typeof a === 'bigint' && typeof b === 'bigint') {
    for (const n of [a, b]) {
      if (n > 2n ** 53n || n < -(2n ** 53n))
        throw new TemplateError('dividing whole numbers above 2 ** 53 is not supported')
    }
  }
  return toFloat(a) / toFloat(b)
}

function power(x: number, y: number): number {
  if (x === 0 && y < 0) throw new TemplateError('zero to a negative power')
  if (x < 0 && !Number.isInteger(y) && Number.isFinite(y)) throw new TemplateError('complex numbers are not supported')
  if (x === 1 || (x === -1 && !Number.isFinite(y))) return Number.isNaN(y) ? 1 : Math.abs(x)
  const result = x ** y
  if (!Number.isFinite(result) && Number.isFinite(x) && Number.isFinite(y))
    throw new TemplateError('Numerical result out of range')
  return result
}

function wholeNumbers(operator: string, a: bigint, b: bigint): Value {
  const fits = (n: bigint): bigint => {
    if (n >> BigInt(BITS) !== 0n && n >> BigInt(BITS) !== -1n)
      throw new TemplateError(`whole numbers above ${BITS} bits are not supported`)
    return n
  }
  switch (operator) {
    case '+':
      return fits(a + b)
    case '-':
      return fits(a - b)
    case '*':
      return fits(a * b)
    case '**':
      if (b < 0n) return power(toFloat(a), toFloat(b))
      if (a > 1n || a < -1n) {
        const bits = BigInt(a.toString(16).length * 4) * b
        if (bits > BITS) throw new TemplateError(`whole numbers above ${BITS} bits are not supported`)
      } else if (b > 2n) return b % 2n === 0n ? a * a : a
      return a ** b
  }
  if (b === 0n)
    throw new TemplateError(operator === '%' ? 'integer modulo by zero' : 'integer division or modulo by zero')
  const remainder = ((a % b) + b) % b
  return operator === '%' ? remainder : (a - remainder) / b
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) return value.fail()
  if (!isNumber(value)) throw new TemplateError(`bad operand type for unary -: '${typeName(value)}'`)
  const number = numeric(value)
  return typeof number === 'bigint' ? -number : -number
}

export function positive(value: Value): Value {
  if (value instanceof Undefined) return value.fail()
  if (!isNumber(value)) throw new TemplateError(`bad operand type for unary +: '${typeName(value)}'`)
  return numeric(value)
}

/** One comparison of a chain. */
export function holds(operator: string, a: Value, b: Value, budget: Budget): boolean {
  switch (operator) {
    case '==':
      return isEqual(a, b)
    case '!=':
      return !isEqual(a, b)
    case 'in':
      return contains(b, a, budget)
    case 'not in':
      return !contains(b, a, budget)
  }
  const order = compare(a, b, operator)
  if (operator === '<') return order < 0
  if (operator === '<=') return order <= 0
  return operator === '>' ? order > 0 : order >= 0
}

export function contains(within: Value, value: Value, budget: Budget): boolean {
  const text = within instanceof Markup ? within.text : within
  if (typeof text === 'string') {
    const part = value instanceof Markup ? value.text : value
    if (typeof part !== 'string') {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(value)}`)
    }
    budget.spend(text.length / 64)
    return text.includes(part)
  }
  if (within instanceof Dict) return within.has(value)
  if (within instanceof View && within.part === 'keys') return within.of.has(value)
  if (!Array.isArray(within) && isNumber(within as Value)) {
    throw new TemplateError(`argument of type '${typeName(within)}' is not iterable`)
  }
  for (const item of iterate(within)) {
    budget.spend()
    if (isEqual(item, value)) return true
  }
  return false
}

export function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' }
  return text.replace(/[&<>'"]/g, (character) => names[character])
}
