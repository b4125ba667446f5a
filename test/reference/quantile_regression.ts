// Weighted L1-penalised quantile regression as its definition says, in float64: objective, bound, and the optimum of tiny problems.
//
//   primal(w, b) = sum over i of v_i pinball(y_i - x_i.w - b) / sum of v + alpha * |w|_1
//   dual(u)      = sum over i of v_i u_i y_i / sum of v     for  level - 1 <= u_i <= level,
//                  |sum over i of v_i u_i x_ij| / sum of v <= alpha,  sum over i of v_i u_i = 0 with an intercept
//
// Nothing here is shared with the solver: a mistake would have to be made twice to go unnoticed.

/** Feature rows [rows, columns] as f32 or as the bits of bf16. */
export interface Features {
  readonly data: Float32Array | Uint16Array
  readonly rows: number
  readonly columns: number
}

/** Labels, NaN where missing; label i belongs to row rowIndex[i] (row i without) and counts weights[i] times (once without). */
export interface Labels {
  readonly values: Float32Array
  readonly rowIndex?: Uint32Array
  readonly weights?: Float32Array
}

/** One label a row, no label missing. */
export interface Regression {
  readonly count: number
  readonly columns: number
  /** [count, columns] */
  readonly x: Float64Array
  readonly y: Float64Array
  readonly v: Float64Array
  /** Which of the given labels each row came from. */
  readonly labels: readonly number[]
  readonly level: number
  readonly alpha: number
  readonly intercept: boolean
}

/** What weights and a dual point prove about each other. */
export interface Evidence {
  readonly objective: number
  /** No weights whatever have an objective below this. */
  readonly bound: number
  /** (objective - bound) / objective, or / mean |y| where the objective is too small for f32 weights to resolve. */
  readonly gap: number
  /** What f32 storage of the weights can move the objective by. */
  readonly rounding: number
}

/** Copies features and labels out to one row a label. */
export function regression(
  features: Features,
  { values, rowIndex, weights }: Labels,
  { level, alpha, intercept }: { level: number; alpha: number; intercept: boolean },
): Regression {
  const { columns, data } = features
  const labels = [...values.keys()].filter((i) => !Number.isNaN(values[i]))
  const x = new Float64Array(labels.length * columns)
  for (const [k, i] of labels.entries()) {
    const row = rowIndex ? rowIndex[i] : i
    for (let j = 0; j < columns; j++) {
      const value = data[row * columns + j]
      x[k * columns + j] = data instanceof Float32Array ? value : widen(value)
    }
  }
  const y = Float64Array.from(labels, (i) => values[i])
  const v = Float64Array.from(labels, (i) => (weights ? weights[i] : 1))
  return { count: labels.length, columns, x, y, v, labels, level, alpha, intercept }
}

/** The value of a bf16 number, given its bits: the upper half of an f32. */
function widen(bits: number): number {
  return new Float32Array(Uint32Array.of(bits * 65536).buffer)[0]
}

export function objective({ count, columns, x, y, v, level, alpha }: Regression, w: ArrayLike<number>, b: number) {
  let loss = 0
  let total = 0
  for (let i = 0; i < count; i++) {
    let r = y[i] - b
    for (let j = 0; j < columns; j++) r -= x[i * columns + j] * w[j]
    loss += v[i] * Math.max(level * r, (level - 1) * r)
    total += v[i]
  }
  let norm = 0
  for (let j = 0; j < columns; j++) norm += Math.abs(w[j])
  return loss / total + alpha * norm
}

/** Weighs a claim: weights and intercept as stored, and a dual point with one value for each row of the problem. */
export function weigh(problem: Regression, w: ArrayLike<number>, b: number, u: ArrayLike<number>): Evidence {
  const { count, columns, x, y, v } = problem
  let size = 0
  let moved = 0
  let total = 0
  for (let i = 0; i < count; i++) {
    let magnitude = Math.abs(b)
    for (let j = 0; j < columns; j++) magnitude += Math.abs(x[i * columns + j] * w[j])
    moved += v[i] * magnitude
    size += v[i] * Math.abs(y[i])
    total += v[i]
  }
  size /= total
  const primal = objective(problem, w, b)
  const bound = dualBound(problem, u, w, b)
  // Huge weights are no excuse for a poor fit.
  const rounding = Math.min((moved / total) * 2 ** -24, 1e-6 * size)
  const unit = primal > Math.max(rounding, 1e-12 * size) ? primal : size
  const gap = primal > bound ? (primal - bound) / unit : 0
  return { objective: primal, bound, gap, rounding }
}

