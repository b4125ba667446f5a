// The matrix of the Newton model, X_KC' diag(curvature) X_KC in f32, kept up to date as rows and columns come and go.

import { mix32 } from '../data/scramble.ts'
import type { Device } from '../device/device.ts'
import type { F32, U32 } from './arena.ts'
import type { Team } from './team.ts'
import type { WorkingSet } from './working_set.ts'

/** Rows that are packed at a time: both panels of a thousand columns fit the second-level caches. */
const DEPTH = 256
/** The same on a GPU, where a task must be large to be worth its transfers. */
const GPU_DEPTH = 2048
const GPU_FLOPS = 1e9
const NONE = 0xffffffff
/** Rows of the model: this many a column, and no fewer than SAMPLE_ROWS. */
const SAMPLE_PER_COLUMN = 10
const SAMPLE_ROWS = 2000
/** The sampled share changes only when it is off by more than this, so that consecutive samples overlap. */
const SLACK = 1.5
/** From this share of changed rows on, building anew is cheaper; so it is after a number of updates, for the rounding. */
const REBUILD_SHARE = 0.7
const MAX_UPDATES = 40
/** A model this much wider than what is asked for is built anew. */
const MAX_EXCESS = 1.5

/** Sampled curvature: `factor` makes up for the rows left out, `total` is the curvature of all. */
export interface Sample {
  readonly factor: number
  readonly total: number
}

export class NewtonMatrix {
  readonly #team: Team
  readonly #set: WorkingSet
  readonly #rows: number
  readonly #capacity: number
  /** Slot of each position, NONE in padding. */
  readonly slots: U32
  /** Position of each slot, or -1. */
  readonly positionOf: Int32Array
  readonly #left: number
  readonly #right: number
  readonly #rowIndex: U32
  readonly #rowWeight: F32
  readonly #inside: Float64Array
  readonly #key: Uint32Array
  readonly #device: Device | null
  readonly #ones: F32
  #share = 1
  #updates = 0
  /** Positions, a multiple of 8. */
  size = 0
  readonly at: number
  ld = 0

  /** A `device` is given products that are worth the way. */
  constructor(team: Team, set: WorkingSet, rows: number, capacity: number, device: Device | null) {
    const { arena } = team
    this.#team = team
    this.#set = set
    this.#rows = rows
    this.#capacity = capacity
    this.slots = arena.u32(capacity)
    this.positionOf = new Int32Array(set.capacity).fill(-1)
    this.at = arena.take(capacity * capacity * 4)
    this.#device = device
    const depth = device ? GPU_DEPTH : DEPTH
    this.#left = arena.take(capacity * depth * 4)
    this.#right = arena.take(capacity * depth * 4)
    this.#ones = arena.f32(depth)
    this.#ones.values.fill(1)
    this.#rowIndex = arena.u32(rows)
    this.#rowWeight = arena.f32(rows)
    this.#inside = new Float64Array(rows)
    this.#key = keys(rows)
  }

  /** Makes the matrix hold the slots `near` (and maybe more) and a sample of the rows with curvature [R]. */
  async update(near: readonly number[], curvature: Float64Array): Promise<Sample> {
    const sample = this.#choose(near.length, curvature)
    const limit = this.#share * 2 ** 32
    const inside = this.#inside
    let kept = 0
    let changed = 0
    for (let k = 0; k < this.#rows; k++) {
      const weight = this.#key[k] < limit ? curvature[k] : 0
      if (weight !== 0) kept++
      if (weight !== inside[k]) changed++
    }
    const fresh = near.filter((slot) => this.positionOf[slot] < 0)
    const grown = this.size + ((fresh.length + 7) & ~7)
    const wide = (near.length + 7) & ~7
    const rebuild =
      this.size === 0 ||
      changed > REBUILD_SHARE * kept ||
      grown > Math.max(wide + 64, MAX_EXCESS * wide) ||
      grown > this.ld ||
      this.#updates >= MAX_UPDATES
    if (rebuild) this.#restart(near)
    const rowIndex = this.#rowIndex.values
    const rowWeight = this.#rowWeight.values
    if (rebuild || changed > 0) {
      let count = 0
      for (let k = 0; k < this.#rows; k++) {
        const weight = this.#key[k] < limit ? curvature[k] : 0
        if (weight === inside[k]) continue
        rowIndex[count] = k
        rowWeight[count++] = weight - inside[k]
        inside[k] = weight
      }
      await this.#add(count, 0)
    }
    if (!rebuild && fresh.length > 0) {
      const first = this.size
      this.#append(fresh)
      let count = 0
      for (let k = 0; k < this.#rows; k++) {
        if (inside[k] === 0) continue
        rowIndex[count] = k
        rowWeight[count++] = inside[k]
      }
      await this.#add(count, first)
    }
    if (!rebuild) this.#updates++
    this.#team.run('mirror', [this.at, this.ld], this.size / 8, 8)
    return sample
  }

