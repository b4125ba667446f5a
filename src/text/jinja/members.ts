// Members and items of values: a.b and a['b'], in the sandbox that transformers renders templates in.
import { type Budget, TemplateError } from './budget.ts'
import { braceFormat, type Reader } from './format.ts'
import { repr } from './show.ts'
import { REFUSED_TEXT_METHODS, TEXT_METHODS, TextArguments } from './text_methods.ts'
import {
  Callable,
  Dict,
  isEqual,
  isNumber,
  isWide,
  Markup,
  Members,
  type Named,
  Namespace,
  numeric,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts'

/** What changes a list or a dictionary is there, and unsafe. */
const UNSAFE: Readonly<Record<string, readonly string[]>> = {
  list: ['append', 'clear', 'pop', 'reverse', 'insert', 'sort', 'extend', 'remove'],
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
}
/** What Python has and this has not: asking for it must not give nothing. */
const REFUSED: Readonly<Record<string, readonly string[]>> = {
  str: REFUSED_TEXT_METHODS,
  dict: ['fromkeys'],
  int: ['as_integer_ratio', 'bit_count', 'bit_length', 'conjugate', 'from_bytes', 'to_bytes', 'is_integer'],
  bool: ['as_integer_ratio', 'bit_count', 'bit_length', 'conjugate', 'from_bytes', 'to_bytes', 'is_integer'],
  float: ['as_integer_ratio', 'conjugate', 'fromhex', 'hex', 'is_integer', 'from_number'],
  range: ['count', 'index'],
  dict_keys: ['isdisjoint', 'mapping'],
  dict_items: ['isdisjoint', 'mapping'],
  dict_values: ['mapping'],
  generator: ['close', 'send', 'throw', 'gi_code', 'gi_frame', 'gi_running', 'gi_yieldfrom', 'gi_suspended'],
}

const objectName = (of: Value): string => (of === null ? 'None' : `${typeName(of)} object`)

function missing(of: Value, name: Value, budget: Budget): Undefined {
  if (typeof name !== 'string') return new Undefined(`${objectName(of)} has no element ${repr(name, budget)}`)
  return new Undefined(`'${objectName(of)}' has no attribute '${name}'`)
}

/** a.name: the member, or else the item, or else what is undefined. */
export function memberOf(of: Value, name: string, budget: Budget): Value {
  budget.spend()
  const member = attribute(of, name, budget)
  if (member !== undefined) return member
  const item = of instanceof Dict ? of.get(name) : undefined
  return item === undefined ? missing(of, name, budget) : item
}

/** a[key]: the item, or else the member, or else what is undefined. */
export function itemOf(of: Value, key: Value, budget: Budget): Value {
  budget.spend()
  if (of instanceof Undefined) return of.fail()
  const item = subscript(of, key, budget)
  if (item !== undefined) return item
  const name = key instanceof Markup ? key.text : key
  if (typeof name === 'string') {
    const member = attribute(of, name, budget)
    if (member !== undefined) return member
  }
  return missing(of, key, budget)
}

function subscript(of: Value, key: Value, budget: Budget): Value | undefined {
  if (of instanceof Dict) {
    if (Array.isArray(key) || key instanceof Dict) return undefined
    return of.get(key)
  }
  if (typeof key !== 'bigint' && typeof key !== 'boolean') return undefined
  const at = Number(key)
  const place = (length: number): number => (at < 0 ? at + length : at)
  if (Array.isArray(of)) return of[place(of.length)]
  if (of instanceof Tuple) return of.items[place(of.items.length)]
  if (of instanceof Range) {
    const index = place(of.length)
    return index >= 0 && index < of.length ? of.at(index) : undefined
  }
  const text = of instanceof Markup ? of.text : of
  if (typeof text !== 'string') return undefined
  if (isWide(text)) budget.spend(text.length / 8)
  const characters = isWide(text) ? Array.from(text) : text
  const character: string | undefined = characters[place(characters.length)]
  return character !== undefined && of instanceof Markup ? new Markup(character) : character
}

/** a[start:stop:step] */
export function slice(of: Value, [start, stop, step]: readonly Value[], budget: Budget): Value {
  const bound = (value: Value): number | null => {
    if (value instanceof Undefined) return value.fail()
    if (value === null) return null
    if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value)
    // Python raises TypeError, which jinja2 takes for a missing item.
    return Number.NaN
  }
  const bounds = [start, stop, step].map(bound)
  if (of instanceof Undefined) of.fail()
  if (bounds.some((value) => value !== null && Number.isNaN(value)))
    return new Undefined(`${objectName(of)} has no such element`)
  if (bounds[2] === 0) throw new TemplateError('slice step cannot be zero')
  const pick = <T>(items: ArrayLike<T>): T[] => {
    const picked: T[] = []
    const [from, to, by] = sliceBounds(items.length, bounds)
    budget.size(Math.max(0, (to - from) / by))
    for (let i = from; by > 0 ? i < to : i > to; i += by) picked.push(items[i])
    return picked
  }
  if (Array.isArray(of)) return pick(of)
  if (of instanceof Tuple) return new Tuple(pick(of.items))
  const text = of instanceof Markup ? of.text : of
  if (typeof text === 'string') {
    budget.size(text.length)
    const wide = isWide(text)
    const [from, to, by] = wide ? [0, 0, 0] : sliceBounds(text.length, bounds)
    const part = by === 1 ? text.slice(from, Math.max(from, to)) : pick(wide ? Array.from(text) : text).join('')
    return of instanceof Markup ? new Markup(part) : part
  }
  if (of instanceof Range) {
    const [from, to, by] = sliceBounds(of.length, bounds)
    return new Range(of.start + from * of.step, of.start + to * of.step, of.step * by)
  }
  return new Undefined(`${objectName(of)} has no such element`)
}

