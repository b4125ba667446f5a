// Packing of sequences into bins: best fit, longest first. No sequence is divided.
//
// Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling"; of bins with the same room the one that has had it longest
// is taken, as the `bfd` packing of TRL does.

/**
 * Puts sequences of these lengths into bins of `capacity` tokens; gives the indices of each bin, those of the longest sequences first.
 * Sequences of one length keep their order. Throws a RangeError on lengths that are not whole numbers from 1 to `capacity`.
 */
export function packBestFit(lengths: readonly number[] | Uint32Array, capacity: number): number[][] {
  if (!Number.isSafeInteger(capacity) || capacity < 1)
    throw new RangeError(`packing: capacity must be at least 1, got ${capacity}`)
  for (let i = 0; i < lengths.length; i++) {
    if (!Number.isSafeInteger(lengths[i]) || lengths[i] < 1 || lengths[i] > capacity) {
      throw new RangeError(`packing: sequence ${i} must have 1 to ${capacity} tokens, got ${lengths[i]}`)
    }
  }
  const order = Array.from(lengths, (_, i) => i).sort((a, b) => lengths[b] - lengths[a] || a - b)
  const bins: number[][] = []
  // Bins by the room that they have left, in the order in which they came to it.
  const queues = Array.from({ length: capacity + 1 }, () => ({ bins: [] as number[], taken: 0 }))
  const rooms = new Rooms(capacity)
  for (const i of order) {
    const room = rooms.atLeast(lengths[i])
    let bin: number
    if (room === null) bin = bins.push([]) - 1
    else {
      const queue = queues[room]
      bin = queue.bins[queue.taken++]
      if (queue.taken === queue.bins.length) {
        queues[room] = { bins: [], taken: 0 }
        rooms.set(room, false)
      }
    }
    bins[bin].push(i)
    const left = (room ?? capacity) - lengths[i]
    if (left === 0) continue
    queues[left].bins.push(bin)
    rooms.set(left, true)
  }
  return bins
}

/** A set of whole numbers from 1 to a limit that finds its smallest member above a number in steps of their logarithm. */
class Rooms {
  readonly #size: number
  /** Whether the part of the numbers under a node of the binary tree has a member; node 1 is the root. */
  readonly #some: Uint8Array

  constructor(limit: number) {
    this.#size = 2 ** Math.ceil(Math.log2(limit + 1))
    this.#some = new Uint8Array(2 * this.#size)
  }

  set(room: number, present: boolean): void {
    let node = this.#size + room
    this.#some[node] = Number(present)
    for (node >>= 1; node >= 1; node >>= 1) this.#some[node] = this.#some[2 * node] | this.#some[2 * node + 1]
  }

  /** The smallest member that is at least `least`; null where there is none. */
  atLeast(least: number): number | null {
    let node = this.#size + least
    while (!this.#some[node]) {
      // Up while this is a right child, then to the neighbour on the right.
      while (node & 1) node >>= 1
      if (node === 0) return null
      node++
    }
    while (node < this.#size) node = this.#some[2 * node] ? 2 * node : 2 * node + 1
    return node - this.#size
  }
}
