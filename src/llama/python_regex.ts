// Regular expressions of Python's `re` on names of modules, matched without backtracking.
//
// PEFT writes such expressions into adapter_config.json, and that file may come from anywhere. For every part of an expression and
// every place in the name the set of places where the part may end is found once, so that the work is bounded by their product,
// whatever the expression. Whether a match exists does not depend on greed, so lazy quantifiers are read as greedy ones. What depends
// on how Python searches (back references, possessive quantifiers, atomic groups, conditions, flags) is refused.
//
// Source: the page "Regular expression syntax" of Python's documentation of `re`.
import { RegexReader } from '../text/regex_reader.ts'

/** A part of an expression. */
type Part =
  | { readonly kind: 'character'; readonly fits: (code: number) => boolean }
  | { readonly kind: 'sequence' | 'choice'; readonly parts: readonly Part[] }
  | { readonly kind: 'repeat'; readonly part: Part; readonly least: number; readonly most: number }
  | { readonly kind: 'place'; readonly holds: (name: string, at: number) => boolean }
  | { readonly kind: 'look'; readonly part: Part; readonly ahead: boolean; readonly wanted: boolean }

export interface PythonRegex {
  /** As `re.fullmatch`: whether the whole name is matched. */
  matchesAll(name: string): boolean
  /** As `re.match`: whether a beginning of the name is matched. */
  matchesStart(name: string): boolean
}

/** Counts the steps of matching; shared by the expressions of one adapter. */
export interface Budget {
  left: number
}

// Deeper ones would exhaust the stack.
const DEPTH_LIMIT = 100
const NAME_LIMIT = 1024

/**
 * Reads an expression. `where` is what errors call it. Throws on what Python refuses and on what has no counterpart here; matching
 * throws where it takes more steps than the budget has.
 */
export function parsePythonRegex(source: string, where: string, budget: Budget = { left: 1e8 }): PythonRegex {
  const root = new Parser(source, where).parse()
  const run = (name: string): bigint => {
    if (name.length > NAME_LIMIT) throw new Error(`${where}: the name of a module has ${name.length} characters`)
    return new Matcher(name, budget, where).ends(root, 0)
  }
  return {
    matchesAll: (name) => ((run(name) >> BigInt(name.length)) & 1n) === 1n,
    matchesStart: (name) => run(name) !== 0n,
  }
}

const digit = (code: number): boolean => code >= 48 && code <= 57
const word = (code: number): boolean => /[\p{L}\p{N}_]/u.test(String.fromCharCode(code))
const space = (code: number): boolean =>
  (code >= 0x1c && code <= 0x1f) || code === 0x85 || (code !== 0xfeff && /\s/.test(String.fromCharCode(code)))
const CLASSES: Readonly<Record<string, (code: number) => boolean>> = {
  d: digit,
  D: (code) => !digit(code),
  w: word,
  W: (code) => !word(code),
  s: space,
  S: (code) => !space(code),
}
const CONTROLS: Readonly<Record<string, number>> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 }

const wordAt = (name: string, at: number): boolean => at >= 0 && at < name.length && word(name.charCodeAt(at))
const boundary = (name: string, at: number): boolean => wordAt(name, at - 1) !== wordAt(name, at)
const atStart = (_: string, at: number): boolean => at === 0
const atEnd = (name: string, at: number): boolean => at === name.length
const PLACES: Readonly<Record<string, (name: string, at: number) => boolean>> = {
  A: atStart,
  Z: atEnd,
  b: boundary,
  B: (name, at) => !boundary(name, at),
}

class Parser extends RegexReader<Part> {
  constructor(source: string, where: string) {
    super(source, where, DEPTH_LIMIT)
  }

  protected override either(parts: Part[]): Part {
    return { kind: 'choice', parts }
  }

  protected override sequence(): Part {
    const parts: Part[] = []
    while (this.inSequence) parts.push(this.#repeated())
    return { kind: 'sequence', parts }
  }

  #repeated(): Part {
    const part = this.#single()
    const bounds = this.#bounds()
    if (bounds === null) return part
    if (part.kind === 'place') this.fail('repeats what matches a place, not a character')
    const [least, most] = bounds
    if (most < least) this.fail('repeats a part from more to fewer times')
    if (this.take('+')) this.fail('has a possessive quantifier, which is not supported')
    this.take('?') // lazy: the same names match
    if (this.#bounds() !== null) this.fail('has two quantifiers in a row')
    return { kind: 'repeat', part, least, most }
  }

  /** A quantifier, where there is one; braces that are none are characters. */
  #bounds(): [number, number] | null {
    if (this.take('*')) return [0, Infinity]
    if (this.take('+')) return [1, Infinity]
    if (this.take('?')) return [0, 1]
    const [text, least, comma, most] = /^\{(\d*)(,?)(\d*)\}/.exec(this.source.slice(this.at, this.at + 64)) ?? []
    if (text === undefined || text === '{}') return null
    this.at += text.length
    if (comma === '') return [Number(least), Number(least)]
    return [least === '' ? 0 : Number(least), most === '' ? Infinity : Number(most)]
  }

