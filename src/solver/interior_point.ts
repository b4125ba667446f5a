// Primal-dual interior point method for L1-penalised quantile regression, all in f64.
//
// Source: Mehrotra 1992 (predictor and corrector); Portnoy and Koenker 1997 (bounded-variable dual of quantile regression).
// The penalty is written as one pseudo-label per column: target 0, row e_j, box [-penalty, penalty]. With A the rows of both
// kinds and t their targets, the dual is  max t'z  subject to  A'z = 0 and lower <= z <= upper, and its multiplier is w.

import type { F64, U32 } from './arena.ts'
import { type BalanceScratch, balanceDual } from './balance.ts'
import { stepLengths } from './step_lengths.ts'
import type { Solution, Task } from './task.ts'

const MAX_ITERATIONS = 100
/** Iterations without progress in the gap before the best point is taken. */
const PATIENCE = 24
/** Steps shorter than this are tried again with more centring. */
const SHORT = 0.1

/** Dual values, of at most 1, are rounded to 0 below this. */
const NOISE = 1e-13
/** Dual of a floor at the start, in units of a label's mean weight: with less, the first steps hit the bound. */
const FLOOR_START = 1
/** What may be left in an unpenalised column, as a share of its terms. */
const BALANCED = 1e-9
/** Rows of the Gram matrix that are packed at a time. */
const BLOCK = 128
/**
 * Solves the task on `columns`, those without penalty first. `before` counts earlier iterations for the progress report.
 * Never throws for a hard problem, but returns the best primal and dual points met; the bound holds for these columns.
 */
export async function interiorPoint(task: Task, columns: Uint32Array, before: number): Promise<Solution> {
  return new InteriorPoint(task, columns, before).solve()
}

type Panels = { readonly cols: U32; readonly left: number; readonly right: number }

class InteriorPoint {
  readonly #task: Task
  readonly #labels: number
  /** Columns without penalty come first: behind columns that span them, rounding would stop them. */
  readonly #free: number
  /** Column of each pseudo-label. */
  readonly #penalised: Uint32Array
  readonly #size: number
  readonly #width: number
  // Per label and pseudo-label: distance to either bound (dual), and the two parts of the residual (primal).
  readonly #target: Float64Array
  readonly #weight: Float64Array
  readonly #level: Float64Array
  readonly #up: Float64Array
  readonly #down: Float64Array
  readonly #above: Float64Array
  readonly #below: Float64Array
  readonly #dz: Float64Array
  readonly #dAbove: Float64Array
  readonly #dBelow: Float64Array
  readonly #q: Float64Array
  readonly #rhs: Float64Array
  readonly #fit: Float64Array
  readonly #columns: Uint32Array
  readonly #v: BalanceScratch & Record<'gram' | 'step' | 'rowQ' | 'weights', F64> & Panels

  readonly #before: number

  constructor(task: Task, columns: Uint32Array, before: number) {
    const { matrix, labels, penalty, level, levels } = task
    this.#before = before
    this.#columns = columns
    const n = labels.values.length
    this.#task = task
    this.#labels = n
    this.#penalised = columns.filter((j) => penalty > 0 && j < matrix.columns)
    this.#free = columns.length - this.#penalised.length
    this.#size = n + this.#penalised.length
    this.#width = (columns.length + 3) & ~3
    const vector = () => new Float64Array(this.#size)
    this.#target = vector()
    this.#target.set(task.y)
    this.#weight = new Float64Array(this.#size).fill(2 * penalty)
    this.#weight.set(labels.weights)
    this.#level = new Float64Array(this.#size).fill(0.5)
    this.#level.set(levels ?? new Float64Array(n).fill(level))
    // The dual starts at 0, that of a floor just inside.
    const inside = (i: number) => (levels?.[i] === 1 ? FLOOR_START / n : 0)
    this.#up = this.#weight.map((w, i) => w * this.#level[i] - inside(i))
    this.#down = this.#weight.map((w, i) => w * (1 - this.#level[i]) + inside(i))
    this.#above = vector()
    this.#below = vector()
    this.#dz = vector()
    this.#dAbove = vector()
    this.#dBelow = vector()
    this.#q = vector()
    this.#rhs = vector()
    this.#fit = vector()
    const rows = labels.rows.length
    const width = this.#width
    const { arena, kernels } = matrix.team
    const panel = kernels.gram_panel_bytes(width, BLOCK)
    this.#v = {
      gram: arena.f64(width * width),
      step: arena.f64(width),
      rowQ: arena.f64(rows),
      rowValue: arena.f64(rows),
      wide: arena.f64(matrix.stride),
      weights: arena.f64(matrix.stride),
      dual: arena.f64(matrix.stride),
      rows: arena.u32(rows),
      cols: arena.u32(width),
      left: arena.take(panel),
      right: arena.take(panel),
    }
    this.#v.rows.values.set(labels.rows)
    // Positions beyond the real columns must name a column of zeros; where none exists their rows and columns are never read.
    this.#v.cols.values.fill(columns[0] ?? 0)
    this.#v.cols.values.set(columns)
  }

