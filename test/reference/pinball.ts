// L1-penalised quantile regression as its definition says, in float64: objective, dual point, and the optimum of tiny problems.

/** A regression problem with one label a row. */
export interface Regression {
  /** [rows][columns] */
  readonly x: readonly (readonly number[])[]
  readonly y: readonly number[]
  readonly level: number
  readonly alpha: number
  readonly intercept: boolean
}

/** Mean pinball loss of y - x w - b plus alpha * |w|_1. */
export function objective({ x, y, level, alpha }: Regression, w: readonly number[], b: number): number {
  let sum = 0
  for (let i = 0; i < y.length; i++) {
    let r = y[i] - b
    for (let j = 0; j < w.length; j++) r -= x[i][j] * w[j]
    sum += Math.max(level * r, (level - 1) * r)
  }
  return sum / y.length + alpha * w.reduce((total, v) => total + Math.abs(v), 0)
}

/**
 * Lower bound that the dual point u gives after it is clipped to [level - 1, level] and, where the penalty asks for it, scaled.
 * `imbalance` is |mean u| (intercept only), which a valid point has at 0.
 */
export function dualBound({ x, y, level, alpha, intercept }: Regression, u: readonly number[]) {
  const clipped = u.map((v) => Math.min(level, Math.max(level - 1, v)))
  const mean = (f: (i: number) => number) => y.reduce((sum, _, i) => sum + f(i), 0) / y.length
  const columns = x[0].map((_, j) => Math.abs(mean((i) => x[i][j] * clipped[i])))
  const largest = Math.max(...columns)
  const share = largest > alpha ? alpha / largest : 1
  return { bound: share * mean((i) => y[i] * clipped[i]), imbalance: intercept ? Math.abs(mean((i) => clipped[i])) : 0 }
}

/**
 * The optimum of a tiny problem, by trying every vertex: the objective is piecewise linear and convex, so one of its minima lies
 * where as many residuals and weights vanish as there are unknowns.
 */
export function bruteForce(problem: Regression): number {
  const { x, y, intercept } = problem
  const d = x[0].length
  const unknowns = d + (intercept ? 1 : 0)
  const planes = y.map((value, i) => [...x[i], ...(intercept ? [1] : []), value])
  for (let j = 0; j < d; j++) planes.push(Array.from({ length: unknowns + 1 }, (_, k) => (k === j ? 1 : 0)))
  let best = Number.POSITIVE_INFINITY
  for (const chosen of subsets(planes.length, unknowns)) {
    const point = solve(chosen.map((k) => planes[k]))
    if (point) best = Math.min(best, objective(problem, point.slice(0, d), intercept ? point[d] : 0))
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

// Gauss elimination with pivoting on rows [a | b]; null where they are dependent.
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
