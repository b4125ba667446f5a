// The features in the solver's memory, in their storage type, with the products that the solvers need.
import { type F64, LIMIT_BYTES, type U32 } from './arena.ts'
import type { Team } from './team.ts'

export type StorageType = 'f32' | 'bf16'

/** Elements that a thread handles at a time; a task much smaller than this is not worth sharing. */
const PIECE = 1 << 17
/** Sums over rows come in this many blocks at most, of at least MIN_BLOCK rows. */
const BLOCKS = 16
const MIN_BLOCK = 256
const ONE_BF16 = 0x3f80

/** Features [rows, columns], followed by a column of ones (the intercept) and zeros up to `stride`, a multiple of 8. */
export class Matrix {
  readonly team: Team
  readonly dtype: StorageType
  readonly rows: number
  readonly columns: number
  readonly stride: number
  readonly #at: number
  readonly #index: U32
  readonly #weights: F64
  readonly #partial: F64
  /** Root mean square of each column over all rows [stride]; 1 for the intercept, 0 for columns without values. */
  readonly scale: F64

  /** Throws a RangeError where the features do not fit. */
  constructor(team: Team, dtype: StorageType, rows: number, columns: number) {
    this.team = team
    this.dtype = dtype
    this.rows = rows
    this.columns = columns
    this.stride = (columns + 8) & ~7
    const bytes = rows * this.stride * this.size
    if (bytes > LIMIT_BYTES) {
      throw new RangeError(
        `fit: features of ${rows} x ${columns} take ${(bytes / 2 ** 30).toFixed(2)} GiB as ${dtype}, at most 4 GiB can be ` +
          `held; ${dtype === 'f32' ? 'store them as bf16, or ' : ''}fit fewer rows`,
      )
    }
    const { arena } = team
    this.#at = arena.take(bytes)
    this.#index = arena.u32(this.stride)
    this.#weights = arena.f64(this.stride)
    this.#partial = arena.f64(BLOCKS * this.stride)
    this.scale = arena.f64(this.stride)
  }

  /** Bytes of a value. */
  get size(): number {
    return this.dtype === 'f32' ? 4 : 2
  }

  /** Copies rows from `first` on; `data` holds whole rows of `columns` values. */
  load(first: number, data: Float32Array | Uint16Array): void {
    const { columns, stride } = this
    const { buffer } = this.team.arena.memory
    const count = data.length / columns
    const from = this.#at + first * stride * this.size
    const one = this.dtype === 'f32' ? 1 : ONE_BF16
    const to =
      this.dtype === 'f32'
        ? new Float32Array(buffer, from, count * stride)
        : new Uint16Array(buffer, from, count * stride)
    for (let n = 0; n < count; n++) {
      to.set(data.subarray(n * columns, (n + 1) * columns), n * stride)
      to[n * stride + columns] = one
      to.fill(0, n * stride + columns + 1, (n + 1) * stride)
    }
  }

  /** Computes `scale` once everything is loaded; throws, naming the place, where a value is not finite. */
  measure(): void {
    const { rows, columns } = this
    const { scale } = this
    this.#sumRows('squares', [rows], rows, scale)
    const values = scale.values
    for (let j = 0; j < columns; j++) {
      if (!Number.isFinite(values[j])) this.#explain(j)
      values[j] = Math.sqrt(values[j] / rows)
    }
    values.fill(0, columns + 1)
    values[columns] = 1
  }

  #explain(column: number): never {
    for (let n = 0; n < this.rows; n++) {
      const value = this.value(n, column)
      if (!Number.isFinite(value))
        throw new Error(`fit: features must be finite, row ${n}, column ${column} is ${value}`)
    }
    throw new Error(`fit: the squares of column ${column} overflow; scale the features`)
  }

  value(row: number, column: number): number {
    const at = this.#at + (row * this.stride + column) * this.size
    const view = new DataView(this.team.arena.memory.buffer)
    return this.dtype === 'f32'
      ? view.getFloat32(at, true)
      : new Float32Array(Uint32Array.of(view.getUint16(at, true) << 16).buffer)[0]
  }

  // Sums over rows are made of partial sums over blocks, so that threads can share them. Blocks depend on the number of rows
  // alone, and so do the bits of the sum.
  #sumRows(kernel: string, args: readonly number[], count: number, out: F64, rest: readonly number[] = []): void {
    const size = Math.max(MIN_BLOCK, Math.ceil(count / BLOCKS))
    const blocks = Math.ceil(count / size)
    const partial = this.#partial
    this.team.run(`${kernel}_${this.dtype}`, [this.#at, this.stride, ...args, size, partial.at, ...rest], blocks, 1)
    const groups = this.stride / 8
    this.team.run('add_partials', [partial.at, blocks, this.stride, out.at], groups, Math.max(64, groups >> 2))
  }

  #rowsAPiece(width: number): number {
    return Math.max(16, Math.ceil(PIECE / (4 * Math.max(1, width))))
  }

  /** out[k] = sum over j of x[rows[k], j] * w[j]; w has `stride` elements, of which zeros cost nothing. */
  times(rows: U32, count: number, w: ArrayLike<number>, out: F64): void {
    const [index, weights] = [this.#index.values, this.#weights.values]
    let used = 0
    for (let j = 0; j < w.length; j++) {
      if (w[j] === 0) continue
      index[used] = j
      weights[used++] = w[j]
    }
    const args = [this.#at, this.stride, this.#index.at, this.#weights.at, used, rows.at, out.at]
    this.team.run(`times_${this.dtype}`, args, count, this.#rowsAPiece(used))
  }

  /** Adds sum over k of s[k] * x[rows[k], j] to g[j]; g has `stride` elements. */
  addTransposed(rows: U32, s: F64, count: number, g: F64): void {
    if (count === 0) return
    this.#sumRows('transposed', [rows.at, s.at, count], count, g)
  }

  /** Gathers columns of `count` rows into blocks of 16 (see assembly/solver/features.ts). */
  gather(rows: U32, count: number, columns: U32, first: number, blocks: number, panel: number): void {
    const args = [this.#at, this.stride, rows.at, count, columns.at + 16 * 4 * first, blocks, panel]
    this.team.run(`gather_${this.dtype}`, args, count, this.#rowsAPiece(16 * blocks))
  }

  /** Packs a block of rows for `gram_tiles`. */
  gramPack(rows: number, q: number, count: number, cols: U32, left: number, right: number, width: number): void {
    const args = [this.#at, this.stride, rows, q, count, cols.at, left, right]
    this.team.run(`gram_pack_${this.dtype}`, args, width / 4, 64)
  }

  /** out[row] = sum over c of x[row, index[c]] w[c], for a certificate. */
  predict(index: U32, w: F64, count: number, out: F64): void {
    const args = [this.#at, this.stride, index.at, w.at, count, out.at]
    this.team.run(`predict_${this.dtype}`, args, this.rows, this.#rowsAPiece(count))
  }

  /** out = X'u, or |X|'u if `absolute`, for a certificate; u has one element per row, out has `stride`. */
  correlate(u: F64, out: F64, absolute: boolean): void {
    out.values.fill(0)
    this.#sumRows('correlate', [this.rows, u.at], this.rows, out, [absolute ? 1 : 0])
  }
}