  async solve(): Promise<Solution> {
    const task = this.#task
    task.phases.enter('interior point')
    this.#start()
    let bestPrimal = Number.POSITIVE_INFINITY
    let bestDual = Number.NEGATIVE_INFINITY
    let weights = this.#v.weights.values.slice()
    let dual = new Float64Array(this.#labels)
    let iteration = 0
    let since = 0
    for (; iteration < MAX_ITERATIONS; iteration++) {
      const before = bestPrimal - bestDual
      const objective = this.#residuals()
      if (objective < bestPrimal) {
        bestPrimal = objective
        weights = this.#v.weights.values.slice()
      }
      const bound = this.#bound()
      if (bound.value > bestDual) {
        bestDual = bound.value
        dual = this.#unitDual(bound.share)
      }
      const gap = bestPrimal - bestDual
      if (gap <= task.tolerance * bestPrimal || gap <= task.floor) break
      since = gap < 0.9 * before || bestDual === Number.NEGATIVE_INFINITY ? 0 : since + 1
      const relative = Number.isFinite(gap) ? gap / bestPrimal : 1
      await task.pause({
        gap: relative,
        nonzeros: this.#columns.length - (task.intercept ? 1 : 0),
        iterations: this.#before + iteration,
      })
      if (
        since > (gap <= task.enough * bestPrimal ? 2 : PATIENCE) ||
        !Number.isFinite(objective) ||
        task.signal?.aborted
      )
        break
      if (!this.#iterate()) break
    }
    if (task.penalty === 0) {
      balanceDual(task, this.#columns, this.#level, dual, this.#v, (q) => this.#solveFor(q))
    }
    return { weights, dual, objective: bestPrimal, bound: bestDual, iterations: iteration }
  }

  // Solves for the step that takes what is left in `dual` out of the columns, in the metric of q.
  #solveFor(q: Float64Array): void {
    const { step, gram, dual, wide } = this.#v
    this.#q.set(q)
    this.#factor()
    this.#columns.forEach((j, c) => {
      step.values[c] = dual.values[j]
    })
    this.#task.matrix.team.kernels.solve(gram.at, this.#columns.length, this.#width, step.at)
    this.#spread(wide.values)
  }

