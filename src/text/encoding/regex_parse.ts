// Parses the regular expressions of tokenizer.json, which are Oniguruma's in Ruby's syntax.
//
// What depends on state of the search (back references, conditions, \G, absent groups) and what sets of characters cannot say
// (intersections) is refused. Source: Oniguruma's doc/RE and what tokenizers does with it.
import { show } from '../../files/json.ts'
import { RegexReader } from '../regex_reader.ts'

export type Part =
  /** A character of a set; `source` is the inside of a set of JavaScript. */
  | { readonly kind: 'set'; readonly source: string }
  | { readonly kind: 'sequence' | 'choice'; readonly parts: readonly Part[] }
  | {
      readonly kind: 'repeat'
      readonly part: Part
      readonly least: number
      readonly most: number
      /** possessive: what has been taken is not given back. */
      readonly way: 'greedy' | 'lazy' | 'possessive'
    }
  | { readonly kind: 'look'; readonly part: Part; readonly ahead: boolean; readonly wanted: boolean }
  | { readonly kind: 'atomic'; readonly part: Part }
  | { readonly kind: 'place'; readonly place: 'A' | 'z' | 'Z' | '^' | '$' | 'b' | 'B' }

const DEPTH_LIMIT = 50
const REPEAT_LIMIT = 1000

/** Oniguruma's \w inside a set; outside of one it has some digits more. */
const WORD_IN_SET = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}'
export const WORD = `${WORD_IN_SET}\\u00b2\\u00b3\\u00b9\\u00bc-\\u00be`
const SETS: Readonly<Record<string, string>> = {
  d: '\\p{Nd}',
  D: '\\P{Nd}',
  s: '\\p{White_Space}',
  S: '\\P{White_Space}',
  h: '0-9A-Fa-f',
}
const NEGATED: Readonly<Record<string, string>> = { W: WORD, H: '0-9A-Fa-f' }
const CONTROLS: Readonly<Record<string, number>> = { a: 7, b: 8, e: 27, f: 12, n: 10, r: 13, t: 9, v: 11 }

/** A character in a set of JavaScript. */
const escaped = (code: number): string => `\\u{${code.toString(16)}}`

export function parseRegex(source: string, where: string): Part {
  return new Parser(source, where).parse()
}

class Parser extends RegexReader<Part> {
  #fold = false
  #dotAll = false

  constructor(source: string, where: string) {
    super(source, where, DEPTH_LIMIT)
  }

  protected override either(parts: Part[]): Part {
    return { kind: 'choice', parts }
  }

