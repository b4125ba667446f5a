// Which sequences of a batch begin alike, so that their beginning is computed once.

/** Sequences of which the first tokens are computed once. */
export interface PrefixGroup {
  /** Numbers of the sequences. */
  readonly members: readonly number[]
  /** How many tokens; 0 in a group of one, and less than the length of each member, which keeps its last token. */
  readonly common: number
}

/** Shorter beginnings are not shared: they cost little, and all rows of a chat template have one. */
const LEAST_COMMON = 16

/** A run of sequences in order, all with the first `common` tokens of each other. */
interface Run {
  readonly common: number
  readonly first: number
  /** Tokens that the groups inside of it save. */
  saved: number
  /** Number of groups that were found before it. */
  readonly mark: number
}

/**
 * Puts every sequence into one group, so that beginnings computed once save many tokens. `most` is how many tokens a group may
 * have, its beginning counted once. The members of a group are in the order of their tokens. Depends on nothing but the tokens.
 *
 * In the order of their tokens, sequences that begin alike are neighbours; the runs of neighbours with equal beginnings form a
 * tree, in which a run becomes a group if that saves at least as much as the groups inside of it.
 */
export function groupPrefixes(sequences: readonly Uint32Array[], most: number): PrefixGroup[] {
  const order = sequences.map((_, i) => i).sort((a, b) => compare(sequences[a]!, sequences[b]!) || a - b)
  /** Tokens of sequences before number i of the order. */
  const before = [0]
  for (const i of order) before.push(before.at(-1)! + sequences[i]!.length)
  const found: { first: number; end: number; common: number }[] = []
  /** Ends a run: takes it as a group where that is best, and gives what is saved. */
  const close = ({ common, first, saved, mark }: Run, end: number): number => {
    if (common < LEAST_COMMON || common >= most) return saved
    const rest = before[end]! - before[first]! - (end - first) * common
    const whole = (end - first - Math.ceil(rest / (most - common))) * common
    if (whole < saved || whole <= 0) return saved
    found.length = mark
    found.push({ first, end, common })
    return whole
  }
  const open: Run[] = [{ common: 0, first: 0, saved: 0, mark: 0 }]
  for (let i = 1; i <= order.length; i++) {
    const common = i === order.length ? 0 : commonLength(sequences[order[i - 1]!]!, sequences[order[i]!]!)
    let next: Run = { common, first: i - 1, saved: 0, mark: found.length }
    while (open.at(-1)!.common > common) {
      const run = open.pop()!
      const saved = close(run, i)
      if (open.at(-1)!.common >= common) open.at(-1)!.saved += saved
      else next = { common, first: run.first, saved, mark: run.mark }
    }
    if (open.at(-1)!.common < common) open.push(next)
  }
  const groups: PrefixGroup[] = []
  let at = 0
  for (const { first, end, common } of [...found, { first: order.length, end: order.length, common: 0 }]) {
    for (; at < first; at++) groups.push({ members: [order[at]!], common: 0 })
    for (const members of cut(order.slice(first, end), sequences, common, most)) {
      groups.push({ members, common: members.length > 1 ? common : 0 })
    }
    at = end
  }
  return groups
}

/** Cuts the members of a group into pieces of at most `most` tokens, at least one member each. */
function cut(members: readonly number[], sequences: readonly Uint32Array[], common: number, most: number): number[][] {
  const pieces: number[][] = []
  let tokens = 0
  for (const member of members) {
    const rest = sequences[member]!.length - common
    if (pieces.length === 0 || tokens + rest > most) {
      pieces.push([])
      tokens = common
    }
    pieces.at(-1)!.push(member)
    tokens += rest
  }
  return pieces
}

/** Orders sequences by their tokens, a beginning before what goes on from it. */
function compare(a: Uint32Array, b: Uint32Array): number {
  const shorter = Math.min(a.length, b.length)
  for (let t = 0; t < shorter; t++) if (a[t] !== b[t]) return a[t]! - b[t]!
  return a.length - b.length
}

/** How many tokens two sequences can share: equal ones, without the last token of either. */
function commonLength(a: Uint32Array, b: Uint32Array): number {
  const most = Math.min(a.length, b.length) - 1
  let t = 0
  while (t < most && a[t] === b[t]) t++
  return t
}
