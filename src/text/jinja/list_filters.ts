// The filters of jinja2 that go through lists: map, select, sort, groupby and their like.
import { bind } from './arguments.ts'
import { TemplateError } from './budget.ts'
import type { Host } from './filters.ts'
import { itemOf } from './members.ts'
import { repr } from './show.ts'
import {
  compare,
  Dict,
  isEqual,
  isTrue,
  iterate,
  Members,
  type Named,
  Stream,
  Tuple,
  Undefined,
  type Value,
} from './values.ts'

/** Reads an attribute that may have dots and numbers: 'a.b.0'. */
export function attributeGetter(
  attribute: Value,
  fallback: Value | undefined,
  { budget }: Host,
  ignoreCase = false,
): (item: Value) => Value {
  const parts: Value[] =
    attribute === null
      ? []
      : typeof attribute === 'string'
        ? attribute.split('.').map((part) => (/^\d+$/.test(part) ? BigInt(part) : part))
        : [attribute]
  return (of) => {
    let item = of
    for (const part of parts) {
      item = itemOf(item, part, budget)
      if (item instanceof Undefined && fallback !== undefined && fallback !== null) item = fallback
    }
    return ignoreCase ? lowered(item) : item
  }
}

const lowered = (value: Value): Value => (typeof value === 'string' ? value.toLowerCase() : value)

/** Where a filter has no attribute the item itself counts, in lower case unless case matters. */
function keyGetter(attribute: Value | undefined, caseSensitive: Value | undefined, host: Host): (item: Value) => Value {
  return attributeGetter(attribute ?? null, undefined, host, !isTrue(caseSensitive ?? false))
}

function* lazily(of: Value, host: Host, work: (item: Value) => Value | undefined): Generator<Value> {
  if (!isTrue(of)) return
  for (const item of iterate(of)) {
    host.budget.spend()
    const result = work(item)
    if (result !== undefined) yield result
  }
}

export function mapped(of: Value, positional: readonly Value[], named: Named, host: Host): Value {
  if (positional.length === 0 && named.has('attribute')) {
    const extra = [...named.keys()].find((key) => key !== 'attribute' && key !== 'default')
    if (extra !== undefined) throw new TemplateError(`Unexpected keyword argument '${extra}'`)
    const get = attributeGetter(named.get('attribute')!, named.get('default'), host)
    return new Stream(lazily(of, host, get))
  }
  const [name, ...rest] = positional
  if (typeof name !== 'string') throw new TemplateError('map requires a filter argument')
  return new Stream(lazily(of, host, (item) => host.filter(name, item, rest, named)))
}

/** select, reject, selectattr and rejectattr. */
export function picked(
  of: Value,
  positional: readonly Value[],
  named: Named,
  host: Host,
  { wanted, attribute }: { wanted: boolean; attribute: boolean },
): Value {
  if (attribute && positional.length === 0) throw new TemplateError('Missing parameter for attribute name')
  const get = attribute ? attributeGetter(positional[0], undefined, host) : (item: Value) => item
  const [name, ...rest] = attribute ? positional.slice(1) : positional
  const holds = (item: Value): boolean => {
    if (name === undefined) return isTrue(item)
    if (typeof name !== 'string') throw new TemplateError(`No test named ${repr(name, host.budget)}.`)
    return host.test(name, item, rest, named)
  }
  return new Stream(lazily(of, host, (item) => (holds(get(item)) === wanted ? item : undefined)))
}

function stableSort(items: Value[], keys: readonly Value[], reverse: boolean, host: Host): Value[] {
  host.budget.size(16 * items.length)
  const order = items.map((_, i) => i)
  order.sort((a, b) => {
    host.budget.spend()
    const sign = compare(keys[a], keys[b])
    return (reverse ? -sign : sign) || a - b
  })
  return order.map((i) => items[i])
}

export function sorted(of: Value, [reverse, caseSensitive, attribute]: (Value | undefined)[], host: Host): Value {
  const items = Array.from(iterate(of))
  const several = typeof attribute === 'string' ? attribute.split(',') : [attribute]
  const getters = several.map((one) => keyGetter(one, caseSensitive, host))
  const keys = items.map((item) => getters.map((get) => get(item)))
  return stableSort(items, keys, isTrue(reverse ?? false), host)
}

export function dictSort(of: Value, [caseSensitive, by, reverse]: (Value | undefined)[], host: Host): Value {
  if (of instanceof Undefined) of.fail()
  if (!(of instanceof Dict)) throw new TemplateError('dictsort sorts dictionaries')
  if (![undefined, 'key', 'value'].includes(by as string))
    throw new TemplateError('You can only sort by either "key" or "value"')
  const entries = Array.from(of.entries())
  const keys = entries.map(([key, value]) => {
    const sortBy = by === 'value' ? value : key
    return isTrue(caseSensitive ?? false) ? sortBy : lowered(sortBy)
  })
  return stableSort(
    entries.map((entry) => new Tuple(entry)),
    keys,
    isTrue(reverse ?? false),
    host,
  )
}