/** As Python's slice.indices. */
function sliceBounds(length: number, [start, stop, step]: readonly (number | null)[]): [number, number, number] {
  const by = step ?? 1
  const [low, high] = by < 0 ? [-1, length - 1] : [0, length]
  const place = (value: number | null, fallback: number): number => {
    if (value === null) return fallback
    return value < 0 ? Math.max(value + length, low) : Math.min(value, high)
  }
  return [place(start, by < 0 ? high : low), place(stop, by < 0 ? low : high), by]
}

/** What Python's getattr gives in the sandbox; undefined where it has none. */
function attribute(of: Value, name: string, budget: Budget): Value | undefined {
  if (of instanceof Undefined) {
    if (name.startsWith('__')) return undefined
    return of.fail()
  }
  const type = typeName(of)
  const method = (call: (positional: readonly Value[], named: Named) => Value): Callable => new Callable(name, call)
  if (/^__\w+__$/.test(name) || UNSAFE[type]?.includes(name)) {
    return new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`)
  }
  if (REFUSED[type]?.includes(name)) throw new TemplateError(`'${name}' of a ${type} is not supported`)
  if (of instanceof Markup) throw new TemplateError(`'${name}' of escaped text is not supported`)
  if (typeof of === 'string') return textMember(of, name, budget)
  if (Array.isArray(of) || of instanceof Tuple) return listMember(of, name)
  if (of instanceof Dict) return dictMember(of, name, method)
  if (of instanceof Namespace) return of.members.get(name)
  if (of instanceof Callable) return of.members.get(name)
  if (of instanceof Members) return of.member(name)
  if (of instanceof Range && ['start', 'stop', 'step'].includes(name)) return BigInt(of[name as 'start'])
  if (isNumber(of)) {
    if (name === 'real') return numeric(of)
    if (name === 'imag') return typeof of === 'number' ? 0 : 0n
    if (typeof of !== 'number' && name === 'numerator') return numeric(of)
    if (typeof of !== 'number' && name === 'denominator') return 1n
  }
  return undefined
}

function textMember(text: string, name: string, budget: Budget): Value | undefined {
  if (name === 'format' || name === 'format_map') {
    return new Callable(name, (positional, named) => {
      if (name === 'format') return braceFormat(text, positional, named, reader(budget), budget)
      const [of] = positional
      if (!(of instanceof Dict) || positional.length !== 1) throw new TemplateError('format_map() takes one dictionary')
      const names = new Map(Array.from(of.entries(), ([key, value]) => [key as string, value]))
      return braceFormat(text, [], names, reader(budget), budget)
    })
  }
  if (!Object.hasOwn(TEXT_METHODS, name)) return undefined
  return new Callable(name, (positional, named) => {
    return TEXT_METHODS[name](text, new TextArguments(name, positional.map(plainText), named), budget)
  })
}

const plainText = (value: Value): Value => (value instanceof Markup ? value.text : value)

const reader = (budget: Budget): Reader => ({
  attribute: (of, name) => memberOf(of, name, budget),
  item: (of, key) => itemOf(of, key, budget),
})

function listMember(of: Value[] | Tuple, name: string): Value | undefined {
  const items = Array.isArray(of) ? of : of.items
  if (name === 'copy' && Array.isArray(of)) return new Callable(name, () => [...of])
  if (name !== 'count' && name !== 'index') return undefined
  return new Callable(name, (positional) => {
    if (positional.length !== 1)
      throw new TemplateError(`${name}() takes exactly one argument (${positional.length} given)`)
    const [value] = positional
    if (name === 'count') return BigInt(items.filter((item) => isEqual(item, value)).length)
    const at = items.findIndex((item) => isEqual(item, value))
    if (at < 0) throw new TemplateError('the value is not in the list')
    return BigInt(at)
  })
}

function dictMember(
  of: Dict,
  name: string,
  method: (call: (positional: readonly Value[], named: Named) => Value) => Callable,
): Value | undefined {
  switch (name) {
    case 'keys':
    case 'values':
    case 'items':
      return method((positional) => {
        if (positional.length > 0)
          throw new TemplateError(`dict.${name}() takes no arguments (${positional.length} given)`)
        return new View(of, name)
      })
    case 'copy':
      return method(() => new Dict(of.entries()))
    case 'get':
      return method((positional, named) => {
        if (positional.length < 1 || positional.length > 2 || named.size > 0) {
          throw new TemplateError('get() takes one argument or two, by position')
        }
        const value = of.get(positional[0])
        return value === undefined ? (positional[1] ?? null) : value
      })
  }
  return undefined
}
