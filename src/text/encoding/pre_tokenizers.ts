// How tokenizers cuts a text into words before the model sees it. Source: the pre-tokenizers of Hugging Face tokenizers.
import { toByteLevel } from './byte_level.ts'
import { readPattern } from './normalizers.ts'
import { PUNCTUATION } from './punctuation.ts'
import { GPT2 } from './regex_known.ts'
import { compileRegex, nativeRegex } from './regex_run.ts'
import type { Settings } from './settings.ts'
import { BEHAVIORS, charactersOf, splitText } from './splits.ts'

/** Cuts a text; `atStart` says that it stands at the beginning of all. */
export type PreTokenizer = (text: string, atStart: boolean) => string[]

const NUMERIC = /\p{N}/gu
const BLANK = /\p{White_Space}/gu
/** \w of Rust's regular expressions. */
export const RUST_WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}'

export function makePreTokenizer(settings: Settings | null): PreTokenizer {
  if (settings === null) return (text) => [text]
  switch (settings.raw('type')) {
    case 'Sequence': {
      const all = settings.list('pretokenizers').map(makePreTokenizer)
      return (text, atStart) => {
        return all.reduce(
          (parts, cut) => parts.flatMap((part, i) => (part === '' ? [] : cut(part, atStart && i === 0))),
          [text],
        )
      }
    }
    case 'ByteLevel':
      return makeByteLevel(settings.flag('add_prefix_space', true), settings.flag('use_regex', true))
    case 'Split': {
      const regex = readPattern(settings, 'pattern')
      const behavior = settings.choice('behavior', BEHAVIORS)
      const invert = settings.flag('invert', false)
      return (text) => splitText(text, regex.matches(text), behavior, invert)
    }
    case 'Digits': {
      const behavior = settings.flag('individual_digits', false) ? 'Isolated' : 'Contiguous'
      return (text) => splitText(text, charactersOf(text, NUMERIC), behavior)
    }
    case 'Punctuation': {
      const behavior = settings.choice('behavior', BEHAVIORS, 'Isolated')
      return (text) => splitText(text, charactersOf(text, PUNCTUATION), behavior)
    }
    case 'Whitespace': {
      const regex = nativeRegex(`[${RUST_WORD}]+|[^${RUST_WORD}\\p{White_Space}]+`)
      return (text) => splitText(text, regex.matches(text), 'Removed', true)
    }
    case 'WhitespaceSplit':
      return (text) => splitText(text, charactersOf(text, BLANK), 'Removed')
    case 'BertPreTokenizer':
      return (text) => {
        const words = splitText(text, charactersOf(text, BLANK), 'Removed')
        return words.flatMap((word) => splitText(word, charactersOf(word, PUNCTUATION), 'Isolated'))
      }
    case 'CharDelimiterSplit': {
      const delimiter = settings.character('delimiter')
      return (text) => text.split(delimiter).filter((part) => part !== '')
    }
    case 'FixedLength': {
      const length = settings.count('length', 5)
      if (length === 0) settings.fail('length', 'a whole number of at least 1')
      return (text) => {
        const characters = Array.from(text)
        const parts: string[] = []
        for (let i = 0; i < characters.length; i += length) parts.push(characters.slice(i, i + length).join(''))
        return parts
      }
    }
    case 'Metaspace':
      return makeMetaspace(settings)
  }
  return settings.refuse('pre-tokenizer')
}

function makeByteLevel(prefixed: boolean, cuts: boolean): PreTokenizer {
  const regex = compileRegex(GPT2, 'ByteLevel')
  return (text) => {
    const whole = prefixed && !text.startsWith(' ') ? ` ${text}` : text
    if (!cuts) return [toByteLevel(whole)]
    return splitText(whole, regex.matches(whole), 'Isolated').map(toByteLevel)
  }
}

/** Whether the sign for a blank is put before a text. */
export function prependScheme(settings: Settings): 'always' | 'first' | 'never' {
  if (settings.raw('prepend_scheme') !== undefined)
    return settings.choice('prepend_scheme', ['always', 'first', 'never'])
  // As older files say it.
  return settings.flag('add_prefix_space', true) ? 'always' : 'never'
}

function makeMetaspace(settings: Settings): PreTokenizer {
  const [sign, scheme] = [settings.character('replacement', '▁'), prependScheme(settings)]
  const cuts = settings.flag('split', true)
  const pattern = new RegExp(sign.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'), 'gu')
  return (text, atStart) => {
    let marked = text.replaceAll(' ', sign)
    if (!marked.startsWith(sign) && (scheme === 'always' || (scheme === 'first' && atStart))) marked = sign + marked
    return cuts ? splitText(marked, charactersOf(marked, pattern), 'MergedWithNext') : [marked]
  }
}
