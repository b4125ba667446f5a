// The inner problem of the proximal Newton method, over the labels: residuals, scores, curvatures, and steps along a line.
import type { F64, U32 } from './arena.ts'
import type { Task } from './task.ts'

/** A full step is taken where it brings this share of what the linear model promises, because only it keeps exact zeros. */
const ENOUGH = 0.25
/** Otherwise the slope is brought below this share of its value at 0. */
const FLAT = 1e-2
const TRIALS = 25

/** Value and slope, along the line, of the penalty. */
export type PenaltyAlong = (t: number) => { readonly value: number; readonly slope: number }

/** Vectors over N labels and R rows with labels; see proximal_newton.ts for the problem. */
export class InnerProblem {
  readonly #task: Task
  readonly #n: number
  readonly rows: number
  /** Feature row of each row with labels [R]. */
  readonly names: U32
  readonly residual: F64
  readonly score: F64
  readonly centre: F64
  /** Sum of weight times score over the labels of each row [R], and of the weight of labels inside (0, 1). */
  readonly sum: F64
  readonly curvature: F64
  /** Rows whose sum the last `activate` changed, as positions in `names`, and by how much. */
  readonly changed: U32
  readonly by: F64
  /** X p of the present direction [R]. */
  readonly fitted: F64
  readonly weight: F64
  readonly #offset: F64
  readonly #first: U32
  readonly #line: F64
  readonly #result: F64
  bandwidth = 1

  constructor(task: Task) {
    const { labels, level, levels, matrix } = task
    const { arena } = matrix.team
    const n = labels.values.length
    const rows = labels.rows.length
    this.#task = task
    this.#n = n
    this.rows = rows
    this.names = arena.u32(rows)
    this.residual = arena.f64(n)
    this.score = arena.f64(n)
    this.centre = arena.f64(n)
    this.sum = arena.f64(rows)
    this.curvature = arena.f64(rows)
    this.changed = arena.u32(rows)
    this.by = arena.f64(rows)
    this.fitted = arena.f64(rows)
    this.weight = arena.f64(n)
    this.#offset = arena.f64(n)
    this.#first = arena.u32(rows + 1)
    this.#line = arena.f64(2)
    this.#result = arena.f64(2)
    this.names.values.set(labels.rows)
    this.weight.values.set(labels.weights)
    if (levels) this.#offset.values.set(levels.map((own) => own - 1))
    else this.#offset.values.fill(level - 1)
    const first = this.#first.values
    for (let i = 0; i < n; i++) first[labels.rowOf[i] + 1] = i + 1
  }

  /** Sets residuals for the given predictions [R], centre and bandwidth for a start; `nonzeros` weights are set. */
  begin(predicted: Float64Array, nonzeros: number): void {
    const { y, labels, levels } = this.#task
    const [residual, centre] = [this.residual.values, this.centre.values.fill(0.5)]
    let mean = 0
    for (let i = 0; i < this.#n; i++) {
      residual[i] = y[i] - predicted[labels.rowOf[i]]
      // Floors weigh nothing until they are reached.
      if (levels?.[i] === 1) centre[i] = 0
      else mean += labels.weights[i] * Math.abs(residual[i])
    }
    const real = levels ? residual.filter((_, i) => levels[i] !== 1) : residual
    const sorted = Float64Array.from(real, Math.abs).sort()
    const share = nonzeros > 1 ? Math.min(0.5, (4 * nonzeros) / this.rows) : 0.9
    // The floor keeps ties (0/1 labels around w = 0) from collapsing the bandwidth to nothing.
    this.bandwidth = Math.max(2 * sorted[Math.floor(share * (sorted.length - 1))], 0.2 * mean, 1e-9)
  }

  /** Scores at the present residuals; gives the number of rows in `changed`. */
  activate(): number {
    this.#line.values[0] = 1 / this.bandwidth
    const { kernels } = this.#task.matrix.team
    return kernels.scores(
      this.rows,
      this.#first.at,
      this.residual.at,
      this.centre.at,
      this.score.at,
      this.weight.at,
      this.#line.at,
      this.sum.at,
      this.curvature.at,
      this.changed.at,
      this.by.at,
    )
  }

  /** Goes along `fitted`: the full step where it is good enough, else near the minimiser in (0, 1). Gives the step length. */
  advance(penalty: PenaltyAlong, decrease: number): number {
    const t = this.#stepLength(penalty, decrease)
    if (!(t > 0)) return 0
    this.#line.values[0] = t
    const { kernels } = this.#task.matrix.team
    kernels.advance(this.rows, this.#first.at, this.residual.at, this.fitted.at, this.#line.at)
    return t
  }

  #stepLength(penalty: PenaltyAlong, decrease: number): number {
    const full = this.#along(penalty, 1)
    if (full.slope <= 0) return 1
    const start = this.#along(penalty, 0)
    if (full.value - start.value <= ENOUGH * decrease) return 1
    // False position with the Illinois rule: the end that stays twice counts half.
    let low = 0
    let high = 1
    let below = start.slope
    let above = full.slope
    let side = 0
    for (let trial = 0; trial < TRIALS; trial++) {
      const t = below < 0 ? (low * above - high * below) / (above - below) : 0.5 * (low + high)
      const { slope } = this.#along(penalty, t)
      if (slope <= 0) {
        low = t
        below = slope
        if (side === -1) above /= 2
        side = -1
      } else {
        high = t
        above = slope
        if (side === 1) below /= 2
        side = 1
      }
      if (low > 0 && Math.abs(slope) <= FLAT * Math.abs(start.slope)) break
    }
    return low
  }

  // The inner objective and its right derivative.
  #along(penalty: PenaltyAlong, t: number): { value: number; slope: number } {
    const line = this.#line.values
    line[0] = t
    line[1] = 1 / this.bandwidth
    this.#task.matrix.team.kernels.along(
      this.rows,
      this.#first.at,
      this.residual.at,
      this.centre.at,
      this.weight.at,
      this.#offset.at,
      this.fitted.at,
      this.#line.at,
      this.#result.at,
    )
    const more = penalty(t)
    const [value, slope] = this.#result.values
    return { value: value + more.value, slope: slope + more.slope }
  }

  /** Sum of the weighted pinball losses of the residuals. */
  loss(): number {
    const { level: common, levels } = this.#task
    const [residual, weight] = [this.residual.values, this.weight.values]
    let sum = 0
    for (let i = 0; i < this.#n; i++) {
      const level = levels ? levels[i] : common
      sum += weight[i] * residual[i] * (residual[i] > 0 ? level : level - 1)
    }
    return sum
  }

  /** By how much a prediction is below its floor at most; 0 without floors. */
  excess(): number {
    const { levels } = this.#task
    const residual = this.residual.values
    let largest = 0
    if (levels) for (let i = 0; i < this.#n; i++) if (levels[i] === 1) largest = Math.max(largest, residual[i])
    return largest
  }

  /** The scores become the next centre; where that would leave fewer kinks than `wanted`, halfway only. */
  recentre(wanted: number): void {
    const [score, centre] = [this.score.values, this.centre.values]
    let interior = 0
    for (let i = 0; i < this.#n; i++) if (score[i] > 0 && score[i] < 1) interior++
    const share = interior < wanted ? 0.5 : 1
    const { levels } = this.#task
    for (let i = 0; i < this.#n; i++) centre[i] = levels?.[i] === 1 ? score[i] : 0.5 + share * (score[i] - 0.5)
  }

  /** Number of rows with labels inside (0, 1). */
  kinks(): number {
    let count = 0
    for (const curvature of this.curvature.values) if (curvature > 0) count++
    return count
  }
}
