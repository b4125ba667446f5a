// The values of a template, as Python has them: whole numbers are bigint, floats are numbers, lists are arrays.
import { TemplateError } from './budget.ts'

export type Value = null | boolean | bigint | number | string | Value[] | PyObject

/** Every value that JavaScript has no kind of its own for. */
export abstract class PyObject {
  /** What Python calls its type. */
  abstract readonly type: string
}

export class Tuple extends PyObject {
  readonly type = 'tuple'
  readonly items: readonly Value[]

  constructor(items: readonly Value[]) {
    super()
    this.items = items
  }
}

/** A dictionary; keys are told apart by `keyOf`. */
export class Dict extends PyObject {
  readonly type = 'dict'
  readonly #entries = new Map<string, [Value, Value]>()

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    super()

    for (const [key, value] of entries) this.set(key, value)
  }

  get size(): number {
    return this.#entries.size
  }

  set(key: Value, value: Value): void {
    const id = keyOf(key)
    const old = this.#entries.get(id)
    if (old) old[1] = value
    else this.#entries.set(id, [key, value])
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(keyOf(key))?.[1]
  }

  has(key: Value): boolean {
    return this.#entries.has(keyOf(key))
  }

  entries(): IterableIterator<[Value, Value]> {
    return this.#entries.values()
  }

  keys(): Value[] {
    return Array.from(this.entries(), ([key]) => key)
  }
}

/** keys(), values() and items() of a dictionary. */
export class View extends PyObject {
  readonly type: string
  readonly of: Dict
  readonly part: 'keys' | 'values' | 'items'

  constructor(of: Dict, part: 'keys' | 'values' | 'items') {
    super()
    this.of = of
    this.part = part
    this.type = `dict_${part}`
  }

  list(): Value[] {
    return Array.from(this.of.entries(), ([key, value]) => {
      return this.part === 'keys' ? key : this.part === 'values' ? value : new Tuple([key, value])
    })
  }
}

export class Range extends PyObject {
  readonly type = 'range'
  readonly length: number
  readonly start: number
  readonly stop: number
  readonly step: number

  constructor(start: number, stop: number, step: number) {
    super()
    this.start = start
    this.stop = stop
    this.step = step
    this.length = Math.max(0, Math.ceil((stop - start) / step))
  }

  at(index: number): bigint {
    return BigInt(this.start + index * this.step)
  }
}

/** What a template asks for and is not there; most of what is done with it is an error. */
export class Undefined extends PyObject {
  readonly type = 'Undefined'
  readonly reason: string

  constructor(reason: string) {
    super()
    this.reason = reason
  }

  fail(): never {
    throw new TemplateError(this.reason)
  }
}

export class Namespace extends PyObject {
  readonly type = 'Namespace'
  readonly members = new Map<string, Value>()

  set(name: Value, value: Value): void {
    if (typeof name !== 'string') throw new TemplateError('a namespace has names that are texts')
    if (name.startsWith('_')) throw new TemplateError(`a namespace cannot hold the name '${name}'`)
    this.members.set(name, value)
  }
}

export type Named = ReadonlyMap<string, Value>

export class Callable extends PyObject {
  readonly type: string = 'function'
  readonly name: string
  readonly call: (positional: readonly Value[], named: Named) => Value
  /** What the template may read of it: a macro's name and arguments. */
  readonly members: ReadonlyMap<string, Value>

  constructor(
    name: string,
    call: (positional: readonly Value[], named: Named) => Value,
    members: ReadonlyMap<string, Value> = new Map(),
  ) {
    super()
    this.name = name
    this.call = call
    this.members = members
  }
}

/** What filters such as `map` and `select` give: it can be gone through once. */
export class Stream extends PyObject {
  readonly type = 'generator'
  readonly iterator: Iterator<Value, unknown>

  constructor(iterator: Iterator<Value, unknown>) {
    super()
    this.iterator = iterator
  }

  [Symbol.iterator](): Iterator<Value, unknown> {
    return this.iterator
  }
}

/** Text that is safe in HTML: what `e`, `escape` and `safe` give. */
export class Markup extends PyObject {
  readonly type = 'Markup'
  readonly text: string

  constructor(text: string) {
    super()
    this.text = text
  }
}

/** An object of the engine with members of its own: loops, cyclers, joiners. */
export class Members extends PyObject {
  readonly type: string
  readonly member: (name: string) => Value | undefined
  readonly show: () => string
  readonly call: ((positional: readonly Value[]) => Value) | null

  constructor(
    type: string,
    member: (name: string) => Value | undefined,
    show: () => string,
    call: ((positional: readonly Value[]) => Value) | null = null,
  ) {
    super()
    this.type = type
    this.member = member
    this.show = show
    this.call = call
  }
}

export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (Array.isArray(value)) return 'list'
  if (value instanceof PyObject) return value.type
  const names: Record<string, string> = { boolean: 'bool', bigint: 'int', number: 'float', string: 'str' }
  return names[typeof value]
}

export function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0
  if (!(value instanceof PyObject)) return !!value
  if (value instanceof Tuple) return value.items.length > 0
  if (value instanceof Dict) return value.size > 0
  if (value instanceof View) return value.of.size > 0
  if (value instanceof Range) return value.length > 0
  if (value instanceof Markup) return value.text !== ''
  return !(value instanceof Undefined)
}

