// Dual proximal-point method (augmented Lagrangian) with proximal Newton steps for L1-penalised quantile regression.
//
// Source: Li, Sun and Toh 2018 (augmented Lagrangian with Newton for the lasso), here with the pinball loss. In rank scores
// a = u + 1 - level, 0 <= a <= 1, the inner problem for centre c and bandwidth h is
//
//   min over w   sum_i weight_i max_a [ (a + level - 1) r_i - h / 2 (a - c_i)^2 ] + penalty |w|_1      r = y - X w
//
// whose gradient needs X only where a changes, and whose Hessian only rows with 0 < a < 1 and columns near the penalty. Columns
// come from a working set, to which exact pricing over all columns adds.
import type { F64 } from './arena.ts'
import { type BoundScratch, correlations, type DualBound, dualBound, largestFirst } from './dual_bound.ts'
import { InnerProblem } from './inner_problem.ts'
import { LassoModel } from './lasso_model.ts'
import { NewtonMatrix } from './newton_matrix.ts'
import type { Solution, Task } from './task.ts'
import { LANES, NO_COLUMN, WorkingSet } from './working_set.ts'

/** Columns whose correlation exceeds this share of the penalty enter the Newton model beside the non-zero ones. */
const NEAR = 0.8
const INNER_STEPS = 30
const OUTER_STEPS = 60
/** Additions of columns for one centre and bandwidth. */
const ADDITIONS = 6
/** At least this many columns may join the working set at a time. */
const ADD_AT_ONCE = 200
/** Outer steps without progress in the gap before the method gives up. */
const PATIENCE = 5
const RIDGE = 1e-7
/** Below this tolerance, f32 sums of X p are not good enough. */
const WIDE_BELOW = 1e-5

/** Solves the task from `start` (weights [stride], 0 if absent). Gives up, with its best points, where Newton steps run out. */
export async function proximalNewton(task: Task, base: F64, start?: Float64Array): Promise<Solution> {
  const { arena } = task.matrix.team
  const mark = arena.mark()
  try {
    return await new ProximalNewton(task, base).solve(start)
  } finally {
    arena.release(mark)
  }
}

class ProximalNewton {
  readonly #task: Task
  readonly #n: number
  readonly #budget: number
  readonly #inner: InnerProblem
  readonly #set: WorkingSet
  readonly #newtonMatrix: NewtonMatrix
  readonly #model: LassoModel
  /** X'1 (weighted), so that X'u = X'a - (1 - level) base. */
  readonly #base: Float64Array
  /** X'a over all columns as of the last pricing, for the sums in `#priced`. */
  readonly #ga: F64
  readonly #priced: Float64Array
  readonly #scratch: BoundScratch
  /** Weights by slot, in the units of the scaled columns. */
  readonly #w: Float64Array
  readonly #penalty: Float64Array
  /** Columns that the last pricing added. */
  #fresh: ReadonlySet<number> = new Set()
  #damping = 0
  #steps = 0

  constructor(task: Task, base: F64) {
    const { matrix, labels, phases } = task
    const { arena } = matrix.team
    this.#task = task
    this.#n = labels.values.length
    this.#budget = task.tolerance < 1e-5 ? 400 : 200
    this.#base = base.values.slice()
    this.#inner = new InnerProblem(task)
    const rows = labels.rows.length
    this.#ga = arena.f64(matrix.stride)
    this.#scratch = { wide: arena.f64(matrix.stride), rows: arena.u32(rows), by: arena.f64(rows) }
    this.#priced = new Float64Array(rows)
    this.#set = new WorkingSet(matrix, this.#inner.names, rows)
    const capacity = ((matrix.columns + 8) & ~7) + 72
    this.#newtonMatrix = new NewtonMatrix(matrix.team, this.#set, rows, capacity, task.device)
    this.#model = new LassoModel(matrix.team, phases, capacity)
    this.#w = new Float64Array(this.#set.capacity)
    this.#penalty = new Float64Array(this.#set.capacity).fill(1)
  }

