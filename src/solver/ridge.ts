// Ridge regression without an intercept, for several labels of the same rows at once.
//
//   minimise over w   sum over i of q_i (y_i - x_i.w)^2 + alpha * |w|^2,   so (X' Q X + alpha I) w = X' Q y
//
// The objective is that of scikit-learn's Ridge with sample weights. Sums over rows are f64 and made of blocks of rows, so that
// features need not be in memory. A factor in f32 serves all labels as the preconditioner of conjugate gradients in f64; they stop
// at a bound: with the residual r = b - A w, the objective is above its least value by r' A^-1 r, at most |r|^2 / alpha.
import type { F32, F64, U32 } from './arena.ts'
import { Factor } from './factor.ts'
import { Matrix, type StorageType } from './matrix.ts'
import type { Team } from './team.ts'

/** Rows that are packed at a time. */
const PACKED = 128
/** Largest excess of the objective, as a share of it. */
const GAP = 1e-9
/** What rounding leaves of a residual, as a share of the right side. */
const ROUNDING = 1e-14
/** A factor in f32 of a matrix that it can hold brings the residual down by orders each time; others are left to f64. */
const STEPS = 50

/** Sums over rows for `outputs` labels, and the weights that solve them. Owns memory of the team. */
export class Ridge {
  readonly columns: number
  readonly outputs: number
  readonly blockRows: number
  readonly #matrix: Matrix
  readonly #team: Team
  readonly #width: number
  /** X' Q X, its lower triangle [width, width]. */
  readonly #gram: F64
  /** X' Q y [outputs, stride], and sums of q y^2. */
  readonly #right: F64[]
  readonly #squares: Float64Array
  readonly #rows: U32
  readonly #rowWeights: F64
  readonly #rowTargets: F64
  readonly #predicted: F64
  readonly #cols: U32
  readonly #panels: readonly [number, number]
  readonly #factor: ScaledFactor

