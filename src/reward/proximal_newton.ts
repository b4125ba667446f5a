// Dual proximal-point method (augmented Lagrangian) with proximal Newton steps for L1-penalised quantile regression.
//
// Source: Li, Sun and Toh 2018 (augmented Lagrangian with Newton for the lasso), here with the pinball loss. In rank scores
// a = u + 1 - level, 0 <= a <= 1, the inner problem for centre c and bandwidth h is
//
//   min over w   sum_i weight_i max_a [ (a + level - 1) r_i - h / 2 (a - c_i)^2 ] + penalty |w|_1      r = y - X w
//
// whose gradient needs X only where a changes, and whose Hessian only rows with 0 < a < 1 and columns near the penalty.

import type { Solution, Task } from './interior_point.ts'
import { solveLassoModel } from './lasso_model.ts'
import { stepLength } from './line_search.ts'

/** Columns whose correlation exceeds this share of the penalty enter the Newton model beside the non-zero ones. */
const NEAR = 0.8
/** Rows of the Newton model: this many a column, and no fewer than SAMPLE_ROWS, drawn in a fixed order. */
const SAMPLE_PER_COLUMN = 10
const SAMPLE_ROWS = 2000
/** The bandwidth shrinks while kinks outnumber the non-zero weights by this factor. */
const SPARE_KINKS = 1.5
const INNER_STEPS = 30
const OUTER_STEPS = 60
/** Outer steps without progress in the gap before the method gives up. */
const PATIENCE = 5
const RIDGE = 1e-7

/** Solves the task from `start` (weights [stride], 0 if absent). Gives up, with its best points, where Newton steps run out. */
export function proximalNewton(task: Task, start?: Float64Array): Solution {
  const mark = task.matrix.mark()
  try {
    return new ProximalNewton(task, start).solve()
  } finally {
    task.matrix.release(mark)
  }
}

class ProximalNewton {
  readonly #task: Task
  readonly #n: number
  readonly #rows: number
  readonly #budget: number
  readonly #residual: Float64Array
  readonly #score: Float64Array
  readonly #centre: Float64Array
  readonly #rowSum: Float64Array
  readonly #rowOld: Float64Array
  readonly #rowCurvature: Float64Array
  readonly #penalty: Float64Array
  readonly #priority: Uint32Array
  readonly #v
  #bandwidth = 1
  #damping = 0
  #steps = 0

  constructor(task: Task, start?: Float64Array) {
    const { matrix, labels, columns } = task
    this.#task = task
    this.#n = labels.values.length
    this.#rows = labels.rows.length
    this.#budget = task.tolerance < 1e-5 ? 400 : 150
    this.#residual = new Float64Array(this.#n)
    this.#score = new Float64Array(this.#n)
    this.#centre = new Float64Array(this.#n).fill(0.5)
    this.#rowSum = new Float64Array(this.#rows)
    this.#rowOld = new Float64Array(this.#rows)
    this.#rowCurvature = new Float64Array(this.#rows)
    this.#penalty = new Float64Array(matrix.stride)
    for (const j of columns) this.#penalty[j] = j < matrix.columns ? task.penalty : 0
    this.#priority = shuffled(this.#rows)
    const width = (columns.length + 3) & ~3
    this.#v = matrix.allocate(
      {
        weights: matrix.stride,
        // ga = X'a and base = X'1, so that X'u = ga - (1 - level) base.
        ga: matrix.stride,
        base: matrix.stride,
        step: matrix.stride,
        wide: matrix.stride,
        xp: this.#rows,
        rowValue: this.#rows,
        model: width * width,
        factor: width * width,
        side: width,
        pack: matrix.gramScratch(width),
      },
      { rows: this.#rows, some: this.#rows, cols: width },
    )
    this.#v.rows.values.set(labels.rows)
    if (start) this.#v.weights.values.set(start)
  }

