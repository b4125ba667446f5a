// The methods of Python's str. Places in a text count code points.
import { BLANKS } from './blanks.ts'
import { type Budget, TemplateError } from './budget.ts'
import { pad } from './format.ts'
import { isTrue, isWide, iterate, type Named, Tuple, typeName, type Value } from './values.ts'

type Method = (text: string, args: TextArguments, budget: Budget) => Value

/** The arguments of a call, by place or by name. */
export class TextArguments {
  readonly name: string
  readonly positional: readonly Value[]
  readonly named: Named

  constructor(name: string, positional: readonly Value[], named: Named) {
    this.name = name
    this.positional = positional
    this.named = named
  }

  /** Throws where there are fewer or more than these. */
  count(least: number, most: number, names: readonly string[] = []): void {
    const { length } = this.positional
    for (const key of this.named.keys()) {
      const place = names.indexOf(key)
      if (place < 0) throw new TemplateError(`${this.name}() got an unexpected keyword argument '${key}'`)
      if (place < length) throw new TemplateError(`argument for ${this.name}() given by name ('${key}') and position`)
    }
    const given = length + this.named.size
    if (given >= least && given <= most) return
    throw new TemplateError(
      `${this.name}() takes ${least === most ? least : `${least} to ${most}`} arguments (${given} given)`,
    )
  }

  get(place: number, name?: string): Value | undefined {
    return (
      this.positional[place] ??
      (this.positional.length > place ? null : name === undefined ? undefined : this.named.get(name))
    )
  }

  text(place: number, fallback?: string, name?: string): string {
    const value = this.get(place, name)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'string') return value
    throw new TemplateError(`${this.name}() argument ${place + 1} must be str, not ${typeName(value ?? null)}`)
  }

  /** A text, or null for None. */
  textOrNone(place: number, name?: string): string | null {
    return (this.get(place, name) ?? null) === null ? null : this.text(place, undefined, name)
  }

  whole(place: number, fallback: number | null, name?: string): number {
    const value = this.get(place, name)
    if (value === undefined && fallback !== null) return fallback
    if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value)
    throw new TemplateError(`'${typeName(value ?? null)}' object cannot be interpreted as an integer`)
  }
}

const BLANK = new RegExp(`[${BLANKS}]`)
const isBlank = (character: string): boolean => BLANK.test(character)

