// What tokenizers does to a text before it cuts it. Source: the normalizers of Hugging Face tokenizers.
import { toByteLevel } from './byte_level.ts'
import { compileRegex, literalRegex, type Regex } from './regex_run.ts'
import type { Settings } from './settings.ts'

export type Normalizer = (text: string) => string

/** A pattern as tokenizer.json writes it: { "String": ... } or { "Regex": ... }. */
export function readPattern(settings: Settings, key: string): Regex {
  const pattern = settings.settings(key)
  if (pattern.raw('Regex') !== undefined) return compileRegex(pattern.text('Regex'), pattern.at('Regex'))
  return literalRegex(pattern.text('String'))
}

export function replaceAll(text: string, regex: Regex, by: string): string {
  let [result, last] = ['', 0]
  for (const [begin, end] of regex.matches(text)) {
    result += text.slice(last, begin) + by
    last = end
  }
  return result + text.slice(last)
}

export function makeNormalizer(settings: Settings | null): Normalizer {
  if (settings === null) return (text) => text
  switch (settings.raw('type')) {
    case 'Sequence': {
      const all = settings.list('normalizers').map(makeNormalizer)
      return (text) => all.reduce((done, normalize) => normalize(done), text)
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD': {
      const form = settings.text('type')
      return (text) => text.normalize(form)
    }
    case 'Lowercase':
      // Character by character: no sigma knows that it is the last.
      return (text) =>
        /^\p{ASCII}*$/u.test(text) ? text.toLowerCase() : Array.from(text, (one) => one.toLowerCase()).join('')
    case 'Strip':
      return makeStrip(settings.flag('strip_left'), settings.flag('strip_right'))
    case 'StripAccents':
      return (text) => text.replace(/\p{M}/gu, '')
    case 'Replace': {
      const [regex, by] = [readPattern(settings, 'pattern'), settings.text('content')]
      return (text) => replaceAll(text, regex, by)
    }
    case 'Prepend': {
      const prefix = settings.text('prepend')
      return (text) => (text === '' ? '' : prefix + text)
    }
    case 'ByteLevel':
      return toByteLevel
  }
  return settings.refuse('normalizer')
}

const BLANK = /\p{White_Space}/u

function makeStrip(left: boolean, right: boolean): Normalizer {
  return (text) => {
    let [begin, end] = [0, text.length]
    while (left && begin < end && BLANK.test(text[begin])) begin++
    while (right && end > begin && BLANK.test(text[end - 1])) end--
    return text.slice(begin, end)
  }
}