/** What is left in an unpenalised column is charged for weights up to this many times those given. */
const REACH = 10

/**
 * The bound of any point: it is clipped, balanced over the unpenalised columns, and scaled; 0 where that cannot be done. What no
 * balancing removes is charged for weights in the reach of those given.
 */
export function dualBound(problem: Regression, point: ArrayLike<number>, w?: ArrayLike<number>, b = 0): number {
  const { count, columns, x, y, v, level, alpha, intercept } = problem
  const u = Float64Array.from(point, (value) => (Number.isFinite(value) ? clip(value, level) : 0))
  if (!balance(problem, u)) return 0
  let total = 0
  let value = 0
  let sum = 0
  for (let i = 0; i < count; i++) {
    total += v[i]
    value += v[i] * u[i] * y[i]
    sum += v[i] * u[i]
  }
  if (intercept) value -= REACH * Math.abs(sum * b)
  let largest = 0
  for (let j = 0; j < columns; j++) {
    let sum = 0
    for (let i = 0; i < count; i++) sum += v[i] * u[i] * x[i * columns + j]
    if (alpha === 0) value -= REACH * Math.abs(sum * (w?.[j] ?? 0))
    else largest = Math.max(largest, Math.abs(sum) / total)
  }
  const share = largest > alpha && alpha > 0 ? alpha / largest : 1
  return Math.max(0, (share * value) / total)
}

function clip(value: number, level: number): number {
  return Math.min(level, Math.max(level - 1, value))
}

/** The share of an unpenalised column's absolute sum that is sought to be left in it at most, and the one that is let pass. */
const BALANCED = 1e-12
const ALMOST_BALANCED = 1e-9

/**
 * Moves u until every unpenalised column sums to 0: the intercept's, and without a penalty all. Each value moves in proportion to
 * its distance from both ends of its interval, by the step of least weighted squares. Says whether it came out.
 */
function balance(problem: Regression, u: Float64Array): boolean {
  const { count, v, level } = problem
  const free = unpenalised(problem)
  let best = Number.POSITIVE_INFINITY
  const kept = new Float64Array(count)
  // A few rounds settle it; clipping may need more, but not without progress.
  for (let round = 0, idle = 0; round < 60 && idle < 4; round++, idle++) {
    const sums = free.map((z) => {
      let sum = 0
      let absolute = 0
      for (let i = 0; i < count; i++) {
        sum += v[i] * u[i] * z[i]
        absolute += Math.abs(v[i] * u[i] * z[i])
      }
      return { sum, absolute }
    })
    const worst = Math.max(0, ...sums.map(({ sum, absolute }) => (sum === 0 ? 0 : Math.abs(sum) / absolute)))
    if (worst < best) {
      if (worst < best / 2) idle = 0
      best = worst
      kept.set(u)
    }
    if (best <= BALANCED) break
    const room = u.map((value) => (level - value) * (value - level + 1))
    const step = leastSquares(
      free,
      room,
      v,
      Float64Array.from(sums, ({ sum }) => sum),
    )
    for (let i = 0; i < count; i++) {
      let move = 0
      for (let j = 0; j < free.length; j++) move += free[j][i] * step[j]
      u[i] = clip(u[i] - room[i] * move, level)
    }
  }
  u.set(kept)
  return best <= ALMOST_BALANCED
}

/** The columns without a penalty, one by one, each of length 1; columns of zeros are left out. */
function unpenalised({ count, columns, x, alpha, intercept }: Regression): Float64Array[] {
  const free: Float64Array[] = intercept ? [new Float64Array(count).fill(1)] : []
  if (alpha === 0)
    for (let j = 0; j < columns; j++) free.push(Float64Array.from({ length: count }, (_, i) => x[i * columns + j]))
  return free
    .map((z) => {
      const length = Math.sqrt(z.reduce((sum, value) => sum + value * value, 0))
      return length > 0 ? z.map((value) => value / length) : z
    })
    .filter((z) => z.some((value) => value !== 0))
}

