// The interior point method for many columns: on a growing set of them, found by pricing all.
import { largestFirst } from './dual_bound.ts'
import { interiorPoint } from './interior_point.ts'
import { weightedQuantile } from './labels.ts'
import type { Solution, Task } from './task.ts'

/** Up to this many columns all are solved for at once; beyond, those that matter are found by pricing. */
const WHOLE = 384
/** At least this many columns join at a time. */
const ADD_AT_ONCE = 128
const ROUNDS = 30

/**
 * Solves the task; never throws for a hard problem, but returns the best primal and dual points met. With many columns it works
 * on a growing set of them, which starts with `columns`.
 */
export async function searchColumns(task: Task, columns: readonly number[] = []): Promise<Solution> {
  const { matrix, penalty, intercept } = task
  const { arena } = matrix.team
  const scale = matrix.scale.values
  const every: number[] = []
  for (let j = 0; j < matrix.columns; j++) if (scale[j] > 0) every.push(j)
  let iterations = 0
  const solve = async (chosen: readonly number[]): Promise<Solution> => {
    const mark = arena.mark()
    try {
      const sorted = [...chosen].sort((a, b) => a - b)
      if (intercept) sorted.unshift(matrix.columns)
      return await interiorPoint(task, Uint32Array.from(sorted), iterations)
    } finally {
      arena.release(mark)
    }
  }
  if (penalty === 0) return solve(every)
  const mark = arena.mark()
  try {
    const price = pricer(task)
    const set = new Set(columns)
    let best: Solution | undefined
    for (let round = 0; round < ROUNDS; round++) {
      const solution: Solution = round > 0 ? await solve([...set]) : emptySolution(task)
      iterations += solution.iterations
      const u = price(solution.dual)
      let largest = 0
      for (const j of every) largest = Math.max(largest, Math.abs(u[j]))
      const share = largest > penalty ? penalty / largest : 1
      const bound = solution.bound * share
      // The restricted optimum falls, the bound of all columns rises, but not in every round.
      const keep = best && best.bound > bound ? best : { bound, dual: solution.dual.map((value) => value * share) }
      const point = best && best.objective < solution.objective ? best : solution
      best = { ...point, bound: keep.bound, dual: keep.dual, iterations }
      const gap = best.objective - best.bound
      if (gap <= task.tolerance * best.objective || gap <= task.floor || task.signal?.aborted) break
      if (every.length <= WHOLE) for (const j of every) set.add(j)
      const missing = every.filter((j) => !set.has(j) && Math.abs(u[j]) > penalty * (1 + 0.1 * task.tolerance))
      if (missing.length === 0 && round > 0) break
      missing.sort(largestFirst(u))
      for (const j of missing.slice(0, Math.max(ADD_AT_ONCE, set.size >> 1))) set.add(j)
    }
    return { ...(best as Solution), iterations }
  } finally {
    arena.release(mark)
  }
}

// Computes X'u of all columns from dual values per unit of weight.
function pricer({ matrix, labels }: Task): (dual: Float64Array) => Float64Array {
  const { arena } = matrix.team
  const [rows, sums, out] = [arena.u32(labels.rows.length), arena.f64(labels.rows.length), arena.f64(matrix.stride)]
  rows.values.set(labels.rows)
  return (dual) => {
    const values = sums.values.fill(0)
    for (let i = 0; i < dual.length; i++) values[labels.rowOf[i]] += labels.weights[i] * dual[i]
    out.values.fill(0)
    matrix.addTransposed(rows, sums, labels.rows.length, out)
    return out.values.slice()
  }
}

// No weights but the best constant, and the dual that belongs to them: labels at the constant share what balances the others.
function emptySolution({ matrix, labels, y, level, levels, intercept }: Task): Solution {
  const weights = new Float64Array(matrix.stride)
  if (levels) {
    // Under floors nothing is that simple; this only ranks the columns.
    const dual = y.map((value, i) => (levels[i] === 1 ? 0 : value > 0 ? level : level - 1))
    return { weights, dual, objective: Number.MAX_VALUE, bound: 0, iterations: 0 }
  }
  const constant = intercept ? weightedQuantile(y, labels.weights, level) : 0
  if (intercept) weights[matrix.columns] = constant
  let sum = 0
  let tied = 0
  for (let i = 0; i < y.length; i++) {
    if (y[i] === constant) tied += labels.weights[i]
    else sum += labels.weights[i] * (y[i] > constant ? level : level - 1)
  }
  const middle = intercept && tied > 0 ? Math.min(level, Math.max(level - 1, -sum / tied)) : 0
  const dual = y.map((value) => (value > constant ? level : value < constant ? level - 1 : middle))
  let objective = 0
  let bound = 0
  for (let i = 0; i < y.length; i++) {
    const r = y[i] - constant
    objective += labels.weights[i] * r * (r > 0 ? level : level - 1)
    bound += labels.weights[i] * dual[i] * y[i]
  }
  return { weights, dual, objective, bound, iterations: 0 }
}
