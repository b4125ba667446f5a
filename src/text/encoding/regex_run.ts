// Finds the matches of a regular expression of tokenizer.json.
//
// Expressions that published models have run on the engine of JavaScript, and take time in proportion to the text. Others may come
// from anybody: they run on a matcher that counts its steps, and a text on which it takes too many is refused.

import { KNOWN } from './regex_known.ts'
import { type Part, parseRegex, WORD } from './regex_parse.ts'

/** Where a match begins and ends. */
export type Match = readonly [begin: number, end: number]

export interface Regex {
  /** All matches in their order, as Oniguruma's search finds them; one that is empty right behind another is left out. */
  matches(text: string): Match[]
}

const STEPS = 2e6
const STEPS_PER_CHARACTER = 500

export function compileRegex(source: string, where: string): Regex {
  const part = parseRegex(source, where)
  return KNOWN.includes(source) ? nativeRegex(toJavaScript(part)) : boundedRegex(part, where)
}

/** A text to be found as it is; an empty one is found nowhere. */
export function literalRegex(text: string): Regex {
  return {
    matches(within) {
      const found: Match[] = []
      if (text === '') return found
      for (let at = within.indexOf(text); at >= 0; at = within.indexOf(text, at + text.length))
        found.push([at, at + text.length])
      return found
    },
  }
}

/** An expression of JavaScript; it must never be quadratic. */
export function nativeRegex(source: string): Regex {
  const regex = new RegExp(source, 'gu')
  return {
    matches(text) {
      const found: Match[] = []
      regex.lastIndex = 0
      for (let match = regex.exec(text); match !== null; match = regex.exec(text)) {
        found.push([match.index, regex.lastIndex])
        if (match[0] === '') regex.lastIndex += 1
      }
      return found
    },
  }
}

const wordAt = `[${WORD}]`
const PLACES: Readonly<Record<string, string>> = {
  A: '(?<![\\s\\S])',
  z: '(?![\\s\\S])',
  Z: '(?=\\n?(?![\\s\\S]))',
  '^': '(?<![^\\n])',
  $: '(?![^\\n])',
  b: `(?:(?<=${wordAt})(?!${wordAt})|(?<!${wordAt})(?=${wordAt}))`,
  B: `(?:(?<=${wordAt})(?=${wordAt})|(?<!${wordAt})(?!${wordAt}))`,
}

/** Writes an expression for JavaScript's engine, flag u. */
function toJavaScript(part: Part): string {
  switch (part.kind) {
    case 'set':
      return `[${part.source}]`
    case 'sequence':
      return part.parts.map((one) => (one.kind === 'choice' ? `(?:${toJavaScript(one)})` : toJavaScript(one))).join('')
    case 'choice':
      return part.parts.map(toJavaScript).join('|')
    case 'repeat': {
      if (part.way === 'possessive') throw new Error('known expressions have no possessive quantifiers')
      const most = part.most === Infinity ? '' : part.most
      return `(?:${toJavaScript(part.part)}){${part.least},${most}}${part.way === 'lazy' ? '?' : ''}`
    }
    case 'look':
      return `(?${part.ahead ? '' : '<'}${part.wanted ? '=' : '!'}${toJavaScript(part.part)})`
    case 'place':
      return PLACES[part.place]
    case 'atomic':
      throw new Error('known expressions have no atomic groups')
  }
}

interface Run {
  readonly text: string
  steps: number
}

/** Gives the end of a match that begins at a place and for which the rest matches too, or -1. */
type Step = (run: Run, at: number, rest: (at: number) => number) => number

function boundedRegex(part: Part, where: string): Regex {
  const step = toStep(part, where)
  return {
    matches(text) {
      const found: Match[] = []
      const run: Run = { text, steps: STEPS + STEPS_PER_CHARACTER * text.length }
      let last = -1
      for (let at = 0; at <= text.length; ) {
        const end = attempt(step, run, at, where)
        if (end < 0 || (end === at && last === at)) at += width(text, at)
        else {
          found.push([at, end])
          last = end
          at = end === at ? at + width(text, at) : end
        }
      }
      return found
    },
  }
}

function attempt(step: Step, run: Run, at: number, where: string): number {
  try {
    return step(run, at, (end) => end)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Error(`${where}: the regular expression goes too deep on a text of ${run.text.length} characters`)
  }
}

