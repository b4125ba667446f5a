// Unigram: of all ways to cut a word into tokens the one whose scores sum to most. Source: the Unigram model of Hugging Face tokenizers,
// with its order of sums and of ties.
import { show } from '../../files/json.ts'
import type { Model } from './models.ts'
import type { Settings } from './settings.ts'

/** By how much an unknown character scores below the worst token. */
const UNKNOWN_PENALTY = 10
/** Every place of a word is tried with tokens of all lengths. */
const TOKEN_LIMIT = 512
const encoder = new TextEncoder()

/** The best way up to a place: its score, and the last token of it. */
interface Best {
  readonly score: number
  readonly from: number
  readonly id: number | null
}

export function makeUnigram(settings: Settings): Model {
  const { vocabulary, scores } = readScores(settings)
  const unknown = settings.raw('unk_id') == null ? null : settings.count('unk_id')
  if (unknown !== null && unknown >= scores.length)
    settings.fail('unk_id', `below the number of tokens, ${scores.length}`)
  const bytes = settings.flag('byte_fallback', false)
  const unknownScore = scores.reduce((least, score) => Math.min(least, score), Infinity) - UNKNOWN_PENALTY
  /** Units of the longest token by what it begins with: a trie would take a hundred times the memory of the file. */
  const longest = new Map<number, number>()
  for (const token of vocabulary.keys()) {
    const first = token.charCodeAt(0)
    longest.set(first, Math.max(longest.get(first) ?? 0, token.length))
  }

  const cut = (word: string): { readonly part: string; readonly id: number | null }[] => {
    const best: (Best | undefined)[] = new Array(word.length + 1)
    const offer = (end: number, score: number, from: number, id: number | null): void => {
      const known = best[end]
      if (known === undefined || score > known.score) best[end] = { score, from, id }
    }
    for (let at = 0; at < word.length; ) {
      const till = best[at]?.score ?? 0
      const width = word.codePointAt(at)! > 0xffff ? 2 : 1
      let single = false
      const most = Math.min(word.length, at + (longest.get(word.charCodeAt(at)) ?? 0))
      for (let end = at + 1; end <= most; end++) {
        const id = vocabulary.get(word.slice(at, end))
        if (id === undefined) continue
        offer(end, scores[id] + till, at, id)
        single ||= end === at + width
      }
      if (!single) {
        if (unknown === null)
          settings.fail('unk_id', `the id of a token, for the character ${show(word.slice(at, at + width))}`)
        offer(at + width, unknownScore + till, at, unknown)
      }
      at += width
    }
    const parts: { part: string; id: number | null }[] = []
    for (let end = word.length; end > 0; ) {
      const { from, id } = best[end]!
      const last = parts[parts.length - 1]
      // Unknown characters in a row are one.
      if (id === unknown && last?.id === unknown) last.part = word.slice(from, end) + last.part
      else parts.push({ part: word.slice(from, end), id })
      end = from
    }
    return parts.reverse()
  }

  return {
    vocabulary,
    encode(word) {
      return cut(word).flatMap(({ part }) => {
        const id = vocabulary.get(part)
        if (id !== undefined) return [id]
        if (bytes) {
          const ids = Array.from(encoder.encode(part), (byte) => {
            return vocabulary.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
          })
          if (!ids.includes(undefined)) return ids as number[]
        }
        return [unknown!]
      })
    },
  }
}

/** A list of tokens with their scores; ids are places in it. */
function readScores(settings: Settings): { vocabulary: Map<string, number>; scores: number[] } {
  const list = settings.raw('vocab')
  if (!Array.isArray(list) || list.length === 0) return settings.fail('vocab', 'a list of tokens and scores')
  const vocabulary = new Map<string, number>()
  const scores = list.map((entry: unknown, i) => {
    const [token, score] = Array.isArray(entry) ? entry : []
    if (typeof token !== 'string' || typeof score !== 'number') {
      throw new Error(`${settings.at('vocab')}[${i}] must be a token and its score, got ${show(entry)}`)
    }
    if (token.length > TOKEN_LIMIT) {
      throw new Error(`${settings.at('vocab')}[${i}] has ${token.length} characters, at most ${TOKEN_LIMIT} are read`)
    }
    vocabulary.set(token, i)
    return score
  })
  return { vocabulary, scores }
}