  #single(): Part {
    const character = this.source[this.at]
    if ('*+?'.includes(character)) this.fail('has nothing to repeat')
    if (character === '(') return this.#group()
    this.at++
    if (character === '[') return { kind: 'character', fits: this.#set() }
    if (character === '.') return { kind: 'character', fits: (code) => code !== 10 }
    if (character === '^') return { kind: 'place', holds: atStart }
    if (character === '$') return { kind: 'place', holds: atEnd }
    if (character !== '\\') {
      const own = character.charCodeAt(0)
      return { kind: 'character', fits: (code) => code === own }
    }
    const next = this.source[this.at]
    if (next !== undefined && Object.hasOwn(PLACES, next)) {
      this.at++
      return { kind: 'place', holds: PLACES[next] }
    }
    return { kind: 'character', fits: this.#escape() }
  }

  /** What stands after a backslash. */
  #escape(): (code: number) => boolean {
    const next = this.source[this.at]
    if (next === undefined) this.fail('ends with a backslash')
    if (Object.hasOwn(CLASSES, next)) {
      this.at++
      return CLASSES[next]
    }
    if (/[0-9]/.test(next)) this.fail('refers back to a group or has an octal number, which is not supported')
    if (/[a-zA-Z]/.test(next) && !Object.hasOwn(CONTROLS, next))
      this.fail(`has the escape \\${next}, which is not supported`)
    this.at++
    const own = CONTROLS[next] ?? next.charCodeAt(0)
    return (code) => code === own
  }

  #set(): (code: number) => boolean {
    const negated = this.take('^')
    const members: ((code: number) => boolean)[] = []
    for (let first = true; first || !this.take(']'); first = false) {
      const low = this.#member()
      if (typeof low === 'number' && this.source[this.at] === '-' && this.source[this.at + 1] !== ']') {
        this.at++
        const high = this.#member()
        if (typeof high !== 'number' || high < low) this.fail('has a range that is none')
        members.push((code) => code >= low && code <= high)
      } else members.push(typeof low === 'number' ? (code) => code === low : low)
    }
    return (code) => members.some((fits) => fits(code)) !== negated
  }

  /** A character of a set, or a class of them. */
  #member(): number | ((code: number) => boolean) {
    const character = this.source[this.at]
    if (character === undefined) this.fail('has a [ without its ]')
    this.at++
    if (character !== '\\') return character.charCodeAt(0)
    const next = this.source[this.at]
    if (next === 'b') {
      this.at++
      return 8
    }
    if (next !== undefined && !/[0-9a-zA-Z]/.test(next)) {
      this.at++
      return next.charCodeAt(0)
    }
    const fits = this.#escape()
    return Object.hasOwn(CONTROLS, next) ? CONTROLS[next] : fits
  }

  #group(): Part {
    this.at++
    let look: { readonly ahead: boolean; readonly wanted: boolean } | null = null
    if (this.take('?')) {
      if (this.take('=')) look = { ahead: true, wanted: true }
      else if (this.take('!')) look = { ahead: true, wanted: false }
      else if (this.take('<=')) look = { ahead: false, wanted: true }
      else if (this.take('<!')) look = { ahead: false, wanted: false }
      else if (!this.take(':')) {
        const [name] = /^P<[A-Za-z_]\w*>/.exec(this.source.slice(this.at)) ?? []
        if (name === undefined)
          this.fail('has a group of a kind that is not supported (flags, comments, conditions, references)')
        this.at += name.length
      }
    }
    const part = this.choice()
    if (!this.take(')')) this.fail('has a ( without its )')
    return look === null ? part : { kind: 'look', part, ...look }
  }
}

/** Finds where parts may end; a set of places is a number whose bit p stands for the place before character p. */
class Matcher {
  readonly #name: string
  readonly #budget: Budget
  readonly #where: string
  readonly #known = new Map<Part, (bigint | undefined)[]>()

  constructor(name: string, budget: Budget, where: string) {
    this.#name = name
    this.#budget = budget
    this.#where = where
  }

  /** Places where the part may end if it begins at `at`. */
  ends(part: Part, at: number): bigint {
    let known = this.#known.get(part)
    if (known === undefined) {
      known = []
      this.#known.set(part, known)
    }
    known[at] ??= this.#find(part, at)
    return known[at]
  }

  #find(part: Part, at: number): bigint {
    this.#spend()
    const here = 1n << BigInt(at)
    switch (part.kind) {
      case 'character':
        return at < this.#name.length && part.fits(this.#name.charCodeAt(at)) ? here << 1n : 0n
      case 'place':
        return part.holds(this.#name, at) ? here : 0n
      case 'sequence': {
        let places = here
        for (const one of part.parts) places = this.#from(one, places)
        return places
      }
      case 'choice': {
        let places = 0n
        for (const one of part.parts) places |= this.ends(one, at)
        return places
      }
      case 'repeat':
        return this.#repeat(part, here)
      case 'look':
        return this.#looks(part.part, at, part.ahead) === part.wanted ? here : 0n
    }
  }

  #repeat({ part, least, most }: Part & { kind: 'repeat' }, here: bigint): bigint {
    // After as many repetitions as there are places a set no longer changes: a longer chain stands still somewhere.
    const still = this.#name.length + 2
    let places = here
    for (let i = 0; i < Math.min(least, still) && places !== 0n; i++) places = this.#from(part, places)
    let reached = places
    for (let i = least; i < most && places !== 0n; i++) {
      places = this.#from(part, places) & ~reached
      reached |= places
    }
    return reached
  }

  #looks(part: Part, at: number, ahead: boolean): boolean {
    if (ahead) return this.ends(part, at) !== 0n
    for (let begin = 0; begin <= at; begin++) if ((this.ends(part, begin) >> BigInt(at)) & 1n) return true
    return false
  }

  #from(part: Part, places: bigint): bigint {
    let ends = 0n
    for (let at = 0, rest = places; rest !== 0n; at++, rest >>= 1n) {
      this.#spend()
      if (rest & 1n) ends |= this.ends(part, at)
    }
    return ends
  }

  #spend(): void {
    if (--this.#budget.left < 0) {
      throw new Error(
        `${this.#where}: matching the regular expression takes too long; give the names of the modules as a list`,
      )
    }
  }
}