  // A ridge regression with the weights of the central path gives w; the dual starts at 0, which is feasible.
  #start(): void {
    const { y, matrix } = this.#task
    const scale = matrix.scale.values
    const n = this.#labels
    let size = 0
    for (let i = 0; i < n; i++) if (this.#level[i] < 1) size += this.#weight[i] * Math.abs(y[i])
    size = Math.max(size, 1e-6)
    for (let i = 0; i < this.#size; i++) {
      const unit = i < n ? size : size / scale[this.#penalised[i - n]]
      this.#q[i] = (this.#up[i] * this.#down[i]) / (unit * (this.#up[i] + this.#down[i]))
    }
    this.#factor()
    for (let i = 0; i < this.#size; i++) this.#rhs[i] = this.#q[i] * this.#target[i]
    this.#direction()
    this.#spread(this.#v.weights.values)
    this.#residuals()
    let spread = 0
    for (let i = 0; i < n; i++) if (this.#level[i] < 1) spread += this.#weight[i] * Math.abs(this.#fit[i])
    const slack = Math.max(spread, 1e-3 * size)
    let typical = 0
    for (let i = 0; i < n; i++) if (this.#level[i] < 1) typical += this.#weight[i] * this.#weight[i]
    for (let i = 0; i < this.#size; i++) {
      const centre = i < n && this.#level[i] < 1 ? slack : (slack * typical) / this.#weight[i]
      this.#above[i] = Math.max(this.#fit[i], 0) + centre
      this.#below[i] = Math.max(-this.#fit[i], 0) + centre
    }
  }

  // fit = target - A w for labels and pseudo-labels; returns the objective at w.
  #residuals(): number {
    const { matrix, labels } = this.#task
    const n = this.#labels
    const { weights, rowValue, rows } = this.#v
    matrix.times(rows, labels.rows.length, weights.values, rowValue)
    const xw = rowValue.values
    const rowOf = labels.rowOf
    let objective = 0
    for (let i = 0; i < n; i++) {
      const r = this.#target[i] - xw[rowOf[i]]
      this.#fit[i] = r
      objective += this.#weight[i] * r * (r > 0 ? this.#level[i] : this.#level[i] - 1)
    }
    for (let i = n; i < this.#size; i++) {
      const w = weights.values[this.#penalised[i - n]]
      this.#fit[i] = -w
      objective += 0.5 * this.#weight[i] * Math.abs(w)
    }
    return objective
  }

  // The bound is y'z scaled until no column exceeds its penalty.
  #bound(): { value: number; share: number } {
    const { penalty, y, levels, matrix } = this.#task
    const dual = this.#v.dual.values
    this.#correlate()
    let largest = 0
    for (const j of this.#penalised) largest = Math.max(largest, Math.abs(dual[j]))
    const share = largest > penalty && penalty > 0 ? penalty / largest : 1
    let value = 0
    let size = 0
    for (let i = 0; i < this.#labels; i++) {
      value += this.#dual(i) * y[i]
      size += Math.abs(this.#dual(i))
    }
    // With floors the dual starts off balance; until that is made up for, there is no bound.
    if (levels) {
      for (const j of this.#columns.subarray(0, this.#free))
        if (Math.abs(dual[j]) > BALANCED * size * matrix.scale.values[j])
          return { value: Number.NEGATIVE_INFINITY, share }
    }
    return { value: value * share, share }
  }

  // dual = X'z.
  #correlate(): void {
    const { matrix, labels } = this.#task
    const { rowValue, dual, rows } = this.#v
    rowValue.values.fill(0)
    for (let i = 0; i < this.#labels; i++) rowValue.values[labels.rowOf[i]] += this.#dual(i)
    dual.values.fill(0)
    matrix.addTransposed(rows, rowValue, labels.rows.length, dual)
  }

  // One predictor-corrector step; false where no step is possible any more.
  #iterate(): boolean {
    const n = this.#size
    let mu = 0
    for (let i = 0; i < n; i++) {
      this.#q[i] = 1 / (this.#above[i] / this.#up[i] + this.#below[i] / this.#down[i])
      mu += this.#above[i] * this.#up[i] + this.#below[i] * this.#down[i]
    }
    mu /= 2 * n
    this.#factor()
    this.#newton(0, false)
    const [primal, dual] = this.#lengths(1)
    let predicted = 0
    for (let i = 0; i < n; i++) {
      predicted += (this.#above[i] + primal * this.#dAbove[i]) * (this.#up[i] - dual * this.#dz[i])
      predicted += (this.#below[i] + primal * this.#dBelow[i]) * (this.#down[i] + dual * this.#dz[i])
    }
    predicted /= 2 * n
    this.#newton(mu * (predicted / mu) ** 3, true)
    let [alongPrimal, alongDual] = this.#lengths(0.9995)
    if (Math.min(alongPrimal, alongDual) < SHORT) {
      // Badly centred: a step back towards the centre may be longer.
      this.#newton(0.5 * mu, false)
      const [centredPrimal, centredDual] = this.#lengths(0.9995)
      if (Math.min(centredPrimal, centredDual) > Math.min(alongPrimal, alongDual)) {
        alongPrimal = centredPrimal
        alongDual = centredDual
      } else {
        this.#newton(0, false)
        this.#newton(mu * (predicted / mu) ** 3, true)
      }
    }
    if (!(alongPrimal > 1e-12 || alongDual > 1e-12)) return false
    const weights = this.#v.weights.values
    const step = this.#v.wide.values
    for (let j = 0; j < weights.length; j++) weights[j] += alongPrimal * step[j]
    for (let i = 0; i < n; i++) {
      this.#above[i] += alongPrimal * this.#dAbove[i]
      this.#below[i] += alongPrimal * this.#dBelow[i]
      this.#up[i] -= alongDual * this.#dz[i]
      this.#down[i] += alongDual * this.#dz[i]
    }
    return true
  }

  // Newton direction for centring `mu`, with the second-order terms of the previous direction if `correct`.
  #newton(mu: number, correct: boolean): void {
    const n = this.#size
    for (let i = 0; i < n; i++) {
      const second = correct ? this.#dz[i] : 0
      const a = (mu + second * this.#dAbove[i]) / this.#up[i]
      const b = (mu - second * this.#dBelow[i]) / this.#down[i]
      // dAbove and dBelow keep the constant part of their step until dz is known.
      this.#dAbove[i] = a - this.#above[i]
      this.#dBelow[i] = b - this.#below[i]
      const gap = this.#fit[i] - this.#above[i] + this.#below[i]
      this.#rhs[i] = this.#q[i] * (gap - this.#dAbove[i] + this.#dBelow[i])
    }
    this.#direction()
    const { matrix, labels } = this.#task
    const { wide, rowValue, rows } = this.#v
    this.#spread(wide.values)
    matrix.times(rows, labels.rows.length, wide.values, rowValue)
    const rowOf = labels.rowOf
    for (let i = 0; i < n; i++) {
      const moved = i < this.#labels ? rowValue.values[rowOf[i]] : wide.values[this.#penalised[i - this.#labels]]
      const dz = this.#rhs[i] - this.#q[i] * moved
      this.#dz[i] = dz
      this.#dAbove[i] += (this.#above[i] / this.#up[i]) * dz
      this.#dBelow[i] -= (this.#below[i] / this.#down[i]) * dz
    }
  }

  // step = (A' diag(q) A)^-1 (A' rhs + A'z), the last term wiping out what rounding left of A'z.
  #direction(): void {
    const { matrix, labels } = this.#task
    const columns = this.#columns
    const { rowValue, wide, rows, step, gram, dual } = this.#v
    const n = this.#labels
    const rowOf = labels.rowOf
    rowValue.values.fill(0)
    for (let i = 0; i < n; i++) rowValue.values[rowOf[i]] += this.#rhs[i]
    wide.values.fill(0)
    matrix.addTransposed(rows, rowValue, labels.rows.length, wide)
    const free = this.#free
    for (let c = 0; c < columns.length; c++) {
      let sum = wide.values[columns[c]] + dual.values[columns[c]]
      if (c >= free) sum += this.#rhs[n + c - free] + this.#dual(n + c - free)
      step.values[c] = sum
    }
    matrix.team.kernels.solve(gram.at, columns.length, this.#width, step.at)
  }

  #factor(): void {
    const { matrix, labels } = this.#task
    const columns = this.#columns
    const { rowQ, rows, cols, gram, left, right } = this.#v
    const rowOf = labels.rowOf
    rowQ.values.fill(0)
    for (let i = 0; i < this.#labels; i++) rowQ.values[rowOf[i]] += this.#q[i]
    gram.values.fill(0)
    const [count, width] = [labels.rows.length, this.#width]
    for (let from = 0; from < count; from += BLOCK) {
      const block = Math.min(BLOCK, count - from)
      matrix.gramPack(rows.at + 4 * from, rowQ.at + 8 * from, block, cols, left, right, width)
      matrix.team.run('gram_tiles', [left, right, block, width, gram.at], width / 4, width > 64 ? 4 : width)
    }
    const free = this.#free
    for (let c = 0; c < columns.length; c++) {
      if (c >= free) gram.values[c * this.#width + c] += this.#q[this.#labels + c - free]
    }
    matrix.team.kernels.cholesky(gram.at, columns.length, width)
  }

  #spread(to: Float64Array): void {
    const columns = this.#columns
    to.fill(0)
    for (let c = 0; c < columns.length; c++) to[columns[c]] = this.#v.step.values[c]
  }

  #lengths(share: number): [number, number] {
    const point = { above: this.#above, below: this.#below, up: this.#up, down: this.#down }
    return stepLengths(point, this.#dAbove, this.#dBelow, this.#dz, share)
  }

  // z from whichever bound is nearer, where it carries more digits.
  #dual(i: number): number {
    const level = this.#level[i]
    const weight = this.#weight[i]
    return this.#up[i] < this.#down[i] ? level * weight - this.#up[i] : this.#down[i] - (1 - level) * weight
  }

  #unitDual(share: number): Float64Array<ArrayBuffer> {
    const out = new Float64Array(this.#labels)
    for (let i = 0; i < out.length; i++) {
      const value = (share * this.#dual(i)) / this.#weight[i]
      // What is 0 but for rounding must be 0, or an unpenalised column that has no other label never balances.
      if (Math.abs(value) > NOISE) out[i] = value
    }
    return out
  }
}