/** strip, lstrip and rstrip. */
export function strip(text: string, characters: string | null, left: boolean, right: boolean): string {
  const set = characters === null ? null : new Set(characters)
  const parts = set !== null && (isWide(text) || isWide(characters!)) ? Array.from(text) : text
  const drops = (part: string): boolean => (set === null ? isBlank(part) : set.has(part))
  let [begin, end] = [0, parts.length]
  while (left && begin < end && drops(parts[begin])) begin++
  while (right && end > begin && drops(parts[end - 1])) end--
  return typeof parts === 'string' ? parts.slice(begin, end) : parts.slice(begin, end).join('')
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: Python ends lines at these
const END_OF_LINE = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g

export function splitLines(text: string, keep: boolean): string[] {
  const lines: string[] = []
  let from = 0
  for (const { 0: end, index } of text.matchAll(END_OF_LINE)) {
    lines.push(text.slice(from, keep ? index + end.length : index))
    from = index + end.length
  }
  if (from < text.length) lines.push(text.slice(from))
  return lines
}

/** split and rsplit. */
function split(text: string, separator: string | null, most: number, fromRight: boolean, budget: Budget): string[] {
  if (separator === '') throw new TemplateError('empty separator')
  let parts: string[]
  if (separator === null) parts = splitBlanks(text, most, fromRight)
  else {
    parts = text.split(separator)
    if (most >= 0 && parts.length > most + 1) {
      const joined = fromRight ? parts.slice(0, parts.length - most) : parts.slice(most)
      const rest = joined.join(separator)
      parts = fromRight ? [rest, ...parts.slice(parts.length - most)] : [...parts.slice(0, most), rest]
    }
  }
  budget.size(16 * parts.length)
  return parts
}

function splitBlanks(text: string, most: number, fromRight: boolean): string[] {
  const words: [number, number][] = []
  for (let at = 0; at < text.length; ) {
    while (at < text.length && isBlank(text[at])) at++
    const begin = at
    while (at < text.length && !isBlank(text[at])) at++
    if (at > begin) words.push([begin, at])
  }
  const word = ([begin, end]: [number, number]): string => text.slice(begin, end)
  if (most < 0 || words.length <= most) return words.map(word)
  if (!fromRight) {
    return [...words.slice(0, most).map(word), ...(words.length > most ? [text.slice(words[most][0])] : [])]
  }
  const kept = words.length - most
  return [...(kept > 0 ? [text.slice(0, words[kept - 1][1])] : []), ...words.slice(kept).map(word)]
}

export function replace(text: string, old: string, by: string, count: number, budget: Budget): string {
  if (count === 0) return text
  let parts: string[]
  if (old === '') {
    // Between all characters, before the first and after the last.
    parts = ['', ...text, '']
  } else parts = text.split(old)
  const places = parts.length - 1
  const done = count < 0 ? places : Math.min(count, places)
  budget.size(text.length + done * by.length)
  if (done === places) return parts.join(by)
  return parts.slice(0, done + 1).join(by) + old + parts.slice(done + 1).join(old)
}

const UPPER = /\p{Uppercase}/u
const LOWER = /\p{Lowercase}/u
const TITLE = /\p{Lt}/u
const isCased = (character: string): boolean => UPPER.test(character) || LOWER.test(character) || TITLE.test(character)

/** Titlecase of a character where it is not its uppercase. */
function titled(character: string): string {
  const code = character.codePointAt(0)!
  if (code >= 0x1c4 && code <= 0x1cc) return code < 0x1c7 ? '\u01c5' : code < 0x1ca ? '\u01c8' : '\u01cb'
  if (code >= 0x1f1 && code <= 0x1f3) return '\u01f2'
  if (code >= 0x10d0 && code <= 0x10ff) return character
  if (TITLE.test(character)) return character
  const upper = character.toUpperCase()
  if (code >= 0x1f80 && code <= 0x1ffc && upper.length > 1) {
    const single = String.fromCodePoint(code <= 0x1faf ? code | 8 : code + 9)
    if (TITLE.test(single) && single.toLowerCase() === character) return single
  }
  const [first, ...rest] = upper
  return first + rest.join('').toLowerCase()
}

export function capitalize(text: string): string {
  const [first] = text
  return first === undefined ? '' : titled(first) + text.slice(first.length).toLowerCase()
}

function title(text: string): string {
  let result = ''
  let inside = false
  for (const character of text) {
    result += inside ? character.toLowerCase() : titled(character)
    inside = isCased(character)
  }
  return result
}

/** Where in code points a part of the text stands, or -1. */
function find(text: string, args: TextArguments, fromRight: boolean): number {
  args.count(1, 3)
  const [part, window] = [args.text(0), windowOf(text, args)]
  if (window === null) return -1
  const within = window.characters.join('')
  const at = fromRight ? within.lastIndexOf(part) : within.indexOf(part)
  return at < 0 ? -1 : window.begin + Array.from(within.slice(0, at)).length
}

/** The part of the text between the second and the third argument; null where it begins after its end. */
function windowOf(text: string, args: TextArguments): { begin: number; characters: string[] } | null {
  const characters = Array.from(text)
  const place = (value: Value | undefined, fallback: number, at: number): number => {
    if (value === undefined || value === null) return fallback
    const whole = args.whole(at, null)
    return whole < 0 ? Math.max(0, whole + characters.length) : whole
  }
  const begin = place(args.get(1), 0, 1)
  const end = Math.min(place(args.get(2), characters.length, 2), characters.length)
  return begin > end ? null : { begin, characters: characters.slice(begin, end) }
}

function startsOrEnds(text: string, args: TextArguments, ends: boolean): boolean {
  args.count(1, 3)
  const wanted = args.get(0)
  const options = wanted instanceof Tuple ? wanted.items : [wanted ?? null]
  const window = windowOf(text, args)
  const within = window?.characters.join('')
  return options.some((option) => {
    if (typeof option !== 'string') {
      throw new TemplateError(`${args.name} first arg must be str or a tuple of str, not ${typeName(option)}`)
    }
    return within !== undefined && (ends ? within.endsWith(option) : within.startsWith(option))
  })
}

function partition(text: string, separator: string, fromRight: boolean): Tuple {
  if (separator === '') throw new TemplateError('empty separator')
  const at = fromRight ? text.lastIndexOf(separator) : text.indexOf(separator)
  if (at < 0) return new Tuple(fromRight ? ['', '', text] : [text, '', ''])
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)])
}