  // Chooses the share of rows; fixed priorities make consecutive samples overlap.
  #choose(columns: number, curvature: Float64Array): Sample {
    let all = 0
    let total = 0
    for (let k = 0; k < this.#rows; k++) {
      if (curvature[k] === 0) continue
      all++
      total += curvature[k]
    }
    const wanted = Math.max(SAMPLE_ROWS, SAMPLE_PER_COLUMN * columns)
    if (all <= wanted) this.#share = 1
    else if (this.#share * all > SLACK * wanted || this.#share * all < wanted)
      this.#share = Math.min(1, (1.2 * wanted) / all)
    if (this.#share === 1) return { factor: 1, total }
    const limit = this.#share * 2 ** 32
    let taken = 0
    for (let k = 0; k < this.#rows; k++) if (this.#key[k] < limit) taken += curvature[k]
    return { factor: taken > 0 ? total / taken : 1, total }
  }

  #restart(near: readonly number[]): void {
    for (let i = 0; i < this.size; i++) {
      const slot = this.slots.values[i]
      if (slot !== NONE) this.positionOf[slot] = -1
    }
    this.#inside.fill(0)
    this.#updates = 0
    this.size = 0
    // An odd number of 32-byte groups keeps rows from fighting for the same cache lines.
    const groups = Math.ceil(Math.max(near.length + 64, 1.25 * near.length) / 8) | 1
    this.ld = Math.min(this.#capacity, groups * 8)
    this.#append(near)
  }

  #append(slots: readonly number[]): void {
    const size = this.size + ((slots.length + 7) & ~7)
    const values = this.slots.values
    for (let i = this.size; i < size; i++) {
      const slot = slots[i - this.size]
      values[i] = slot ?? NONE
      if (slot !== undefined) this.positionOf[slot] = i
    }
    new Uint8Array(
      this.#team.arena.memory.buffer,
      this.at + this.size * this.ld * 4,
      (size - this.size) * this.ld * 4,
    ).fill(0)
    this.size = size
  }

  // Adds `count` weighted rows to all elements in the matrix's rows from `first` on.
  async #add(count: number, first: number): Promise<void> {
    if (this.#device && 2 * count * this.size * (this.size - first) > GPU_FLOPS) {
      return this.#addOnDevice(this.#device, count, first)
    }
    const strips = this.size / 8
    for (let from = 0; from < count; from += DEPTH) {
      const depth = Math.min(DEPTH, count - from)
      const [rows, weights] = [this.#rowIndex.at + 4 * from, this.#rowWeight.at + 4 * from]
      this.#set.pack(this.slots, strips, rows, weights, depth, this.#left, this.#right)
      this.#team.run('syrk', [this.#left, this.#right, depth, this.at, this.ld, this.size, first], strips, 1)
    }
  }

  // The same as products of the two packed panels, [size, depth] each, on the GPU.
  async #addOnDevice(device: Device, count: number, first: number): Promise<void> {
    const { size, ld } = this
    const { memory } = this.#team.arena
    for (let from = 0; from < count; from += GPU_DEPTH) {
      const depth = Math.min(GPU_DEPTH, count - from)
      const rows = this.#rowIndex.at + 4 * from
      const panel = (weights: number, label: string) => {
        this.#set.pack(this.slots, size / 8, rows, weights, depth, this.#left, this.#right)
        return device.tensor([size, depth], {
          label,
          data: new Float32Array(memory.buffer, this.#left, size * depth).slice(),
        })
      }
      const tensors = [panel(this.#rowWeight.at + 4 * from, 'weighted rows'), panel(this.#ones.at, 'rows')]
      const y = device.tensor([size, size], { label: 'newton matrix' })
      try {
        device.run('linear', { x: tensors[0], weight: tensors[1], y })
        const product = await y.readF32()
        const g = new Float32Array(memory.buffer, this.at, size * ld)
        for (let i = first; i < size; i++) {
          for (let j = 0; j <= i; j++) g[i * ld + j] += product[i * size + j]
        }
      } finally {
        for (const tensor of [...tensors, y]) tensor.destroy()
      }
    }
  }
}

// A fixed pseudo-random number for each row.
function keys(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, k) => mix32(Math.imul(k + 1, 0x9e3779b1)))
}
