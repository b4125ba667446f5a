// Byte-pair encoding: a word begins as characters, and the pair of neighbours whose merge was learned first is joined until none is left.
// Source: the BPE model of Hugging Face tokenizers, whose order of merges this keeps to the letter.
import { show } from '../../files/json.ts'
import { MergeTable } from './merge_table.ts'
import type { Model } from './models.ts'
import type { Settings } from './settings.ts'

const CACHE_LIMIT = 20000
const CACHED_LENGTH = 256
const encoder = new TextEncoder()

export function makeBpe(settings: Settings, vocabulary: ReadonlyMap<string, number>): Model {
  if ((settings.raw('dropout') ?? 0) !== 0) settings.fail('dropout', 'null or 0: encoding must not be random')
  const prefix = settings.textOrNull('continuing_subword_prefix') ?? ''
  const suffix = settings.textOrNull('end_of_word_suffix') ?? ''
  const unknownToken = settings.textOrNull('unk_token')
  const [fuses, bytes] = [settings.flag('fuse_unk', false), settings.flag('byte_fallback', false)]
  const ignoresMerges = settings.flag('ignore_merges', false)
  const merges = readMerges(settings, vocabulary, prefix)
  const unknown = unknownToken === null ? null : vocabulary.get(unknownToken)
  const cache = new Map<string, readonly number[]>()

  /** The ids that a word begins as. */
  const begin = (word: string): number[] => {
    const symbols: number[] = []
    let pending: number | null = null
    const characters = Array.from(word)
    for (const [i, character] of characters.entries()) {
      const token = (i > 0 ? prefix : '') + character + (i === characters.length - 1 ? suffix : '')
      const id = vocabulary.get(token)
      if (id !== undefined) {
        if (pending !== null) symbols.push(pending)
        pending = null
        symbols.push(id)
        continue
      }
      if (bytes) {
        const parts = Array.from(encoder.encode(token), (byte) => {
          return vocabulary.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
        })
        if (!parts.includes(undefined)) {
          symbols.push(...(parts as number[]))
          continue
        }
      }
      if (unknown === null) continue
      if (unknown === undefined)
        settings.fail('unk_token', `a token of the vocabulary, for the character ${show(character)}`)
      if (pending !== null && !fuses) symbols.push(pending)
      pending = unknown
    }
    if (pending !== null) symbols.push(pending)
    return symbols
  }

  return {
    vocabulary,
    encode(word) {
      if (ignoresMerges) {
        const id = vocabulary.get(word)
        if (id !== undefined) return [id]
      }
      const known = cache.get(word)
      if (known !== undefined) return known
      const found = mergeAll(begin(word), merges)
      if (word.length <= CACHED_LENGTH) {
        if (cache.size >= CACHE_LIMIT) cache.clear()
        cache.set(word, found)
      }
      return found
    },
  }
}

function readMerges(settings: Settings, vocabulary: ReadonlyMap<string, number>, prefix: string): MergeTable {
  const list = settings.raw('merges')
  if (!Array.isArray(list)) return settings.fail('merges', 'a list')
  const merges = new MergeTable(list.length)
  const fail = (rank: number, what: string): never => {
    throw new Error(`${settings.at('merges')}[${rank}] ${what}: ${show(list[rank])}`)
  }
  for (let rank = 0; rank < list.length; rank++) {
    const line: unknown = list[rank]
    const [left, right] = typeof line === 'string' ? twoOf(line) : Array.isArray(line) && line.length === 2 ? line : []
    if (typeof left !== 'string' || typeof right !== 'string') return fail(rank, 'must be two tokens')
    const [first, second] = [vocabulary.get(left), vocabulary.get(right)]
    const into = vocabulary.get(left + (prefix === '' ? right : right.slice(prefix.length)))
    if (first === undefined || second === undefined || into === undefined) {
      return fail(rank, 'has, or makes, a token that is not in the vocabulary')
    }
    merges.set(first, second, rank, into)
  }
  return merges
}

/** Two tokens with a blank between them; nothing where there are more or fewer. */
function twoOf(line: string): string[] {
  const blank = line.indexOf(' ')
  return blank < 0 || line.indexOf(' ', blank + 1) >= 0 ? [] : [line.slice(0, blank), line.slice(blank + 1)]
}

/** A merge that may be done: at which place, by which rank. */
interface Candidate {
  readonly rank: number
  readonly at: number
  readonly into: number
}

const isBefore = (a: Candidate, b: Candidate): boolean => a.rank < b.rank || (a.rank === b.rank && a.at < b.at)

/** The first of candidates by rank and place. */
class Queue {
  readonly #heap: Candidate[] = []

  push(one: Candidate): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(one)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(one, heap[parent])) break
      heap[at] = heap[parent]
      at = parent
    }
    heap[at] = one
  }

  pop(): Candidate | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return top
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++
      if (!isBefore(heap[child], last)) break
      heap[at] = heap[child]
      at = child
    }
    heap[at] = last
    return top
  }
}

function mergeAll(symbols: number[], merges: MergeTable): number[] {
  const count = symbols.length
  if (count < 2) return symbols
  const next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : -1))
  const before = Int32Array.from({ length: count }, (_, i) => i - 1)
  const gone = new Uint8Array(count)
  const queue = new Queue()
  const offer = (at: number): void => {
    const merge = merges.find(symbols[at], symbols[next[at]])
    if (merge >= 0) queue.push({ at, rank: merges.rank(merge), into: merges.into(merge) })
  }
  for (let i = 0; i + 1 < count; i++) offer(i)
  for (let top = queue.pop(); top !== undefined; top = queue.pop()) {
    const { at, into } = top
    const right = next[at]
    if (gone[at] || right < 0) continue
    // What was offered may have been merged otherwise since.
    const merge = merges.find(symbols[at], symbols[right])
    if (merge < 0 || merges.into(merge) !== into) continue
    symbols[at] = into
    gone[right] = 1
    next[at] = next[right]
    if (next[at] >= 0) {
      before[next[at]] = at
      offer(at)
    }
    if (before[at] >= 0) offer(before[at])
  }
  return symbols.filter((_, i) => !gone[i])
}