export function unique(of: Value, [caseSensitive, attribute]: (Value | undefined)[], host: Host): Value {
  const get = keyGetter(attribute, caseSensitive, host)
  const seen = new Dict()
  return new Stream(
    (function* (): Generator<Value> {
      for (const item of iterate(of)) {
        host.budget.spend()
        const key = get(item)
        if (seen.has(key)) continue
        seen.set(key, true)
        yield item
      }
    })(),
  )
}

/** max and min. */
export function extreme(
  of: Value,
  [caseSensitive, attribute]: (Value | undefined)[],
  host: Host,
  largest: boolean,
): Value {
  const get = keyGetter(attribute, caseSensitive, host)
  let best: Value | undefined
  for (const item of iterate(of)) {
    host.budget.spend()
    if (best === undefined) best = item
    else {
      const order = compare(get(item), get(best), largest ? '>' : '<')
      if (largest ? order > 0 : order < 0) best = item
    }
  }
  return best === undefined ? new Undefined('No aggregated item, sequence was empty.') : best
}

export function grouped(of: Value, [attribute, fallback, caseSensitive]: (Value | undefined)[], host: Host): Value {
  const get = attributeGetter(attribute!, fallback, host, !isTrue(caseSensitive ?? false))
  const exact = attributeGetter(attribute!, fallback, host)
  const items = stableSort(Array.from(iterate(of)), Array.from(iterate(of), get), false, host)
  const groups: { key: Value; items: Value[] }[] = []
  for (const item of items) {
    const key = get(item)
    const last = groups[groups.length - 1]
    if (last && isEqual(last.key, key)) last.items.push(item)
    else groups.push({ key, items: [item] })
  }
  return groups.map(({ items }) => new Group([exact(items[0]), items]))
}

/** A pair that has names as well. */
export class Group extends Tuple {}

/** batch and slice: a list in lists. */
export function chunked(of: Value, count: number, fill: Value, host: Host, batches: boolean): Value {
  const items = Array.from(iterate(of))
  host.budget.size(16 * items.length)
  if (!batches && count === 0) throw new TemplateError('integer division or modulo by zero')
  return new Stream(batches ? batchesOf(items, count, fill, host) : slicesOf(items, count, fill))
}

function* batchesOf(items: readonly Value[], count: number, fill: Value, host: Host): Generator<Value> {
  let batch: Value[] = []
  for (const item of items) {
    if (batch.length === count) {
      yield batch
      batch = []
    }
    batch.push(item)
  }
  if (batch.length === 0) return
  if (fill !== null && batch.length < count) {
    host.budget.size(16 * count)
    while (batch.length < count) batch.push(fill)
  }
  yield batch
}

function* slicesOf(items: readonly Value[], count: number, fill: Value): Generator<Value> {
  const size = Math.floor(items.length / count)
  const longer = items.length % count
  let from = 0
  for (let i = 0; i < count; i++) {
    const to = from + size + (i < longer ? 1 : 0)
    const slice = items.slice(from, to)
    if (fill !== null && i >= longer) slice.push(fill)
    yield slice
    from = to
  }
}

/** cycler and joiner, and `loop.cycle` beside them. */
export function cycler(positional: readonly Value[]): Value {
  if (positional.length === 0) throw new TemplateError('at least one item has to be provided')
  let at = 0
  const call = (name: string, work: () => Value): Members => {
    return new Members(
      'method',
      () => undefined,
      () => `<method ${name}>`,
      work,
    )
  }
  const next = (): Value => {
    const value = positional[at]
    at = (at + 1) % positional.length
    return value
  }
  const member = (name: string): Value | undefined => {
    if (name === 'current') return positional[at]
    if (name === 'items') return new Tuple(positional)
    if (name === 'pos') return BigInt(at)
    if (name === 'next') return call(name, next)
    if (name !== 'reset') return undefined
    return call(name, () => {
      at = 0
      return null
    })
  }
  const show = (): string => {
    throw new TemplateError('a cycler is printed; Python would print an address of its memory')
  }
  return new Members('Cycler', member, show)
}

export function joiner(positional: readonly Value[], named: Named): Value {
  const [separator] = bind('joiner', ['sep'], 0, positional, named)
  let used = false
  const show = (): string => {
    throw new TemplateError('a joiner is printed; Python would print an address of its memory')
  }
  return new Members(
    'Joiner',
    (name) => (name === 'sep' ? (separator ?? ', ') : name === 'used' ? used : undefined),
    show,
    () => {
      const value = used ? (separator ?? ', ') : ''
      used = true
      return value
    },
  )
}
