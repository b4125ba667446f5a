// The columns that may be non-zero, gathered from the features in blocks of 16 and scaled by powers of two to a size near 1.
import type { F32, F64, U32 } from './arena.ts'
import type { Matrix } from './matrix.ts'

const LANES = 16
const BLOCK_BYTES = LANES * 4
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
  readonly #scale: F32
  readonly #marks: U32
  readonly #narrow: F32
  #panel = 0
  readonly #count: number
  /** Column of each slot. */
  readonly columnOf: Int32Array
  /** Slot of each column, or -1 [stride]. */
  readonly slotOf: Int32Array
  /** Scale of each slot: the panel holds columns times this, so that weights are divided by it. */
  readonly scaleOf: Float64Array
  /** Sum over rows of s_k x_k by slot; see `addTransposed`. */
  readonly gradient: F64
  readonly step: F64
  slots = 0

  constructor(matrix: Matrix, rows: U32, count: number) {
    const { arena } = matrix.team
    // Every addition may leave a part of its last block empty.
    const capacity = 2 * Math.ceil((matrix.columns + 1) / LANES) * LANES + 8 * LANES
    this.#matrix = matrix
    this.#rows = rows
    this.#count = count
    this.#columns = arena.u32(capacity)
    this.#scale = arena.f32(capacity)
    this.#marks = arena.u32(capacity / LANES)
    this.#narrow = arena.f32(capacity)
    this.gradient = arena.f64(capacity)
    this.step = arena.f64(capacity)
    this.columnOf = new Int32Array(capacity).fill(NO_COLUMN)
    this.slotOf = new Int32Array(matrix.stride).fill(NO_COLUMN)
    this.scaleOf = new Float64Array(capacity)
  }

  get blocks(): number {
    return this.slots / LANES
  }

  get capacity(): number {
    return this.columnOf.length
  }

  get panel(): number {
    return this.#panel
  }

  /** Adds columns that are not in the set. */
  add(columns: readonly number[]): void {
    const { team, scale } = this.#matrix
    const blocks = Math.ceil(columns.length / LANES)
    const first = this.blocks
    if (first === 0) this.#panel = team.arena.take(0)
    const at = team.arena.take(blocks * BLOCK_BYTES * this.#count)
    for (let i = 0; i < blocks * LANES; i++) {
      const slot = this.slots + i
      const column = columns[i] ?? NO_COLUMN
      this.columnOf[slot] = column
      this.#columns.values[slot] = Math.max(0, column)
      if (column === NO_COLUMN) {
        this.#scale.values[slot] = 0
        continue
      }
      this.slotOf[column] = slot
      const size = scale.values[column]
      this.scaleOf[slot] = size > 0 ? 2 ** -Math.round(Math.log2(size)) : 1
      this.#scale.values[slot] = this.scaleOf[slot]
    }
    this.#matrix.gather(this.#rows, this.#count, this.#columns, this.#scale, first, blocks, at)
    this.slots += blocks * LANES
  }

  /** out[k] = panel row k times `step`, for all rows; in f64 if `wide`. */
  times(out: F64, wide: boolean): void {
    const [step, marks, narrow] = [this.step.values, this.#marks.values, this.#narrow.values]
    for (let b = 0; b < this.blocks; b++) {
      let any = 0
      for (let slot = b * LANES; slot < (b + 1) * LANES; slot++) {
        narrow[slot] = step[slot]
        if (step[slot] !== 0) any = 1
      }
      marks[b] = any
    }
    const p = wide ? this.step.at : this.#narrow.at
    const args = [this.#panel, this.#count, this.blocks, this.#marks.at, p, out.at]
    this.#matrix.team.run(wide ? 'panel_times_wide' : 'panel_times', args, this.#count, ROWS_PIECE)
  }

  /** gradient += sum over k of s[k] * panel row rows[k]. */
  addTransposed(rows: U32, s: F64, count: number): void {
    if (count === 0) return
    const args = [this.#panel, this.#count, rows.at, s.at, count, this.gradient.at]
    this.#matrix.team.run('panel_transposed', args, this.blocks, count > 256 ? 1 : this.blocks)
  }
}