/** Units of the character at a place; 1 at the end of the text. */
function width(text: string, at: number): number {
  return (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1
}

function toStep(part: Part, where: string): Step {
  const spend = (run: Run): void => {
    if (--run.steps >= 0) return
    throw new Error(`${where}: the regular expression takes too long on a text of ${run.text.length} characters`)
  }
  const make = (one: Part): Step => {
    switch (one.kind) {
      case 'set': {
        const fits = setTest(one.source)
        return (run, at, rest) => {
          spend(run)
          return at < run.text.length && fits(run.text.codePointAt(at)!) ? rest(at + width(run.text, at)) : -1
        }
      }
      case 'sequence':
        return one.parts.map(make).reduceRight<Step>(
          (after, before) => (run, at, rest) => before(run, at, (end) => after(run, end, rest)),
          (_, at, rest) => rest(at),
        )
      case 'choice': {
        const steps = one.parts.map(make)
        return (run, at, rest) => {
          for (const step of steps) {
            spend(run)
            const end = step(run, at, rest)
            if (end >= 0) return end
          }
          return -1
        }
      }
      case 'atomic': {
        const step = make(one.part)
        return (run, at, rest) => {
          const end = step(run, at, (inner) => inner)
          return end < 0 ? -1 : rest(end)
        }
      }
      case 'look':
        return lookStep(make(one.part), one, spend)
      case 'place':
        return (run, at, rest) => (holds(one.place, run.text, at) ? rest(at) : -1)
      case 'repeat':
        if (one.way === 'possessive') {
          return make({ kind: 'atomic', part: { ...one, way: 'greedy' } })
        }
        return one.part.kind === 'set'
          ? setRepeat(one, setTest(one.part.source), spend)
          : groupRepeat(one, make(one.part), spend)
    }
  }
  return make(part)
}

function lookStep(step: Step, { ahead, wanted }: { ahead: boolean; wanted: boolean }, spend: (run: Run) => void): Step {
  return (run, at, rest) => {
    let found = false
    if (ahead) found = step(run, at, (end) => end) >= 0
    else {
      for (let begin = at; begin >= 0 && !found; begin--) {
        spend(run)
        found = step(run, begin, (end) => (end === at ? end : -1)) >= 0
      }
    }
    return found === wanted ? rest(at) : -1
  }
}

/** Repeats a set without a call for every character. */
function setRepeat(
  { least, most, way }: Part & { kind: 'repeat' },
  fits: (code: number) => boolean,
  spend: (run: Run) => void,
): Step {
  return (run, at, rest) => {
    const { text } = run
    let [end, count] = [at, 0]
    const more = (): boolean => {
      spend(run)
      if (count >= most || end >= text.length) return false
      const code = text.codePointAt(end)!
      if (!fits(code)) return false
      end += code > 0xffff ? 2 : 1
      count++
      return true
    }
    if (way === 'lazy') {
      while (count < least) if (!more()) return -1
      for (;;) {
        const found = rest(end)
        if (found >= 0) return found
        if (!more()) return -1
      }
    }
    while (more());
    for (; count >= least; count--) {
      spend(run)
      const found = rest(end)
      if (found >= 0) return found
      if (count === 0) return -1
      end -= text.charCodeAt(end - 1) >= 0xdc00 && text.charCodeAt(end - 1) <= 0xdfff ? 2 : 1
    }
    return -1
  }
}

function groupRepeat({ least, most, way }: Part & { kind: 'repeat' }, step: Step, spend: (run: Run) => void): Step {
  const from = (run: Run, at: number, count: number, rest: (at: number) => number): number => {
    spend(run)
    const again = (): number => {
      if (count >= most) return -1
      // A pass that takes nothing is not repeated.
      return step(run, at, (end) => (end === at && count >= least ? -1 : from(run, end, count + 1, rest)))
    }
    if (count < least) return again()
    const first = way === 'lazy' ? rest(at) : again()
    if (first >= 0) return first
    return way === 'lazy' ? again() : rest(at)
  }
  return (run, at, rest) => from(run, at, 0, rest)
}

/** Whether a character is in a set; answers are kept. */
function setTest(source: string): (code: number) => boolean {
  const regex = new RegExp(`^[${source}]$`, 'u')
  const known = new Map<number, boolean>()
  return (code) => {
    let fits = known.get(code)
    if (fits === undefined) {
      fits = regex.test(String.fromCodePoint(code))
      known.set(code, fits)
    }
    return fits
  }
}

const isWord = setTest(WORD)

function holds(place: string, text: string, at: number): boolean {
  switch (place) {
    case 'A':
      return at === 0
    case 'z':
      return at === text.length
    case 'Z':
      return at === text.length || (at === text.length - 1 && text[at] === '\n')
    case '^':
      return at === 0 || (text[at - 1] === '\n' && at < text.length)
    case '$':
      return at === text.length || text[at] === '\n'
  }
  const before = at > 0 && isWord(text.codePointAt(at - (at > 1 && width(text, at - 2) === 2 ? 2 : 1))!)
  const after = at < text.length && isWord(text.codePointAt(at)!)
  return (before !== after) === (place === 'b')
}