/** Two keys are the same where this is: 1, 1.0 and True are one key. */
function keyOf(value: Value): string {
  if (typeof value === 'string') return `s${value}`
  if (value === null) return 'none'
  if (typeof value === 'boolean') return `n${value ? 1 : 0}`
  if (typeof value === 'bigint') return `n${value}`
  if (typeof value === 'number') return Number.isInteger(value) ? `n${BigInt(value)}` : `f${value}`
  if (value instanceof Tuple) return `t(${value.items.map((item) => JSON.stringify(keyOf(item))).join(',')})`
  if (value instanceof Markup) return `s${value.text}`
  if (value instanceof Undefined) return 'undefined'
  if (Array.isArray(value) || value instanceof Dict) throw new TemplateError(`unhashable type: '${typeName(value)}'`)
  throw new TemplateError(`a ${typeName(value)} as a key is not supported`)
}

export const isNumber = (value: Value): value is boolean | bigint | number =>
  typeof value === 'boolean' || typeof value === 'bigint' || typeof value === 'number'

/** True is 1 and False is 0. */
export const numeric = (value: boolean | bigint | number): bigint | number =>
  typeof value === 'boolean' ? BigInt(value) : value

export function isEqual(a: Value, b: Value): boolean {
  if (a === b) return true
  // biome-ignore lint/suspicious/noDoubleEquals: 1n == 1 is what Python says of 1 == 1.0
  if (isNumber(a) && isNumber(b)) return numeric(a) == numeric(b)
  const [x, y] = [plain(a), plain(b)]
  if (typeof x === 'string' || typeof y === 'string') return x === y
  if (Array.isArray(a) && Array.isArray(b)) return sameItems(a, b)
  if (a instanceof Tuple && b instanceof Tuple) return sameItems(a.items, b.items)
  if (a instanceof Dict && b instanceof Dict) {
    if (a.size !== b.size) return false
    for (const [key, value] of a.entries()) {
      const other = b.get(key)
      if (other === undefined || !isEqual(value, other)) return false
    }
    return true
  }
  if (a instanceof Range && b instanceof Range) {
    if (a.length !== b.length) return false
    return a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step))
  }
  if (a instanceof View && b instanceof View && a.part !== 'values' && b.part !== 'values') {
    throw new TemplateError('comparing the keys or items of dictionaries is not supported')
  }
  return a instanceof Undefined && b instanceof Undefined
}

/** Markup is a text to most of Python. */
function plain(value: Value): Value {
  return value instanceof Markup ? value.text : value
}

function sameItems(a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((item, i) => isEqual(item, b[i]))
}

/** Texts are ordered by code points, which UTF-16 does not do. */
export function compareTexts(a: string, b: string): number {
  const least = Math.min(a.length, b.length)
  for (let i = 0; i < least; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x === y) continue
    const [wideX, wideY] = [x >= 0xd800 && x <= 0xdfff, y >= 0xd800 && y <= 0xdfff]
    return wideX === wideY ? x - y : wideX ? 1 : -1
  }
  return a.length - b.length
}

/** Below 0, 0 or above, NaN where nothing holds; throws where Python has no order. */
export function compare(a: Value, b: Value, operator = '<'): number {
  if (a instanceof Undefined) a.fail()
  if (b instanceof Undefined) b.fail()
  if (isNumber(a) && isNumber(b)) {
    const [x, y] = [numeric(a), numeric(b)]
    // biome-ignore lint/suspicious/noDoubleEquals: whole numbers and floats compare by value
    return x < y ? -1 : x > y ? 1 : x == y ? 0 : Number.NaN
  }
  const [x, y] = [plain(a), plain(b)]
  if (typeof x === 'string' && typeof y === 'string') return compareTexts(x, y)
  const lists = a instanceof Tuple && b instanceof Tuple ? [a.items, b.items] : [a, b]
  const [left, right] = lists
  if (Array.isArray(left) && Array.isArray(right)) {
    for (let i = 0; i < Math.min(left.length, right.length); i++) {
      if (!isEqual(left[i], right[i])) return compare(left[i], right[i], operator)
    }
    return left.length - right.length
  }
  throw new TemplateError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

/** Goes through a value as Python's iter() does; throws where it cannot. */
export function iterate(value: Value): Iterable<Value> {
  if (typeof value === 'string' || Array.isArray(value)) return value
  if (value instanceof Markup) return Array.from(value.text, (character) => new Markup(character))
  if (value instanceof Tuple) return value.items
  if (value instanceof Dict) return value.keys()
  if (value instanceof View) return value.list()
  if (value instanceof Range) return countRange(value)
  if (value instanceof Stream) return value
  if (value instanceof Undefined) return []
  throw new TemplateError(`'${typeName(value)}' object is not iterable`)
}

function* countRange(range: Range): Generator<Value> {
  for (let i = 0; i < range.length; i++) yield range.at(i)
}

/** Python's len(), or null where it has none. */
export function lengthOf(value: Value): number | null {
  if (typeof value === 'string') return codePoints(value)
  if (Array.isArray(value)) return value.length
  if (value instanceof Markup) return codePoints(value.text)
  if (value instanceof Tuple) return value.items.length
  if (value instanceof Dict) return value.size
  if (value instanceof View) return value.of.size
  if (value instanceof Range) return value.length
  return value instanceof Undefined ? 0 : null
}

const WIDE = /[\ud800-\udbff][\udc00-\udfff]/

/** Whether a text has characters of two units, so that places in it are not what JavaScript counts. */
export const isWide = (text: string): boolean => WIDE.test(text)

function codePoints(text: string): number {
  if (!isWide(text)) return text.length
  let count = 0
  for (const _ of text) count++
  return count
}
