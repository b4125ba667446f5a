// The filters of jinja2 3.1, with transformers' tojson.
import { bind, wholeNumber } from './arguments.ts'
import { arithmetic, escapeHtml } from './arithmetic.ts'
import { BLANKS } from './blanks.ts'
import { type Budget, TemplateError } from './budget.ts'
import { percentFormat } from './format.ts'
import { attributeGetter, chunked, dictSort, extreme, grouped, mapped, picked, sorted, unique } from './list_filters.ts'
import { memberOf } from './members.ts'
import { floatOf, intOf, rounded } from './number_filters.ts'
import { json, textOf } from './show.ts'
import { capitalize, replace, splitLines, strip, TEXT_METHODS, TextArguments } from './text_methods.ts'
import {
  Dict,
  isNumber,
  isTrue,
  isWide,
  iterate,
  lengthOf,
  Markup,
  type Named,
  numeric,
  Stream,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts'

/** What filters need of the one who renders. */
export interface Host {
  readonly budget: Budget
  filter(name: string, of: Value, positional: readonly Value[], named: Named): Value
  test(name: string, of: Value, positional: readonly Value[], named: Named): boolean
}

export type Filter = (of: Value, positional: readonly Value[], named: Named, host: Host) => Value

/** A filter with named arguments after its value. */
function filter(names: string, work: (of: Value, args: (Value | undefined)[], host: Host) => Value): Filter {
  const list = names === '' ? [] : names.split(' ')
  const required = list.filter((name) => name.endsWith('!')).length
  const bare = list.map((name) => name.replace('!', ''))
  return (of, positional, named, host) => work(of, bind('the filter', bare, required, positional, named), host)
}

/** A filter of texts, which keeps what is escaped so. */
function textFilter(names: string, work: (text: string, args: (Value | undefined)[], host: Host) => string): Filter {
  return filter(names, (of, args, host) => {
    const text = host.budget.text(work(textOf(of, host.budget), args, host))
    return of instanceof Markup ? new Markup(text) : text
  })
}

const method = (name: string): Filter =>
  textFilter(
    '',
    (text, _, { budget }) => TEXT_METHODS[name](text, new TextArguments(name, [], new Map()), budget) as string,
  )

export function length(of: Value): bigint {
  const count = lengthOf(of)
  if (count === null) throw new TemplateError(`object of type '${typeName(of)}' has no len()`)
  return BigInt(count)
}

function* stream(items: Iterable<Value>): Generator<Value> {
  yield* items
}

/** None is a value as well. */
const or = (value: Value | undefined, fallback: Value): Value => (value === undefined ? fallback : value)

const given = (value: Value | undefined): value is Value => value !== undefined && value !== null

function first(of: Value): Value {
  const { done, value } = iterate(of)[Symbol.iterator]().next()
  return done ? new Undefined('No first item, sequence was empty.') : value
}

function last(of: Value): Value {
  if (of instanceof Stream) throw new TemplateError("'generator' object is not reversible")
  const items = Array.from(iterate(of))
  return items.length === 0 ? new Undefined('No last item, sequence was empty.') : items[items.length - 1]
}

function indent(text: string, [width, atFirst, atBlank]: readonly (Value | undefined)[], host: Host): string {
  const space =
    typeof width === 'string' ? width : ' '.repeat(width === undefined ? 4 : Math.max(0, wholeNumber(width)))
  const lines = splitLines(`${text}\n`, false)
  host.budget.size(text.length + space.length * lines.length)
  const rest = isTrue(atBlank ?? false)
    ? lines.join(`\n${space}`)
    : lines.map((line, i) => (i === 0 || line === '' ? line : space + line)).join('\n')
  return isTrue(atFirst ?? false) ? space + rest : rest
}

function truncate(text: string, [length, kill, end, leeway]: readonly (Value | undefined)[]): string {
  const [characters, mark] = [Array.from(text), end === undefined ? '...' : (end as string)]
  const [limit, spare] = [length === undefined ? 255 : wholeNumber(length), given(leeway) ? wholeNumber(leeway) : 5]
  const ending = Array.from(mark).length
  if (limit < ending) throw new TemplateError(`expected length >= ${ending}, got ${limit}`)
  if (characters.length <= limit + spare) return text
  const head = characters.slice(0, limit - ending).join('')
  if (isTrue(kill ?? false)) return head + mark
  const space = head.lastIndexOf(' ')
  return (space < 0 ? head : head.slice(0, space)) + mark
}

const WORD_BEGIN = new RegExp(`([-${BLANKS}({[<]+)`, 'u')

const refused = (name: string): Filter => {
  return () => {
    throw new TemplateError(`the filter '${name}' is not supported`)
  }
}

const asText: Filter = filter('', (of, _, { budget }) => (of instanceof Markup ? of : textOf(of, budget)))
const escaped: Filter = filter('', (of, _, { budget }) =>
  of instanceof Markup ? of : new Markup(budget.text(escapeHtml(textOf(of, budget)))),
)
const count: Filter = filter('', length)
const fallback: Filter = filter('default_value boolean', (of, [value, boolean]) => {
  return of instanceof Undefined || (isTrue(boolean ?? false) && !isTrue(of)) ? or(value, '') : of
})

export const FILTERS: Readonly<Record<string, Filter>> = {
  abs: filter('', (of) => {
    if (of instanceof Undefined) return of.fail()
    if (!isNumber(of)) throw new TemplateError(`bad operand type for abs(): '${typeName(of)}'`)
    const number = numeric(of)
    return number < 0 || Object.is(number, -0) ? -number : number
  }),
  attr: filter('name!', (of, [name], { budget }) => {
    if (of instanceof Dict && of.has(name!)) {
      // Members alone are looked up, never items.
      return memberOf(new Dict(), textOf(name!, budget), budget)
    }
    return memberOf(of, textOf(name!, budget), budget)
  }),
  batch: filter('linecount! fill_with', (of, [size, fill], host) =>
    chunked(of, wholeNumber(size!), fill ?? null, host, true),
  ),
  capitalize: textFilter('', capitalize),
  center: textFilter('width', (text, [width], { budget }) => {
    return TEXT_METHODS.center(text, new TextArguments('center', [width ?? 80n], new Map()), budget) as string
  }),
  count,
  d: fallback,
  default: fallback,
  dictsort: filter('case_sensitive by reverse', dictSort),
  e: escaped,
  escape: escaped,
  filesizeformat: refused('filesizeformat'),
  first: filter('', first),
  float: filter('default', (of, [value]) => floatOf(of) ?? or(value, 0)),
  forceescape: filter('', (of, _, { budget }) => new Markup(budget.text(escapeHtml(textOf(of, budget))))),
  format: (of, positional, named, { budget }) => {
    if (positional.length > 0 && named.size > 0)
      throw new TemplateError("can't handle positional and keyword arguments at the same time")
    const values = named.size > 0 ? new Dict(named) : new Tuple(positional)
    return percentFormat(textOf(of, budget), values, budget)
  },
  groupby: filter('attribute! default case_sensitive', grouped),
  indent: textFilter('width first blank', indent),
  int: filter(
    'default base',
    (of, [value, base]) => intOf(of, base === undefined ? 10 : wholeNumber(base)) ?? or(value, 0n),
  ),
  items: filter('', (of) => {
    if (of instanceof Undefined) return new Stream(stream([]))
    if (!(of instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.')
    return new Stream(stream(new View(of, 'items').list()))
  }),
  join: filter('d attribute', (of, [separator, attribute], host) => {
    const between = separator === undefined ? '' : textOf(separator, host.budget)
    const get = given(attribute) ? attributeGetter(attribute, undefined, host) : (item: Value) => item
    const parts: string[] = []
    let length = 0
    for (const item of iterate(of)) {
      const part = textOf(get(item), host.budget)
      parts.push(part)
      length += part.length + between.length
      host.budget.size(length)
    }
    return parts.join(between)
  }),
  last: filter('', last),
  length: count,
  list: filter('', (of, _, { budget }) => {
    const items: Value[] = []
    for (const item of iterate(of)) {
      budget.spend()
      items.push(item)
    }
    return items
  }),
  lower: method('lower'),
  map: mapped,
  max: filter('case_sensitive attribute', (of, args, host) => extreme(of, args, host, true)),
  min: filter('case_sensitive attribute', (of, args, host) => extreme(of, args, host, false)),
  pprint: refused('pprint'),
  random: refused('random'),
  reject: (of, positional, named, host) => picked(of, positional, named, host, { wanted: false, attribute: false }),
  rejectattr: (of, positional, named, host) => picked(of, positional, named, host, { wanted: false, attribute: true }),
  replace: filter('old! new! count', (of, [old, by, most], { budget }) => {
    if ([of, old, by].some((part) => part instanceof Markup))
      throw new TemplateError('replacing in escaped text is not supported')
    return replace(
      textOf(of, budget),
      textOf(old!, budget),
      textOf(by!, budget),
      given(most) ? wholeNumber(most) : -1,
      budget,
    )
  }),
  reverse: filter('', (of, _, { budget }) => {
    if (of instanceof Markup) throw new TemplateError('reversing escaped text is not supported')
    if (typeof of === 'string') {
      budget.spend(of.length / 8)
      return (isWide(of) ? Array.from(of) : of.split('')).reverse().join('')
    }
    const items = Array.from(iterate(of)).reverse()
    budget.size(16 * items.length)
    // What has no order from its end is made a list.
    return of instanceof Stream || of instanceof Undefined ? items : new Stream(stream(items))
  }),
  round: filter('precision method', (of, [precision, way]) =>
    rounded(of, precision === undefined ? 0 : wholeNumber(precision), way ?? 'common'),
  ),
  safe: filter('', (of, _, { budget }) => (of instanceof Markup ? of : new Markup(textOf(of, budget)))),
  select: (of, positional, named, host) => picked(of, positional, named, host, { wanted: true, attribute: false }),
  selectattr: (of, positional, named, host) => picked(of, positional, named, host, { wanted: true, attribute: true }),
  slice: filter('slices! fill_with', (of, [slices, fill], host) =>
    chunked(of, wholeNumber(slices!), fill ?? null, host, false),
  ),
  sort: filter('reverse case_sensitive attribute', sorted),
  string: asText,
  striptags: refused('striptags'),
  sum: filter('attribute start', (of, [attribute, start], host) => {
    const get = given(attribute) ? attributeGetter(attribute, undefined, host) : (item: Value) => item
    let total = or(start, 0n)
    if (typeof total === 'string') throw new TemplateError("sum() can't sum strings [use ''.join(seq) instead]")
    for (const item of iterate(of)) total = arithmetic('+', total, get(item), host.budget)
    return total
  }),
  title: textFilter('', (text) => text.split(WORD_BEGIN).map(capitalize).join('')),
  tojson: filter(
    'ensure_ascii indent separators sort_keys',
    (of, [ascii, indentation, separators, sortKeys], { budget }) => {
      const pair = given(separators) ? Array.from(iterate(separators)) : null
      const width = given(indentation)
        ? typeof indentation === 'string'
          ? indentation
          : ' '.repeat(Math.max(0, wholeNumber(indentation)))
        : null
      return json(
        of,
        {
          ascii: isTrue(ascii ?? false),
          indent: width,
          separators: pair === null ? null : [textOf(pair[0], budget), textOf(pair[1], budget)],
          sorted: isTrue(sortKeys ?? false),
        },
        budget,
      )
    },
  ),
  trim: textFilter('chars', (text, [characters]) =>
    strip(text, given(characters) ? (characters as string) : null, true, true),
  ),
  truncate: textFilter('length killwords end leeway', truncate),
  unique: filter('case_sensitive attribute', unique),
  upper: method('upper'),
  urlencode: refused('urlencode'),
  urlize: refused('urlize'),
  wordcount: filter('', (of, _, { budget }) => BigInt(textOf(of, budget).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
  wordwrap: refused('wordwrap'),
  xmlattr: refused('xmlattr'),
}
