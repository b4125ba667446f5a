// Which rows are computed together: as many as fit a number of tokens, rows that begin alike beside each other.
import { groupPrefixes, type PrefixGroup } from '../llama/prefix.ts'

/** Rows to compute at once. */
export interface Batch {
  /** Numbers of the rows. */
  readonly indices: readonly number[]
  /** Which of them share a beginning; members are places in `indices`. */
  readonly groups: readonly PrefixGroup[]
}

/** How many times the tokens of a batch, or those of the longest row, a group may have: memory at most doubles. */
const GROUP_FACTOR = 2

/**
 * Puts every row of tokens into one batch: those with the longest row first, as many as fit `budget` tokens, at least one row or
 * one group. Rows are packed, not padded, so lengths are free to differ. With `share`, beginnings that rows have in common count
 * once, and their rows stay together. Depends on nothing but the tokens.
 */
export function planBatches(rows: readonly Uint32Array[], budget: number, share: boolean): Batch[] {
  const longest = rows.reduce((most, row) => Math.max(most, row.length), 0)
  const groups = share
    ? groupPrefixes(rows, GROUP_FACTOR * Math.max(budget, longest))
    : rows.map((_, i) => ({ members: [i], common: 0 }))
  const items = groups.map((group) => {
    const lengths = group.members.map((i) => rows[i].length)
    const tokens = lengths.reduce((sum, length) => sum + length - group.common, group.common)
    return { group, tokens, longest: Math.max(...lengths), first: Math.min(...group.members) }
  })
  items.sort((a, b) => b.longest - a.longest || a.first - b.first)
  const batches: { indices: number[]; groups: PrefixGroup[] }[] = []
  let total = 0
  for (const { group, tokens } of items) {
    if (batches.length === 0 || total + tokens > budget) {
      batches.push({ indices: [], groups: [] })
      total = 0
    }
    const { indices, groups: own } = batches[batches.length - 1]
    own.push({ members: group.members.map((_, i) => indices.length + i), common: group.common })
    indices.push(...group.members)
    total += tokens
  }
  return batches
}
