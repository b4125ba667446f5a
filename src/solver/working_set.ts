// The columns that may be non-zero, gathered from the features in blocks of 16, each with a power of two that brings it to a
// size near 1.
import { ALIGNMENT, type F32, type F64, type U32 } from './arena.ts'
import type { Matrix } from './matrix.ts'

export const LANES = 16
/** Rows a thread takes at a time. */
const ROWS_PIECE = 2048

/** Columns by slot; slot = 16 * block + lane. Lanes without a column hold zeros and the column NO_COLUMN. */
export const NO_COLUMN = -1

/** From the first `add` on it lies at the top of the arena, where it can grow: nothing else may be allocated any more. */
export class WorkingSet {
  readonly #matrix: Matrix
  /** Rows with labels [R]. */
  readonly #rows: U32
  readonly #columns: U32
  /** Scale of each slot: the solver's column is the stored one times this, its weight is divided by it. */
  readonly scale: F32
  readonly #marks: U32
  readonly #narrow: F32
  #panel = 0
  /** Bytes taken for the panel. */
  #taken = 0
  readonly #count: number
  /** Column of each slot. */
  readonly columnOf: Int32Array
  /** Slot of each column, or -1 [stride]. */
  readonly slotOf: Int32Array
  /** Sum over rows of s_k x_k by slot, unscaled; see `addTransposed`. */
  readonly gradient: F64
  /** A direction by slot, in scaled units. */
  readonly step: F64
  readonly #unscaled: F64
  slots = 0

  constructor(matrix: Matrix, rows: U32, count: number) {
    const { arena } = matrix.team
    // Every addition may leave a part of its last block empty.
    const capacity = 2 * Math.ceil((matrix.columns + 1) / LANES) * LANES + 8 * LANES
    this.#matrix = matrix
    this.#rows = rows
    this.#count = count
    this.#columns = arena.u32(capacity)
    this.scale = arena.f32(capacity)
    this.#marks = arena.u32(capacity / LANES)
    this.#narrow = arena.f32(capacity)
    this.gradient = arena.f64(capacity)
    this.step = arena.f64(capacity)
    this.#unscaled = arena.f64(capacity)
    this.columnOf = new Int32Array(capacity).fill(NO_COLUMN)
    this.slotOf = new Int32Array(matrix.stride).fill(NO_COLUMN)
  }

  get blocks(): number {
    return this.slots / LANES
  }

  get capacity(): number {
    return this.columnOf.length
  }

  /** Adds columns that are not in the set. */
  add(columns: readonly number[]): void {
    const { team } = this.#matrix
    const blocks = Math.ceil(columns.length / LANES)
    const first = this.blocks
    if (first === 0) this.#panel = team.arena.take(0)
    const blockBytes = LANES * this.#matrix.size * this.#count
    const at = this.#panel + first * blockBytes
    // Blocks lie without a space, even where the arena's alignment has left one after the last addition.
    const missing = Math.max(0, (first + blocks) * blockBytes - this.#taken)
    this.#taken += Math.ceil(missing / ALIGNMENT) * ALIGNMENT
    team.arena.take(missing)
    const [names, scale, sizes] = [this.#columns.values, this.scale.values, this.#matrix.scale.values]
    for (let i = 0; i < blocks * LANES; i++) {
      const slot = this.slots + i
      const column = columns[i] ?? NO_COLUMN
      this.columnOf[slot] = column
      names[slot] = Math.max(0, column)
      scale[slot] = 0
      if (column === NO_COLUMN) continue
      this.slotOf[column] = slot
      scale[slot] = sizes[column] > 0 ? 2 ** -Math.round(Math.log2(sizes[column])) : 1
    }
    this.#matrix.gather(this.#rows, this.#count, this.#columns, first, blocks, at)
    this.slots += blocks * LANES
  }

  /** out[k] = panel row k times `step`, for all rows; in f64 if `wide`. */
  times(out: F64, wide: boolean): void {
    const { team, dtype } = this.#matrix
    const [step, marks, narrow] = [this.step.values, this.#marks.values, this.#narrow.values]
    const [scale, unscaled] = [this.scale.values, this.#unscaled.values]
    for (let b = 0; b < this.blocks; b++) {
      let any = 0
      for (let slot = b * LANES; slot < (b + 1) * LANES; slot++) {
        unscaled[slot] = step[slot] * scale[slot]
        narrow[slot] = unscaled[slot]
        if (step[slot] !== 0) any = 1
      }
      marks[b] = any
    }
    const p = wide ? this.#unscaled.at : this.#narrow.at
    const args = [this.#panel, this.#count, this.blocks, this.#marks.at, p, out.at]
    team.run(`panel_times${wide ? '_wide' : ''}_${dtype}`, args, this.#count, ROWS_PIECE)
  }

  /** gradient += sum over k of s[k] * panel row rows[k]. */
  addTransposed(rows: U32, s: F64, count: number): void {
    if (count === 0) return
    const { team, dtype } = this.#matrix
    const args = [this.#panel, this.#count, rows.at, s.at, count, this.gradient.at]
    team.run(`panel_transposed_${dtype}`, args, this.blocks, count > 256 ? 1 : this.blocks)
  }

  /** Packs rows of the slots in `slots` for the Gram matrix (see assembly/solver/panel.ts). */
  pack(slots: U32, strips: number, rows: number, weights: number, depth: number, left: number, right: number): void {
    const { team, dtype } = this.#matrix
    const args = [this.#panel, this.#count, slots.at, this.scale.at, rows, weights, depth, left, right]
    team.run(`pack_${dtype}`, args, strips, 4)
  }
}