/** Solves sum over k of (z_j, v room z_k) t_k = target_j by pivoted Gram-Schmidt; dependent columns get 0. */
function leastSquares(free: readonly Float64Array[], room: Float64Array, v: Float64Array, target: Float64Array) {
  const m = free.length
  const columns = free.map((z) => z.map((value, i) => value * Math.sqrt(v[i] * room[i])))
  const lengths = columns.map((z) => z.reduce((sum, value) => sum + value * value, 0))
  const order: number[] = []
  const upper: Float64Array[] = []
  for (let rank = 0; rank < m; rank++) {
    const norms = columns.map((z, j) => (order.includes(j) ? -1 : z.reduce((sum, value) => sum + value * value, 0)))
    const pivot = norms.indexOf(Math.max(...norms))
    if (!(norms[pivot] > 1e-24 * lengths[pivot])) break
    order.push(pivot)
    const unit = columns[pivot].map((value) => value / Math.sqrt(norms[pivot]))
    const row = new Float64Array(m)
    for (let j = 0; j < m; j++) {
      if (j !== pivot && order.includes(j)) continue
      for (let i = 0; i < unit.length; i++) row[j] += unit[i] * columns[j][i]
      for (let i = 0; i < unit.length; i++) columns[j][i] -= row[j] * unit[i]
    }
    upper.push(row)
  }
  // R' R t = target over the chosen columns, R upper triangular in their order.
  const half = new Float64Array(order.length)
  for (let k = 0; k < order.length; k++) {
    let sum = target[order[k]]
    for (let l = 0; l < k; l++) sum -= upper[l][order[k]] * half[l]
    half[k] = sum / upper[k][order[k]]
  }
  const step = new Float64Array(m)
  for (let k = order.length - 1; k >= 0; k--) {
    let sum = half[k]
    for (let l = k + 1; l < order.length; l++) sum -= upper[k][order[l]] * step[order[l]]
    step[order[k]] = sum / upper[k][order[k]]
  }
  return step
}

/**
 * The optimum of a tiny problem, by trying every vertex: the objective is piecewise linear and convex, so one of its minima lies
 * where as many residuals and weights vanish as there are unknowns.
 */
export function bruteForce(problem: Regression): number {
  const { count, columns, x, y, intercept } = problem
  const unknowns = columns + (intercept ? 1 : 0)
  const planes: number[][] = []
  for (let i = 0; i < count; i++) {
    planes.push([...x.subarray(i * columns, (i + 1) * columns), ...(intercept ? [1] : []), y[i]])
  }
  for (let j = 0; j < columns; j++) planes.push(Array.from({ length: unknowns + 1 }, (_, k) => (k === j ? 1 : 0)))
  let best = Number.POSITIVE_INFINITY
  for (const chosen of subsets(planes.length, unknowns)) {
    const point = solve(chosen.map((k) => planes[k]))
    if (point) best = Math.min(best, objective(problem, point, intercept ? point[columns] : 0))
  }
  return best
}

function* subsets(count: number, size: number, from = 0): Generator<number[]> {
  if (size === 0) {
    yield []
    return
  }
  for (let k = from; k <= count - size; k++) for (const rest of subsets(count, size - 1, k + 1)) yield [k, ...rest]
}

/** Gauss elimination with pivoting on rows [a | b]; null where they are dependent. */
function solve(rows: readonly (readonly number[])[]): number[] | null {
  const m = rows.map((row) => [...row])
  const n = m.length
  for (let c = 0; c < n; c++) {
    let pivot = c
    for (let r = c; r < n; r++) if (Math.abs(m[r][c]) > Math.abs(m[pivot][c])) pivot = r
    if (Math.abs(m[pivot][c]) < 1e-9) return null
    ;[m[c], m[pivot]] = [m[pivot], m[c]]
    for (let r = 0; r < n; r++) {
      if (r === c) continue
      const factor = m[r][c] / m[c][c]
      for (let k = c; k <= n; k++) m[r][k] -= factor * m[c][k]
    }
  }
  return m.map((row, c) => row[n] / row[c])
}
