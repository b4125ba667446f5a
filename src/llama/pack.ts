// Packs sequences into rows without padding, and plans the blocks of queries that attention computes.
import type { LlamaConfig } from './config.ts'
import type { PrefixGroup } from './prefix.ts'

/** Rows [first, end) at consecutive positions: a common beginning, a sequence, or what of it follows a common beginning. */
interface Segment {
  readonly first: number
  readonly end: number
  /** First row of the common beginning, and its length; 0 and 0 where there is none. */
  readonly prefix: number
  readonly common: number
}

export interface Packed {
  /** N */
  readonly rows: number
  /** [N] */
  readonly tokens: Uint32Array<ArrayBuffer>
  /** Of each row in its sequence [N]. */
  readonly position: Uint32Array<ArrayBuffer>
  readonly segments: readonly Segment[]
  /** The row of token `t` of a sequence. */
  rowOf(sequence: number, t: number): number
  /** Tokens of the longest sequence. */
  readonly longest: number
}

/** Throws, with the number of the sequence, on what the model cannot run; `what`: whose they are, and what one is called. */
export function checkSequences(
  { vocab, maxPosition }: LlamaConfig,
  sequences: readonly Uint32Array[],
  what = 'llama: sequence',
): void {
  if (sequences.length === 0) throw new RangeError('llama: no sequences were given')
  for (const [s, sequence] of sequences.entries()) {
    if (sequence.length === 0) throw new RangeError(`${what} ${s} has no tokens`)
    if (sequence.length > maxPosition)
      throw new RangeError(`${what} ${s} has ${sequence.length} tokens, the model takes ${maxPosition}; shorten it`)
    const at = sequence.findIndex((token) => token >= vocab)
    if (at >= 0)
      throw new RangeError(`${what} ${s} has token ${sequence[at]} at ${at}, the vocabulary ends at ${vocab - 1}`)
  }
}

/** Throws unless every sequence is in one group, and begins as the first of its group and goes on after that. */
export function checkGroups(sequences: readonly Uint32Array[], groups: readonly PrefixGroup[]): void {
  const members = groups.flatMap((group) => group.members)
  const once = new Set(members).size === sequences.length && members.every((s) => s in sequences)
  if (!once || members.length !== sequences.length)
    throw new RangeError(`llama: ${sequences.length} sequences must be in one group each, got ${members.join(', ')}`)
  for (const group of groups) {
    const prefix = sequences[group.members[0]!]!.subarray(0, group.common)
    for (const s of group.members) {
      const sequence = sequences[s]!
      if (sequence.length <= group.common || prefix.some((token, t) => token !== sequence[t]))
        throw new RangeError(`llama: sequence ${s} must begin with the ${group.common} tokens of its group and go on`)
    }
  }
}

/** Packs sequences in the order of the groups, each of which has its common beginning first. */
export function pack(sequences: readonly Uint32Array[], groups: readonly PrefixGroup[]): Packed {
  const places = sequences.map(() => ({ prefix: 0, common: 0, own: 0 }))
  const segments: Segment[] = []
  const parts: { readonly tokens: Uint32Array; readonly position: number }[] = []
  let rows = 0
  const add = (tokens: Uint32Array, prefix: number, common: number): number => {
    segments.push({ first: rows, end: rows + tokens.length, prefix, common })
    parts.push({ tokens, position: common })
    rows += tokens.length
    return rows - tokens.length
  }
  for (const { members, common } of groups) {
    const prefix = common > 0 ? add(sequences[members[0]!]!.subarray(0, common), 0, 0) : 0
    for (const member of members) {
      places[member] = { prefix, common, own: add(sequences[member]!.subarray(common), prefix, common) }
    }
  }
  const tokens = new Uint32Array(rows)
  const position = new Uint32Array(rows)
  for (const [i, part] of parts.entries()) {
    const { first } = segments[i]!
    tokens.set(part.tokens, first)
    for (let t = 0; t < part.tokens.length; t++) position[first + t] = part.position + t
  }
  return {
    rows,
    tokens,
    position,
    segments,
    rowOf(sequence, t) {
      const { prefix, common, own } = places[sequence]!
      return t < common ? prefix + t : own + t - common
    },
    longest: sequences.reduce((most, sequence) => Math.max(most, sequence.length), 0),
  }
}

/** Most queries of a block: see shaders/attention.wgsl. */
const BLOCK_QUERIES = 64
/** Threads share blocks times heads; fewer than this leave some idle. */
const LEAST_UNITS = 64

/**
 * The plan [B, 6] of attention for the rows `chosen`, in ascending order: query number i is row chosen[i]. A result does not
 * depend on how queries are divided into blocks.
 */
export function planBlocks({ segments }: Packed, chosen: Uint32Array, heads: number): Uint32Array<ArrayBuffer> {
  const even = Math.floor((chosen.length * heads) / LEAST_UNITS / 16) * 16
  const most = Math.min(BLOCK_QUERIES, Math.max(16, even))
  const plan: number[] = []
  let s = 0
  let count = 0
  for (const [i, row] of chosen.entries()) {
    const before = s
    while (row >= segments[s]!.end) s++
    if (i > 0 && s === before && row === chosen[i - 1]! + 1 && count < most) {
      count++
      plan[plan.length - 5] = count
      continue
    }
    const { first, prefix, common } = segments[s]!
    count = 1
    plan.push(i, count, prefix, common, first, row - first)
  }
  return Uint32Array.from(plan)
}

/**
 * The plan [B, 3] of attention's way back for keys and values: blocks of at most 64 rows of one segment, and the row from which on
 * no query sees them. A common beginning lies right before the sequences that share it and is seen by all of them.
 */
export function planKeys({ segments }: Packed): Uint32Array<ArrayBuffer> {
  const plan: number[] = []
  for (const [s, { first, end }] of segments.entries()) {
    let stop = end
    for (let other = s + 1; other < segments.length; other++) {
      const { common, prefix, end: last } = segments[other]!
      if (common === 0 || prefix !== first) break
      stop = last
    }
    for (let row = first; row < end; row += BLOCK_QUERIES) plan.push(row, Math.min(BLOCK_QUERIES, end - row), stop)
  }
  return Uint32Array.from(plan)
}