  /** `blockRows`: the most rows of a block. Throws a RangeError where the sums do not fit into 4 GiB. */
  constructor(team: Team, dtype: StorageType, columns: number, outputs: number, blockRows: number) {
    const { arena, kernels } = team
    this.#team = team
    this.columns = columns
    this.outputs = outputs
    this.blockRows = blockRows
    this.#matrix = new Matrix(team, dtype, blockRows, columns)
    this.#width = (columns + 7) & ~7
    this.#gram = arena.f64(this.#width * this.#width)
    this.#right = Array.from({ length: outputs }, () => arena.f64(this.#matrix.stride))
    this.#squares = new Float64Array(outputs)
    this.#rows = arena.u32(blockRows)
    this.#rowWeights = arena.f64(blockRows)
    this.#rowTargets = arena.f64(blockRows)
    this.#predicted = arena.f64(blockRows)
    this.#cols = arena.u32(this.#width)
    // What padding names is computed and never read.
    for (let j = 0; j < columns; j++) this.#cols.values[j] = j
    const panel = kernels.gram_panel_bytes(this.#width, PACKED)
    this.#panels = [arena.take(panel), arena.take(panel)]
    this.#factor = new ScaledFactor(team, this.#width, columns)
  }

  /** Puts a block of rows in place, for `add` and `predict`. */
  load(data: Float32Array | Uint16Array): void {
    this.#matrix.load(0, data)
  }

  /**
   * Adds rows of the block: for entry k, row rows[k] with weight weights[k] > 0 (the sum of its labels' weights), and for each
   * output the sums sumsOf[o][k] of weight times label; `squares` [outputs] are the sums of weight times label squared.
   */
  add(rows: Uint32Array, weights: Float64Array, sumsOf: readonly Float64Array[], squares: Float64Array): void {
    const count = rows.length
    const team = this.#team
    this.#rows.values.set(rows)
    this.#rowWeights.values.set(weights)
    const [left, right] = this.#panels
    for (let from = 0; from < count; from += PACKED) {
      const block = Math.min(PACKED, count - from)
      const [at, q] = [this.#rows.at + 4 * from, this.#rowWeights.at + 8 * from]
      this.#matrix.gramPack(at, q, block, this.#cols, left, right, this.#width)
      const groups = this.#width / 4
      team.run('gram_tiles', [left, right, block, this.#width, this.#gram.at], groups, groups > 16 ? 4 : groups)
    }
    for (const [o, sums] of sumsOf.entries()) {
      this.#rowTargets.values.set(sums)
      this.#matrix.addTransposed(this.#rows, this.#rowTargets, count, this.#right[o])
      this.#squares[o] += squares[o]
    }
  }

  /** Predictions of rows of the block by weights [columns]; overwritten by the next call. */
  predict(rows: Uint32Array, weights: Float64Array): Float64Array {
    this.#rows.values.set(rows)
    this.#matrix.times(this.#rows, rows.length, weights, this.#predicted)
    return this.#predicted.values.subarray(0, rows.length)
  }

  /** Weights [columns] of the outputs in `which`, for a penalty above 0. Throws where they cannot be found to the last digits. */
  solve(alpha: number, which: readonly number[]): Float64Array[] {
    this.#factor.make(this.#gram, alpha)
    return which.map((o) => {
      const b = this.#right[o].values.slice(0, this.columns)
      const found = this.#conjugateGradients(b, this.#squares[o], alpha)
      return found ?? this.#exactly(b, alpha)
    })
  }

  /** The objective of weights [columns] for an output. */
  objective(weights: Float64Array, o: number, alpha: number): number {
    const product = this.#times(weights, alpha)
    return this.#squares[o] + dot(weights, product) - 2 * dot(weights, this.#right[o].values)
  }

  #conjugateGradients(b: Float64Array, squares: number, alpha: number): Float64Array | null {
    const w = new Float64Array(this.columns)
    const r = b.slice()
    let z = this.#factor.solve(r)
    const p = z.slice()
    let rz = dot(r, z)
    const start = dot(b, b)
    if (start === 0) return w
    for (let step = 0; step < STEPS; step++) {
      const product = this.#times(p, alpha)
      const length = rz / dot(p, product)
      for (let j = 0; j < w.length; j++) {
        w[j] += length * p[j]
        r[j] -= length * product[j]
      }
      const norm = dot(r, r)
      // As r is orthogonal to w, the objective is y'y - b'w so far.
      const objective = squares - dot(b, w)
      if (norm <= GAP * objective * alpha || norm <= ROUNDING ** 2 * start) return this.#check(w, b, squares, alpha)
      z = this.#factor.solve(r)
      const next = dot(r, z)
      const ratio = next / rz
      if (!(ratio >= 0)) return null
      for (let j = 0; j < p.length; j++) p[j] = z[j] + ratio * p[j]
      rz = next
    }
    return null
  }

  // The residual that the steps carry along drifts from the true one, which decides.
  #check(w: Float64Array, b: Float64Array, squares: number, alpha: number): Float64Array | null {
    const product = this.#times(w, alpha)
    let norm = 0
    for (let j = 0; j < w.length; j++) norm += (b[j] - product[j]) ** 2
    const objective = squares + dot(w, product) - 2 * dot(w, b)
    return norm <= 100 * GAP * Math.abs(objective) * alpha || norm <= 1e-24 * dot(b, b) ? w : null
  }

  // A factor in f64 by one thread: slow, and good to the last digits that the matrix allows.
  #exactly(b: Float64Array, alpha: number): Float64Array {
    const { arena, kernels } = this.#team
    const mark = arena.mark()
    try {
      const [n, width] = [this.columns, this.#width]
      const a = arena.f64(width * width)
      const x = arena.f64(width)
      a.values.set(this.#gram.values)
      for (let i = 0; i < n; i++) a.values[i * width + i] += alpha
      kernels.cholesky(a.at, n, width)
      x.values.set(b)
      kernels.solve(a.at, n, width, x.at)
      const w = x.values.slice(0, n)
      const product = this.#times(w, alpha)
      for (let j = 0; j < n; j++) x.values[j] = b[j] - product[j]
      kernels.solve(a.at, n, width, x.at)
      for (let j = 0; j < n; j++) w[j] += x.values[j]
      return w
    } finally {
      arena.release(mark)
    }
  }

  /** (X' Q X + alpha I) p. */
  #times(p: Float64Array, alpha: number): Float64Array {
    const [n, width, gram] = [this.columns, this.#width, this.#gram.values]
    const product = new Float64Array(n)
    for (let i = 0; i < n; i++) {
      const row = i * width
      const own = p[i]
      let sum = 0
      for (let j = 0; j < i; j++) {
        const value = gram[row + j]
        sum += value * p[j]
        product[j] += value * own
      }
      product[i] += sum + (gram[row + i] + alpha) * own
    }
    return product
  }
}

/** A Cholesky factor in f32 of a symmetric matrix in f64. */
class ScaledFactor {
  readonly #columns: number
  readonly #size: number
  readonly #rounded: F32
  readonly #ridge: F64
  readonly #support: U32
  readonly #side: F32
  readonly #factor: Factor
  #scale = 1

  constructor(team: Team, width: number, columns: number) {
    const { arena } = team
    this.#columns = columns
    this.#size = width
    this.#rounded = arena.f32(width * width)
    this.#ridge = arena.f64(width)
    this.#support = arena.u32(width)
    for (let j = 0; j < width; j++) this.#support.values[j] = j
    this.#side = arena.f32(width)
    this.#factor = new Factor(team, width)
  }

  /** Factors matrix + alpha I, both divided by the mean of the diagonal, so that f32 holds them. */
  make(matrix: F64, alpha: number): void {
    const [n, width, values, rounded] = [this.#columns, this.#size, matrix.values, this.#rounded.values]
    let trace = 0
    for (let i = 0; i < n; i++) trace += values[i * width + i] + alpha
    this.#scale = n / trace
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) rounded[i * width + j] = values[i * width + j] * this.#scale
    }
    this.#ridge.values.fill(alpha * this.#scale)
    const scaled = { at: this.#rounded.at, ld: this.#size }
    this.#factor.make(scaled, this.#ridge, this.#support, this.#columns, this.#size)
  }

  /** Solves for a right side [columns], to the digits of f32. */
  solve(b: Float64Array): Float64Array {
    const side = this.#side.values
    // The right side may be small or large beyond f32.
    let largest = 0
    for (const value of b) largest = Math.max(largest, Math.abs(value))
    if (largest === 0) return new Float64Array(b.length)
    side.fill(0)
    for (let j = 0; j < b.length; j++) side[j] = b[j] / largest
    this.#factor.solve(this.#side)
    return Float64Array.from(this.#side.values.subarray(0, b.length), (value) => value * largest * this.#scale)
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}
