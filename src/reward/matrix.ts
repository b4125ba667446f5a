// The feature matrix inside the solver's own WebAssembly memory, with the linear algebra that the solvers need.

import { solverWasm } from '../generated/solver.ts'

interface Kernels {
  memory: WebAssembly.Memory
  gram(
    x: number,
    stride: number,
    rows: number,
    q: number,
    count: number,
    cols: number,
    width: number,
    g: number,
    pack: number,
  ): void
  gramScratchBytes(width: number): number
  times(x: number, stride: number, rows: number, count: number, p: number, out: number): void
  timesTransposed(x: number, stride: number, rows: number, s: number, count: number, g: number): void
  cholesky(g: number, n: number, ld: number): number
  solve(l: number, n: number, ld: number, b: number): void
}

/** A vector in the solver's memory: its address for kernels and its values for the host. */
export interface Vector<T extends Float64Array | Uint32Array> {
  readonly at: number
  readonly values: T
}

const PAGE = 65536
const LIMIT_BYTES = 65536 * PAGE

/** Where features end and the solvers' arrays begin is counted from here: the module keeps its static data below. */
const FIRST_FREE = PAGE

/**
 * Features [rows, columns] in f32, followed by a column of ones (the intercept) and zeros up to `stride`, a multiple of 4.
 *
 * Vectors come from a stack: `mark` and `release` bracket a computation, and `allocate` must be called for all vectors before
 * their values are used, because growing the memory detaches earlier views.
 */
export class Matrix {
  readonly rows: number
  readonly columns: number
  readonly stride: number
  readonly #kernels: Kernels
  #top: number

  constructor(data: Float32Array, rows: number, columns: number) {
    this.rows = rows
    this.columns = columns
    this.stride = (columns + 4) & ~3
    this.#kernels = instantiate()
    this.#top = FIRST_FREE
    const at = this.#take(rows * this.stride * 4)
    this.#reserve()
    const x = new Float32Array(this.#kernels.memory.buffer, at, rows * this.stride)
    for (let n = 0; n < rows; n++) {
      x.set(data.subarray(n * columns, (n + 1) * columns), n * this.stride)
      x[n * this.stride + columns] = 1
    }
  }

  /** Takes vectors off the stack: `f64` and `u32` name lengths; all come back zeroed. */
  allocate<F extends string, U extends string>(
    f64: Record<F, number>,
    u32: Record<U, number>,
  ): Record<F, Vector<Float64Array>> & Record<U, Vector<Uint32Array>> {
    const wide = (Object.entries(f64) as [F, number][]).map(([name, length]) => ({
      name,
      length,
      at: this.#take(length * 8),
    }))
    const narrow = (Object.entries(u32) as [U, number][]).map(([name, length]) => ({
      name,
      length,
      at: this.#take(length * 4),
    }))
    this.#reserve()
    const buffer = this.#kernels.memory.buffer
    const out: Record<string, Vector<Float64Array> | Vector<Uint32Array>> = {}
    for (const v of wide) out[v.name] = { at: v.at, values: new Float64Array(buffer, v.at, v.length).fill(0) }
    for (const v of narrow) out[v.name] = { at: v.at, values: new Uint32Array(buffer, v.at, v.length).fill(0) }
    return out as Record<F, Vector<Float64Array>> & Record<U, Vector<Uint32Array>>
  }

  mark(): number {
    return this.#top
  }

  release(mark: number): void {
    this.#top = mark
  }

  /** Doubles that the packing area of `gram` needs for `width` columns. */
  gramScratch(width: number): number {
    return this.#kernels.gramScratchBytes(width) / 8
  }

  /** Sets the lower triangle of g [width, width] to X_KC' diag(q) X_KC; `width` columns, a multiple of 4. */
  gram(
    rows: Vector<Uint32Array>,
    q: Vector<Float64Array>,
    count: number,
    cols: Vector<Uint32Array>,
    width: number,
    g: Vector<Float64Array>,
    pack: Vector<Float64Array>,
  ): void {
    g.values.fill(0, 0, width * width)
    this.#kernels.gram(FIRST_FREE, this.stride, rows.at, q.at, count, cols.at, width, g.at, pack.at)
  }

  /** out[k] = sum over j of x[rows[k], j] * p[j]; p has `stride` elements. */
  times(rows: Vector<Uint32Array>, count: number, p: Vector<Float64Array>, out: Vector<Float64Array>): void {
    this.#kernels.times(FIRST_FREE, this.stride, rows.at, count, p.at, out.at)
  }

  /** Adds sum over k of s[k] * x[rows[k], j] to g[j]; g has `stride` elements. */
  addTransposed(rows: Vector<Uint32Array>, s: Vector<Float64Array>, count: number, g: Vector<Float64Array>): void {
    this.#kernels.timesTransposed(FIRST_FREE, this.stride, rows.at, s.at, count, g.at)
  }

  /** Factors the leading n x n part of g [*, ld] in place; returns the number of dependent coordinates that were fixed. */
  cholesky(g: Vector<Float64Array>, n: number, ld: number): number {
    return this.#kernels.cholesky(g.at, n, ld)
  }

  /** Solves with the factor in place. */
  solve(l: Vector<Float64Array>, n: number, ld: number, b: Vector<Float64Array>): void {
    this.#kernels.solve(l.at, n, ld, b.at)
  }

  #take(bytes: number): number {
    const at = this.#top
    this.#top = at + Math.ceil(bytes / 64) * 64
    return at
  }

  #reserve(): void {
    if (this.#top > LIMIT_BYTES) {
      throw new Error(
        `fit: features and working memory must stay below 4 GiB, ${this.rows} x ${this.columns} needs ` +
          `${(this.#top / 2 ** 30).toFixed(1)} GiB; fit fewer rows or columns`,
      )
    }
    const missing = this.#top - this.#kernels.memory.buffer.byteLength
    if (missing > 0) this.#kernels.memory.grow(Math.ceil(missing / PAGE))
  }
}

let compiled: WebAssembly.Module | undefined

function instantiate(): Kernels {
  compiled ??= new WebAssembly.Module(solverWasm())
  return new WebAssembly.Instance(compiled, {}).exports as unknown as Kernels
}