  async solve(start?: Float64Array): Promise<Solution> {
    const { tolerance, floor, signal, phases, levels, slack = 0 } = this.#task
    phases.enter('start')
    this.#begin(start)
    let objective = Number.POSITIVE_INFINITY
    let bound = Number.NEGATIVE_INFINITY
    let best = this.#weights()
    let dual = new Float64Array(this.#n)
    let since = 0
    let gap = 1
    let excess = Number.POSITIVE_INFINITY
    for (let outer = 0; outer < OUTER_STEPS; outer++) {
      const before = this.#steps
      const solved = await this.#solveInner(Math.max(Math.min(0.3, 0.2 * gap), 0.3 * tolerance), gap)
      phases.enter('bound')
      const primal = this.#primal()
      // With floors the latest weights are the ones that break them least.
      if (primal < objective || levels) {
        objective = primal
        best = this.#weights()
      }
      const lower = this.#bound()
      if (lower.value > bound) {
        bound = lower.value
        dual = lower.dual
      }
      const reached = objective - bound
      const above = excess
      excess = this.#inner.excess()
      const settled = excess <= slack
      if (settled && (reached <= tolerance * objective || reached <= floor)) break
      // What the gap would be without the columns that were found missing just now.
      const restricted = Math.max(0, objective - lower.restricted) / objective
      const progress = restricted < 0.9 * gap || (!settled && excess < 0.7 * above)
      since = progress || outer === 0 ? 0 : since + 1
      gap = Math.min(gap, restricted)
      if (since > PATIENCE || this.#steps > this.#budget || signal?.aborted) break
      await this.#rest(reached / objective)
      if (solved && settled && restricted <= tolerance) continue
      this.#inner.recentre(0.7 * this.#nonzeros())
      if (!solved) this.#inner.bandwidth *= 4
      else if (this.#steps - before <= 12 && this.#hasEnoughKinks()) this.#inner.bandwidth *= 0.5
    }
    return { weights: best, dual, objective, bound, iterations: this.#steps }
  }

  #begin(start: Float64Array | undefined): void {
    const { matrix, penalty, intercept } = this.#task
    const inner = this.#inner
    const support: number[] = []
    if (intercept) support.push(matrix.columns)
    for (let j = 0; j < matrix.columns; j++) if (start && start[j] !== 0) support.push(j)
    const fitted = inner.fitted
    if (start) matrix.times(inner.names, inner.rows, start, fitted)
    inner.begin(fitted.values, support.length)
    inner.activate()
    this.#price()
    const u = correlations(this.#ga.values, this.#base, this.#task.level)
    const free: number[] = []
    for (let j = 0; j < matrix.columns; j++) if (!start?.[j] && Math.abs(u[j]) > NEAR * penalty) free.push(j)
    free.sort(largestFirst(u))
    this.#add([...support, ...free.slice(0, Math.max(ADD_AT_ONCE, support.length))])
    if (start)
      for (const j of support) this.#w[this.#set.slotOf[j]] = start[j] / this.#set.scale.values[this.#set.slotOf[j]]
  }

  #add(columns: readonly number[]): void {
    if (columns.length === 0) return
    const { matrix, penalty, phases } = this.#task
    const before = phases.enter('gather')
    const set = this.#set
    const first = set.slots
    set.add(columns)
    const [gradient, ga, scale] = [set.gradient.values, this.#ga.values, set.scale.values]
    for (let slot = first; slot < set.slots; slot++) {
      const column = set.columnOf[slot]
      if (column === NO_COLUMN) continue
      gradient[slot] = ga[column]
      this.#penalty[slot] = column === matrix.columns ? 0 : penalty * scale[slot]
    }
    phases.enter(before)
  }

  // Newton steps for one centre and bandwidth, with columns added until none is missing.
  async #solveInner(tolerance: number, gap: number): Promise<boolean> {
    const { tolerance: wanted } = this.#task
    let solved = false
    for (let addition = 0; addition <= ADDITIONS; addition++) {
      solved = await this.#newtonSteps(tolerance, gap)
      this.#price()
      const { missing, more } = this.#violators(1 + 0.3 * wanted)
      this.#fresh = new Set(missing)
      this.#add([...missing, ...more])
      if (missing.length <= 0.02 * this.#set.slots || !solved) break
    }
    return solved
  }

  async #newtonSteps(tolerance: number, gap: number): Promise<boolean> {
    const { signal, phases, penalty: unit } = this.#task
    const set = this.#set
    const w = this.#w
    this.#damping = 0
    for (let step = 0; step < INNER_STEPS; step++) {
      phases.enter('scores')
      const changed = this.#inner.activate()
      phases.enter('gradient')
      set.addTransposed(this.#inner.changed, this.#inner.by, changed)
      const g = this.#gradient()
      let violation = 0
      const near: number[] = []
      for (let slot = 0; slot < set.slots; slot++) {
        const penalty = this.#penalty[slot]
        const size = Math.abs(g[slot])
        const excess = w[slot] !== 0 ? Math.abs(g[slot] - penalty * Math.sign(w[slot])) : size - penalty
        violation = Math.max(violation, excess / (penalty || unit))
        if (w[slot] !== 0 || size > NEAR * penalty) near.push(slot)
      }
      if (violation <= tolerance) return true
      await this.#rest(gap)
      if (signal?.aborted) return false
      if (!(await this.#newton(near, g))) return false
    }
    return false
  }

  // X'u of the slots, in their scaled units.
  #gradient(): Float64Array {
    const set = this.#set
    const [gradient, scale] = [set.gradient.values, set.scale.values]
    const rest = 1 - this.#task.level
    const g = new Float64Array(set.slots)
    for (let slot = 0; slot < g.length; slot++) {
      const column = set.columnOf[slot]
      if (column !== NO_COLUMN) g[slot] = (gradient[slot] - rest * this.#base[column]) * scale[slot]
    }
    return g
  }

  // One proximal Newton step on the columns near; false where none is possible.
  async #newton(near: readonly number[], g: Float64Array): Promise<boolean> {
    const { matrix, phases } = this.#task
    const set = this.#set
    const inner = this.#inner
    if (near.length === 0 || this.#steps++ > this.#budget + INNER_STEPS) return false
    phases.enter('gram')
    const newton = this.#newtonMatrix
    const { factor, total } = await newton.update(near, inner.curvature.values)
    phases.enter('model')
    // The whole model is divided by this.
    const curvature = factor / inner.bandwidth
    const { ridge, penalty, weight } = this.#model
    const { size, ld, at } = newton
    const matrixValues = new Float32Array(matrix.team.arena.memory.buffer, at, size * ld)
    const slots = newton.slots.values
    const modelG = new Float64Array(size)
    for (let i = 0; i < size; i++) {
      const slot = slots[i]
      const real = slot < set.slots
      const own = matrixValues[i * ld + i]
      // Columns are scaled to a mean square near 1.
      const all = Math.max(1e-4, 0.01 * total) / factor
      ridge.values[i] = real ? (RIDGE + this.#damping) * Math.max(own, all) : 0
      penalty.values[i] = real ? this.#penalty[slot] / curvature : 1
      weight.values[i] = real ? this.#w[slot] : 0
      modelG[i] = real ? g[slot] / curvature : 0
    }
    const p = this.#model.solve(newton, modelG)
    const step = set.step.values.fill(0)
    const moved: number[] = []
    let decrease = 0
    for (let i = 0; i < size; i++) {
      const slot = slots[i]
      if (slot >= set.slots || p[i] === 0) continue
      step[slot] = p[i]
      moved.push(slot)
      decrease += this.#penalty[slot] * (Math.abs(this.#w[slot] + p[i]) - Math.abs(this.#w[slot])) - g[slot] * p[i]
    }
    if (!(decrease < 0)) return false
    phases.enter('times')
    set.times(inner.fitted, this.#task.tolerance < WIDE_BELOW)
    phases.enter('line')
    const t = inner.advance((length) => this.#penaltyAlong(moved, length), decrease)
    if (!(t > 0)) return false
    for (const slot of moved)
      this.#w[slot] = step[slot] === -this.#w[slot] && t === 1 ? 0 : this.#w[slot] + t * step[slot]
    this.#damping = t < 0.2 ? Math.max(10 * this.#damping, 1e-4) : t === 1 ? this.#damping / 4 : this.#damping
    return true
  }

  #penaltyAlong(moved: readonly number[], t: number): { value: number; slope: number } {
    const step = this.#set.step.values
    let value = 0
    let slope = 0
    for (const slot of moved) {
      const p = step[slot]
      const z = this.#w[slot] + t * p
      value += this.#penalty[slot] * Math.abs(z)
      slope += this.#penalty[slot] * (z === 0 ? Math.abs(p) : p * Math.sign(z))
    }
    return { value, slope }
  }

  // Brings X'a over all columns up to date, by the rows whose scores changed since the last time.
  #price(): void {
    const { matrix, phases } = this.#task
    const before = phases.enter('price')
    const [sum, names] = [this.#inner.sum.values, this.#inner.names.values]
    const { rows, by: sums } = this.#scratch
    const [some, someBy] = [rows.values, sums.values]
    let count = 0
    for (let k = 0; k < sum.length; k++) {
      const by = sum[k] - this.#priced[k]
      if (by === 0) continue
      some[count] = names[k]
      someBy[count++] = by
      this.#priced[k] = sum[k]
    }
    matrix.addTransposed(rows, sums, count, this.#ga)
    phases.enter(before)
  }

  // Columns outside the working set whose correlation exceeds the penalty by this factor, the largest first.
  #violators(factor: number): { missing: number[]; more: number[] } {
    const { matrix, penalty } = this.#task
    const u = correlations(this.#ga.values, this.#base, this.#task.level)
    const others: number[] = []
    let found = 0
    for (let j = 0; j < matrix.columns; j++) {
      if (this.#set.slotOf[j] >= 0 || Math.abs(u[j]) <= NEAR * penalty) continue
      others.push(j)
      if (Math.abs(u[j]) > factor * penalty) found++
    }
    others.sort(largestFirst(u))
    const count = Math.min(found, Math.max(ADD_AT_ONCE, this.#set.slots))
    // Columns come in blocks: what is left of the last one goes to those that are nearest to being missed.
    return { missing: others.slice(0, count), more: others.slice(count, Math.ceil(count / LANES) * LANES) }
  }

  #primal(): number {
    let sum = this.#inner.loss()
    for (let slot = 0; slot < this.#set.slots; slot++) sum += this.#penalty[slot] * Math.abs(this.#w[slot])
    return sum
  }

  #bound(): DualBound {
    const missing = (j: number) => this.#set.slotOf[j] < 0 || this.#fresh.has(j)
    return dualBound(this.#task, this.#inner, this.#ga, this.#base, this.#scratch, missing)
  }

  // With fewer kinks than non-zero weights the Newton model is singular, so the bandwidth must not shrink that far.
  #hasEnoughKinks(): boolean {
    return this.#inner.kinks() > this.#nonzeros()
  }

  // Lets the event loop run, and says how far this has come; an intercept does not count as a weight.
  #rest(gap: number): Promise<void> {
    const constant = this.#w[this.#set.slotOf[this.#task.matrix.columns]] ?? 0
    const nonzeros = this.#nonzeros() - (constant !== 0 ? 1 : 0)
    return this.#task.pause({ gap, nonzeros, iterations: this.#steps })
  }

  #nonzeros(): number {
    let count = 0
    for (const w of this.#w) if (w !== 0) count++
    return count
  }

  // Weights by column, in the units of the features.
  #weights(): Float64Array {
    const out = new Float64Array(this.#task.matrix.stride)
    const scale = this.#set.scale.values
    for (let slot = 0; slot < this.#set.slots; slot++) {
      const column = this.#set.columnOf[slot]
      if (column !== NO_COLUMN) out[column] = this.#w[slot] * scale[slot]
    }
    return out
  }
}