const every = (pattern: RegExp): Method => {
  return (text, args) => {
    args.count(0, 0)
    return pattern.test(text)
  }
}
const plain = (work: (text: string) => Value): Method => {
  return (text, args, budget) => {
    args.count(0, 0)
    budget.spend(text.length / 64)
    return work(text)
  }
}
const padded = (align: '<' | '>' | '^'): Method => {
  return (text, args, budget) => {
    args.count(1, 2)
    const [width, fill] = [args.whole(0, null), args.text(1, ' ')]
    if (Array.from(fill).length !== 1) throw new TemplateError('The fill character must be exactly one character long')
    if (align !== '^') return pad(text, width, align, fill, budget)
    // Python's center gives the odd one to the left where the width is odd.
    const missing = width - Array.from(text).length
    if (missing <= 0) return text
    budget.size(text.length + missing)
    const left = (missing >> 1) + (missing & width & 1)
    return fill.repeat(left) + text + fill.repeat(missing - left)
  }
}
const stripped = (left: boolean, right: boolean): Method => {
  return (text, args, budget) => {
    args.count(0, 1)
    budget.spend(text.length / 64)
    return strip(text, args.textOrNone(0), left, right)
  }
}
const splitting = (fromRight: boolean): Method => {
  return (text, args, budget) => {
    args.count(0, 2, ['sep', 'maxsplit'])
    budget.spend(text.length / 16)
    return split(text, args.textOrNone(0, 'sep'), args.whole(1, -1, 'maxsplit'), fromRight, budget)
  }
}
const DIGITS =
  /^[\p{Nd}\u00b2\u00b3\u00b9\u1369-\u1371\u19da\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247c\u2488-\u2490\u24ea\u24f5-\u24fd\u24ff\u2776-\u277e\u2780-\u2788\u278a-\u2792]+$/u