  solve(): Solution {
    const { tolerance, floor, signal } = this.#task
    const { weights } = this.#v
    this.#begin()
    let objective = Number.POSITIVE_INFINITY
    let bound = Number.NEGATIVE_INFINITY
    let best = weights.values.slice()
    let dual = new Float64Array(this.#n)
    let since = 0
    for (let outer = 0; outer < OUTER_STEPS; outer++) {
      const gap = Math.max(0, objective - bound) / objective
      const before = this.#steps
      const solved = this.#inner(Math.max(Math.min(0.3, Number.isFinite(gap) ? 0.2 * gap : 0.3), 0.3 * tolerance))
      const primal = this.#primal()
      if (primal < objective) {
        objective = primal
        best = weights.values.slice()
      }
      const lower = this.#bound()
      if (lower.value > bound) {
        bound = lower.value
        dual = lower.dual
      }
      const reached = objective - bound
      if (reached <= tolerance * objective || reached <= floor) break
      since = reached < 0.9 * gap * objective || outer === 0 ? 0 : since + 1
      if (since > PATIENCE || this.#steps > this.#budget || signal?.aborted) break
      this.#recentre()
      if (!solved) this.#bandwidth *= 4
      else if (this.#steps - before <= 12 && this.#hasKinksToSpare()) this.#bandwidth *= 0.5
    }
    return { weights: best, dual, objective, bound, iterations: this.#steps }
  }

  #begin(): void {
    const { matrix, labels, y } = this.#task
    const { weights, rows, xp, rowValue, base } = this.#v
    matrix.times(rows, this.#rows, weights, xp)
    const r = this.#residual
    let mean = 0
    for (let i = 0; i < this.#n; i++) {
      r[i] = y[i] - xp.values[labels.rowOf[i]]
      rowValue.values[labels.rowOf[i]] += labels.weights[i]
      mean += labels.weights[i] * Math.abs(r[i])
    }
    matrix.addTransposed(rows, rowValue, this.#rows, base)
    const nonzeros = this.#nonzeros()
    const sorted = r.map(Math.abs).sort()
    const share = nonzeros > 1 ? Math.min(0.5, (8 * nonzeros) / this.#rows) : 0.9
    // The floor keeps ties (0/1 labels around w = 0) from collapsing the bandwidth to nothing.
    this.#bandwidth = Math.max(2 * sorted[Math.floor(share * (this.#n - 1))], 0.2 * mean, 1e-9)
  }

  // Newton steps for the current centre and bandwidth until every column is optimal within `tolerance` of the penalty.
  #inner(tolerance: number): boolean {
    const { columns } = this.#task
    const w = this.#v.weights.values
    this.#damping = 0
    for (let step = 0; step < INNER_STEPS; step++) {
      this.#activate()
      const g = this.#gradient()
      let violation = 0
      const near: number[] = []
      for (let c = 0; c < columns.length; c++) {
        const j = columns[c]
        const penalty = this.#penalty[j]
        const excess = w[j] !== 0 ? Math.abs(g[c] - penalty * Math.sign(w[j])) : Math.abs(g[c]) - penalty
        violation = Math.max(violation, excess / this.#task.penalty)
        if (w[j] !== 0 || Math.abs(g[c]) > NEAR * penalty) near.push(c)
      }
      if (violation <= tolerance) return true
      if (this.#task.signal?.aborted) return false
      if (!this.#newton(near, g)) return false
    }
    return false
  }

  // Scores at the current residuals; X'a follows by the rows whose scores changed.
  #activate(): void {
    const { matrix, labels } = this.#task
    const { some, rowValue, ga } = this.#v
    const { rowOf, weights } = labels
    const sum = this.#rowSum.fill(0)
    const curvature = this.#rowCurvature.fill(0)
    const scale = 1 / this.#bandwidth
    for (let i = 0; i < this.#n; i++) {
      let a = this.#centre[i] + this.#residual[i] * scale
      if (a <= 0) a = 0
      else if (a >= 1) a = 1
      else curvature[rowOf[i]] += weights[i]
      this.#score[i] = a
      sum[rowOf[i]] += weights[i] * a
    }
    let changed = 0
    for (let k = 0; k < this.#rows; k++) {
      const by = sum[k] - this.#rowOld[k]
      if (by === 0) continue
      some.values[changed] = labels.rows[k]
      rowValue.values[changed++] = by
      this.#rowOld[k] = sum[k]
    }
    matrix.addTransposed(some, rowValue, changed, ga)
  }

  // X'u of the admitted columns.
  #gradient(): Float64Array {
    const { columns, level } = this.#task
    const { ga, base } = this.#v
    const g = new Float64Array(columns.length)
    for (let c = 0; c < g.length; c++) g[c] = ga.values[columns[c]] - (1 - level) * base.values[columns[c]]
    return g
  }

  // One proximal Newton step on the columns near; false where none is possible.
  #newton(near: readonly number[], g: Float64Array): boolean {
    const { matrix, labels, level, columns, scale } = this.#task
    const { weights, some, rowValue, cols, model, factor, side, pack, step, rows, xp } = this.#v
    const m = near.length
    if (m === 0 || this.#steps++ > this.#budget + INNER_STEPS) return false
    const ld = (m + 3) & ~3
    for (let c = 0; c < ld; c++) cols.values[c] = columns[near[Math.min(c, m - 1)]]
    const { count, factor: sampled, total } = this.#sample(m)
    matrix.gram(some, rowValue, count, cols, ld, model, pack)
    const h = model.values
    const curvature = sampled / this.#bandwidth
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < i; j++) {
        h[i * ld + j] *= curvature
        h[j * ld + i] = h[i * ld + j]
      }
      const all = (scale[cols.values[i]] ** 2 / this.#bandwidth) * Math.max(1e-4, 0.01 * total)
      const own = h[i * ld + i] * curvature
      h[i * ld + i] = own + (RIDGE + this.#damping) * Math.max(own, all)
    }
    const p = solveLassoModel({
      matrix,
      h: model,
      ld,
      g: Float64Array.from(near, (c) => g[c]),
      w: Float64Array.from(near, (c) => weights.values[columns[c]]),
      penalty: Float64Array.from(near, (c) => this.#penalty[columns[c]]),
      factor,
      side,
    })
    step.values.fill(0)
    let decrease = 0
    for (let c = 0; c < m; c++) {
      const j = columns[near[c]]
      step.values[j] = p[c]
      decrease +=
        this.#penalty[j] * (Math.abs(weights.values[j] + p[c]) - Math.abs(weights.values[j])) - g[near[c]] * p[c]
    }
    if (!(decrease < 0)) return false
    matrix.times(rows, this.#rows, step, xp)
    const t = stepLength(
      {
        labels,
        level,
        bandwidth: this.#bandwidth,
        centre: this.#centre,
        residual: this.#residual,
        fitted: xp.values,
        columns,
        penalty: this.#penalty,
        weights: weights.values,
        step: step.values,
      },
      decrease,
    )
    if (!(t > 0)) return false
    for (const c of near) {
      const j = columns[c]
      weights.values[j] += t * step.values[j]
    }
    for (let i = 0; i < this.#n; i++) this.#residual[i] -= t * xp.values[labels.rowOf[i]]
    this.#damping = t < 0.2 ? Math.max(10 * this.#damping, 1e-4) : t === 1 ? this.#damping / 4 : this.#damping
    return true
  }

  // Rows of the Newton model with their curvature, in `some` and `rowValue`; `factor` makes up for those left out.
  #sample(columns: number): { count: number; factor: number; total: number } {
    const { some, rowValue } = this.#v
    const { rows } = this.#task.labels
    const curvature = this.#rowCurvature
    let all = 0
    let total = 0
    for (let k = 0; k < this.#rows; k++) {
      if (curvature[k] > 0) all++
      total += curvature[k]
    }
    const wanted = Math.min(all, Math.max(SAMPLE_ROWS, SAMPLE_PER_COLUMN * columns))
    let count = 0
    let taken = 0
    // Fixed priorities make consecutive samples overlap; ascending order does not matter to the sum's accuracy.
    for (const k of wanted < all ? this.#priority : this.#v.rows.values.keys()) {
      if (curvature[k] <= 0) continue
      some.values[count] = rows[k]
      rowValue.values[count++] = curvature[k]
      taken += curvature[k]
      if (count === wanted) break
    }
    return { count, factor: taken > 0 ? total / taken : 1, total }
  }

  #primal(): number {
    const { labels, level, columns } = this.#task
    let sum = 0
    for (let i = 0; i < this.#n; i++) {
      const r = this.#residual[i]
      sum += labels.weights[i] * r * (r > 0 ? level : level - 1)
    }
    for (const j of columns) sum += this.#penalty[j] * Math.abs(this.#v.weights.values[j])
    return sum
  }

  // A feasible dual from the scores: interior ones take up what an intercept needs, the rest is scaling.
  #bound(): { value: number; dual: Float64Array<ArrayBuffer> } {
    const { labels, level, columns, matrix, penalty, y } = this.#task
    const { weights, rowOf } = labels
    const { some, rowValue, ga, wide } = this.#v
    const dual = this.#score.map((a) => a + level - 1)
    wide.values.set(ga.values)
    if (columns[columns.length - 1] === matrix.columns) {
      let sum = 0
      let room = 0
      for (let i = 0; i < this.#n; i++) {
        sum += weights[i] * dual[i]
        room += weights[i] * this.#score[i] * (1 - this.#score[i])
      }
      const by = room > 0 ? Math.max(-1, Math.min(1, sum / room)) : 0
      let moved = 0
      const rowBy = this.#rowSum.fill(0)
      for (let i = 0; i < this.#n; i++) {
        const d = by * this.#score[i] * (1 - this.#score[i])
        dual[i] -= d
        rowBy[rowOf[i]] -= weights[i] * d
      }
      for (let k = 0; k < this.#rows; k++) {
        if (rowBy[k] === 0) continue
        some.values[moved] = labels.rows[k]
        rowValue.values[moved++] = rowBy[k]
      }
      matrix.addTransposed(some, rowValue, moved, wide)
    }
    let largest = 0
    for (const j of columns) {
      if (j < matrix.columns) {
        largest = Math.max(largest, Math.abs(wide.values[j] - (1 - level) * this.#v.base.values[j]))
      }
    }
    const share = largest > penalty ? penalty / largest : 1
    let value = 0
    for (let i = 0; i < this.#n; i++) {
      dual[i] *= share
      value += weights[i] * dual[i] * y[i]
    }
    return { value, dual }
  }

  // With fewer kinks than non-zero weights the Newton model is singular, so the bandwidth must not shrink that far.
  #hasKinksToSpare(): boolean {
    let kinks = 0
    for (const curvature of this.#rowCurvature) if (curvature > 0) kinks++
    return kinks > SPARE_KINKS * this.#nonzeros()
  }

  #nonzeros(): number {
    let count = 0
    for (const j of this.#task.columns) if (this.#v.weights.values[j] !== 0) count++
    return count
  }

  // The scores become the next centre; where that would leave too few kinks for the support, halfway only.
  #recentre(): void {
    let interior = 0
    for (let i = 0; i < this.#n; i++) if (this.#score[i] > 0 && this.#score[i] < 1) interior++
    const share = interior < 0.7 * this.#nonzeros() ? 0.5 : 1
    for (let i = 0; i < this.#n; i++) this.#centre[i] = 0.5 + share * (this.#score[i] - 0.5)
  }
}

// A fixed permutation of 0 .. count - 1 (linear congruential generator of Numerical Recipes, Fisher-Yates).
function shuffled(count: number): Uint32Array {
  const out = Uint32Array.from({ length: count }, (_, k) => k)
  let state = 1
  for (let k = count - 1; k > 0; k--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const other = Math.floor((state / 2 ** 32) * (k + 1))
    const kept = out[k]
    out[k] = out[other]
    out[other] = kept
  }
  return out
}