  /** The next character, of one code point, and goes past it. */
  #next(): string {
    const code = this.source.codePointAt(this.at)
    if (code === undefined) this.fail('ends too early')
    const character = String.fromCodePoint(code)
    this.at += character.length
    return character
  }

  protected override sequence(): Part {
    const parts: Part[] = []
    while (this.inSequence) parts.push(this.#repeated())
    return parts.length === 1 ? parts[0] : { kind: 'sequence', parts }
  }

  #repeated(): Part {
    let part = this.#single()
    for (let count = 0; ; count++) {
      const before = this.at
      const bounds = this.#bounds()
      if (bounds === null) return part
      if (count > 0) this.fail('has two quantifiers in a row')
      if (part.kind === 'place' || part.kind === 'look') this.fail('repeats what matches a place, not a character')
      const [least, most] = bounds
      if (most < least) this.fail('repeats a part from more to fewer times')
      if (least > REPEAT_LIMIT || (most > REPEAT_LIMIT && most !== Infinity))
        this.fail(`repeats a part more than ${REPEAT_LIMIT} times`)
      let way: 'greedy' | 'lazy' | 'possessive' = 'greedy'
      if (this.take('?')) way = 'lazy'
      else if (this.take('+')) {
        // After braces Ruby's + repeats once more.
        if (this.source[before] === '{') this.fail('has two quantifiers in a row')
        way = 'possessive'
      }
      part = { kind: 'repeat', part, least, most, way }
    }
  }

  #bounds(): [number, number] | null {
    if (this.take('*')) return [0, Infinity]
    if (this.take('+')) return [1, Infinity]
    if (this.take('?')) return [0, 1]
    const [text, least, comma, most] =
      /^\{(\d{0,6})(,?)(\d{0,6})\}/.exec(this.source.slice(this.at, this.at + 16)) ?? []
    if (text === undefined || text === '{}' || text === '{,}') return null
    this.at += text.length
    if (comma === '') return [Number(least), Number(least)]
    return [least === '' ? 0 : Number(least), most === '' ? Infinity : Number(most)]
  }

  #single(): Part {
    const start = this.at
    const character = this.#next()
    if ('*+?'.includes(character)) this.fail('has nothing to repeat')
    if (character === '(') return this.#group()
    if (character === '[') return this.#set()
    if (character === '.') return { kind: 'set', source: this.#dotAll ? '\\u{0}-\\u{10ffff}' : '^\\n' }
    if (character === '^' || character === '$') return { kind: 'place', place: character }
    if (character !== '\\') return this.#literal(character)
    const next = this.source[this.at]
    if (next !== undefined && 'AzZbB'.includes(next)) {
      this.at++
      return { kind: 'place', place: next as 'A' }
    }
    this.at = start
    return this.#member(false).set
  }

  #literal(character: string): Part {
    return {
      kind: 'set',
      source: this.#fold
        ? foldings(character)
            .map((one) => escaped(one.codePointAt(0)!))
            .join('')
        : escaped(character.codePointAt(0)!),
    }
  }

  /** A character, a class of them or an escape; `code` is null for classes. */
  #member(inSet = true): {
    readonly set: { readonly kind: 'set'; readonly source: string }
    readonly code: number | null
  } {
    const character = this.#next()
    if (character !== '\\') return this.#scalar(character.codePointAt(0)!)
    const next = this.#next()
    const set = (source: string) => ({ set: { kind: 'set', source } as const, code: null })
    if (next === 'w') return set(inSet ? WORD_IN_SET : WORD)
    if (Object.hasOwn(SETS, next)) return set(SETS[next])
    if (Object.hasOwn(NEGATED, next)) return set(`^${NEGATED[next]}`)
    if (next === 'p' || next === 'P') return set(this.#property(next === 'P'))
    if (next === 'x' || next === 'u') {
      const pattern = next === 'x' ? /^(?:\{([\da-fA-F]{1,6})\}|([\da-fA-F]{1,2}))/ : /^(?:([\da-fA-F]{4}))/
      const found = pattern.exec(this.source.slice(this.at, this.at + 10))
      if (found === null) this.fail(`has a \\${next} without its digits`)
      this.at += found[0].length
      const code = Number.parseInt(found[1] ?? found[2], 16)
      if (code > 0x10ffff || (next === 'x' && found[1] === undefined && code > 0x7f))
        this.fail('names a character that there is not')
      return this.#scalar(code)
    }
    if (Object.hasOwn(CONTROLS, next)) return this.#scalar(CONTROLS[next])
    if (next === '0') return this.#scalar(0)
    if (/[0-9a-zA-Z]/.test(next)) this.fail(`has the escape \\${next}, which is not supported`)
    return this.#scalar(next.codePointAt(0)!)
  }

  #scalar(code: number) {
    const source = this.#fold ? (this.#literal(String.fromCodePoint(code)) as { source: string }).source : escaped(code)
    return { set: { kind: 'set', source } as const, code }
  }

  #property(negated: boolean): string {
    const [text, hat, name] = /^\{(\^?)([\w ]+)\}/.exec(this.source.slice(this.at, this.at + 64)) ?? []
    if (text === undefined) this.fail('has a \\p without its name')
    this.at += text.length
    const letter = negated !== (hat === '^') ? 'P' : 'p'
    for (const option of [name, `Script=${name}`]) {
      const source = `\\${letter}{${option}}`
      try {
        new RegExp(source, 'u')
        return source
      } catch {}
    }
    return this.fail(`has the property ${show(name)}, which is not supported`)
  }

  #set(): Part {
    const negated = this.take('^')
    let source = ''
    for (let first = true; first || !this.take(']'); first = false) {
      if (this.take('[')) this.fail('has a set inside a set, which is not supported')
      if (this.take('&&')) this.fail('has an intersection of sets, which is not supported')
      const low = this.#member()
      const range = low.code !== null && this.source[this.at] === '-' && this.source[this.at + 1] !== ']'
      if (!range) {
        if (low.set.source.startsWith('^')) this.fail('has a class inside a set that is not supported')
        source += low.set.source
        continue
      }
      this.at++
      const high = this.#member()
      if (high.code === null || high.code < low.code!) this.fail('has a range that is none')
      if (this.#fold) this.fail('has a range that ignores case, which is not supported')
      source += `${escaped(low.code!)}-${escaped(high.code)}`
    }
    return { kind: 'set', source: (negated ? '^' : '') + source }
  }

  #group(): Part {
    const [fold, dotAll] = [this.#fold, this.#dotAll]
    let wrap = (part: Part): Part => part
    if (this.take('?')) {
      const look =
        (ahead: boolean, wanted: boolean) =>
        (part: Part): Part => ({ kind: 'look', part, ahead, wanted })
      if (this.take('=')) wrap = look(true, true)
      else if (this.take('!')) wrap = look(true, false)
      else if (this.take('<=')) wrap = look(false, true)
      else if (this.take('<!')) wrap = look(false, false)
      else if (this.take('>')) wrap = (part) => ({ kind: 'atomic', part })
      else {
        const [text, on, off, end] = /^([im]*)(?:-([im]+))?([:)])/.exec(this.source.slice(this.at, this.at + 16)) ?? []
        if (text === undefined) this.fail('has a group of a kind that is not supported')
        this.at += text.length
        if (on.includes('i')) this.#fold = true
        if (on.includes('m')) this.#dotAll = true
        if (off?.includes('i')) this.#fold = false
        if (off?.includes('m')) this.#dotAll = false
        if (end === ')') {
          // The flags hold to the end of the group around.
          const rest = this.choice()
          ;[this.#fold, this.#dotAll] = [fold, dotAll]
          return rest
        }
      }
    }
    const part = this.choice()
    if (!this.take(')')) this.fail('has a ( without its )')
    ;[this.#fold, this.#dotAll] = [fold, dotAll]
    return wrap(part)
  }
}

/** The characters that are one where case is ignored. */
function foldings(character: string): string[] {
  const [lower, upper] = [character.toLowerCase(), character.toUpperCase()]
  const found = new Set([character, lower, upper, upper.toLowerCase(), lower.toUpperCase()])
  const special: Record<string, string> = { s: 'ſ', k: '\u212a', å: '\u212b' }
  for (const one of [...found]) if (Object.hasOwn(special, one)) found.add(special[one])
  return [...found].filter((one) => Array.from(one).length === 1)
}