/** Methods by name, but for `format` and `format_map`, which read members of values. */
export const TEXT_METHODS: Readonly<Record<string, Method>> = {
  capitalize: plain(capitalize),
  casefold: plain((text) => {
    if (!/^\p{ASCII}*$/u.test(text)) throw new TemplateError('casefold() of characters beyond ASCII is not supported')
    return text.toLowerCase()
  }),
  center: padded('^'),
  count(text, args) {
    args.count(1, 3)
    const [part, window] = [args.text(0), windowOf(text, args)]
    if (window === null) return 0n
    if (part === '') return BigInt(window.characters.length + 1)
    return BigInt(window.characters.join('').split(part).length - 1)
  },
  endswith: (text, args) => startsOrEnds(text, args, true),
  expandtabs(text, args, budget) {
    args.count(0, 1, ['tabsize'])
    const size = args.whole(0, 8, 'tabsize')
    let [result, column] = ['', 0]
    for (const character of text) {
      const part = character === '\t' ? ' '.repeat(size > 0 ? size - (column % size) : 0) : character
      column = character === '\n' || character === '\r' ? 0 : column + (character === '\t' ? part.length : 1)
      budget.size(result.length + part.length)
      result += part
    }
    return result
  },
  find: (text, args) => BigInt(find(text, args, false)),
  index(text, args) {
    const at = find(text, args, false)
    if (at < 0) throw new TemplateError('substring not found')
    return BigInt(at)
  },
  isalnum: every(/^[\p{L}\p{N}]+$/u),
  isalpha: every(/^\p{L}+$/u),
  isascii: every(/^\p{ASCII}*$/u),
  isdecimal: every(/^\p{Nd}+$/u),
  isdigit: every(DIGITS),
  isidentifier: every(/^[\p{ID_Start}_]\p{ID_Continue}*$/u),
  islower: plain((text) => LOWER.test(text) && !UPPER.test(text) && !TITLE.test(text)),
  isnumeric: plain((text) => {
    if (/\p{Script=Han}/u.test(text.replace(/\p{N}/gu, ''))) {
      throw new TemplateError('isnumeric() of Chinese characters is not supported')
    }
    return /^\p{N}+$/u.test(text)
  }),
  isprintable: every(/^(?:[^\p{C}\p{Z}]| )*$/u),
  isspace: every(new RegExp(`^[${BLANKS}]+$`)),
  istitle: plain((text) => {
    let [cased, inside] = [false, false]
    for (const character of text) {
      const upper = UPPER.test(character) || TITLE.test(character)
      if (upper ? inside : LOWER.test(character) && !inside) return false
      inside = isCased(character)
      cased ||= inside
    }
    return cased
  }),
  isupper: plain((text) => UPPER.test(text) && !LOWER.test(text) && !TITLE.test(text)),
  join(text, args, budget) {
    args.count(1, 1)
    const parts: string[] = []
    let length = 0
    for (const part of iterate(args.get(0) ?? null)) {
      if (typeof part !== 'string') {
        throw new TemplateError(`sequence item ${parts.length}: expected str instance, ${typeName(part)} found`)
      }
      parts.push(part)
      length += part.length + text.length
      budget.size(length)
    }
    return parts.join(text)
  },
  ljust: padded('<'),
  lower: plain((text) => text.toLowerCase()),
  lstrip: stripped(true, false),
  partition(text, args) {
    args.count(1, 1)
    return partition(text, args.text(0), false)
  },
  removeprefix(text, args) {
    args.count(1, 1)
    return text.startsWith(args.text(0)) ? text.slice(args.text(0).length) : text
  },
  removesuffix(text, args) {
    args.count(1, 1)
    const end = args.text(0)
    return end !== '' && text.endsWith(end) ? text.slice(0, -end.length) : text
  },
  replace(text, args, budget) {
    args.count(
      2,
      3,
      ['old', 'new', 'count'].map((name, i) => (i < 2 ? '' : name)),
    )
    return replace(text, args.text(0), args.text(1), args.whole(2, -1, 'count'), budget)
  },
  rfind: (text, args) => BigInt(find(text, args, true)),
  rindex(text, args) {
    const at = find(text, args, true)
    if (at < 0) throw new TemplateError('substring not found')
    return BigInt(at)
  },
  rjust: padded('>'),
  rpartition(text, args) {
    args.count(1, 1)
    return partition(text, args.text(0), true)
  },
  rsplit: splitting(true),
  rstrip: stripped(false, true),
  split: splitting(false),
  splitlines(text, args, budget) {
    args.count(0, 1, ['keepends'])
    const lines = splitLines(text, isTrue(args.get(0, 'keepends') ?? false))
    budget.size(16 * lines.length)
    return lines
  },
  startswith: (text, args) => startsOrEnds(text, args, false),
  strip: stripped(true, true),
  swapcase: plain((text) => {
    return Array.from(text, (one) =>
      UPPER.test(one) ? one.toLowerCase() : LOWER.test(one) ? one.toUpperCase() : one,
    ).join('')
  }),
  title: plain(title),
  upper: plain((text) => text.toUpperCase()),
  zfill(text, args, budget) {
    args.count(1, 1)
    const [, sign, rest] = /^([-+]?)(.*)$/s.exec(text)!
    return sign + pad(rest, args.whole(0, null) - sign.length, '>', '0', budget)
  },
}

/** Methods that Python has and that are refused. */
export const REFUSED_TEXT_METHODS = ['encode', 'maketrans', 'translate']
