// Tokens that are found in a text before anything else is done to it. Source: AddedVocabulary of Hugging Face tokenizers.
import type { Normalizer } from './normalizers.ts'
import { RUST_WORD } from './pre_tokenizers.ts'

export interface AddedToken {
  readonly id: number
  readonly content: string
  /** Only where no letter, mark, digit or connector touches it. */
  readonly singleWord: boolean
  /** Takes the blanks before it, or behind it, with it. */
  readonly lstrip: boolean
  readonly rstrip: boolean
  /** Is looked for in the normalized text, as its own normalized text. */
  readonly normalized: boolean
  readonly special: boolean
}

/** A part of a text: an added token, or what no added token is in. */
export type Section = { readonly id: number } | { readonly text: string; readonly atStart: boolean }

interface Node {
  readonly next: Map<number, Node>
  token: AddedToken | null
}

const WORD = new RegExp(`[${RUST_WORD}]`, 'u')
const BLANK = /\p{White_Space}/u

/** Finds tokens in texts, from the left, the longest first. */
class Finder {
  readonly #root: Node = { next: new Map(), token: null }

  add(pattern: string, token: AddedToken): void {
    if (pattern === '') return
    let node = this.#root
    for (let i = 0; i < pattern.length; i++) {
      const unit = pattern.charCodeAt(i)
      let next = node.next.get(unit)
      if (next === undefined) {
        next = { next: new Map(), token: null }
        node.next.set(unit, next)
      }
      node = next
    }
    node.token ??= token
  }

  /** The longest token that begins at a place; its end. */
  #longest(text: string, at: number): { readonly token: AddedToken; readonly end: number } | null {
    let found: { token: AddedToken; end: number } | null = null
    let node: Node | undefined = this.#root
    for (let i = at; i < text.length; i++) {
      node = node.next.get(text.charCodeAt(i))
      if (node === undefined) break
      if (node.token !== null) found = { token: node.token, end: i + 1 }
    }
    return found
  }

  /** Cuts a text into tokens and the rest. */
  split(text: string, atStart: boolean): Section[] {
    const sections: Section[] = []
    let done = 0
    const rest = (end: number): void => {
      if (done < end) sections.push({ text: text.slice(done, end), atStart: atStart && done === 0 })
    }
    for (let at = 0; at < text.length; ) {
      const found = this.#root.next.has(text.charCodeAt(at)) ? this.#longest(text, at) : null
      if (found === null) {
        at++
        continue
      }
      const { token } = found
      let [begin, end] = [at, found.end]
      at = end
      if (token.singleWord && touches(text, begin, end)) continue
      if (token.lstrip) {
        while (begin > 0 && BLANK.test(text[begin - 1])) begin--
        begin = Math.max(begin, done)
      }
      if (token.rstrip) while (end < text.length && BLANK.test(text[end])) end++
      rest(begin)
      sections.push({ id: token.id })
      done = end
    }
    rest(text.length)
    return sections
  }
}

/** Whether a part of a word stands right before or right behind. */
function touches(text: string, begin: number, end: number): boolean {
  const wide = begin > 1 && text.charCodeAt(begin - 1) >= 0xdc00 && text.charCodeAt(begin - 1) <= 0xdfff
  const before = begin > 0 && WORD.test(text.slice(begin - (wide ? 2 : 1), begin))
  return before || (end < text.length && WORD.test(String.fromCodePoint(text.codePointAt(end)!)))
}

export interface AddedVocabulary {
  /** Cuts a text into added tokens and normalized texts without any. */
  split(text: string): Section[]
}

export function addedVocabulary(tokens: readonly AddedToken[], normalize: Normalizer): AddedVocabulary {
  const [raw, normalized] = [new Finder(), new Finder()]
  // Special tokens come first where two are written alike.
  for (const token of [...tokens.filter(({ special }) => special), ...tokens.filter(({ special }) => !special)]) {
    if (token.normalized) normalized.add(normalize(token.content), token)
    else raw.add(token.content, token)
  }
  return {
    split(text) {
      return raw.split(text, true).flatMap((section) => {
        if ('id' in section) return [section]
        return normalized.split(normalize(section.text), section.atStart)
      })
    },
  }
}
