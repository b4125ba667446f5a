// A feasible point of the dual, and so a lower bound, from the scores of the proximal Newton method.
import type { F64, U32 } from './arena.ts'
import type { InnerProblem } from './inner_problem.ts'
import type { Task } from './task.ts'

export interface DualBound {
  /** The bound; it holds for all columns. */
  readonly value: number
  /** What it would be without the columns that are missing. */
  readonly restricted: number
  /** The feasible point, per unit of weight [N]. */
  readonly dual: Float64Array<ArrayBuffer>
}

/** Working memory: [stride], and [R] twice. */
export interface BoundScratch {
  readonly wide: F64
  readonly rows: U32
  readonly by: F64
}

/** X'u of all columns from ga = X'a and base = X'1, without the floors, whose level is 1. */
export function correlations(ga: Float64Array, base: Float64Array, level: number): Float64Array {
  return base.map((sum, j) => ga[j] - (1 - level) * sum)
}

/** The order of columns by the size of their correlations. */
export function largestFirst(u: Float64Array): (a: number, b: number) => number {
  return (a, b) => Math.abs(u[b]) - Math.abs(u[a]) || a - b
}

/** Interior scores take up what an intercept needs; the rest is scaling. `ga` is X'a at the present scores. */
export function dualBound(
  { labels, level, levels, matrix, penalty, y, intercept }: Task,
  inner: InnerProblem,
  ga: F64,
  base: Float64Array,
  scratch: BoundScratch,
  missing: (column: number) => boolean,
): DualBound {
  const { weights, rowOf } = labels
  const [score, names] = [inner.score.values, inner.names.values]
  const dual = Float64Array.from(score, (a, i) => a + (levels ? levels[i] : level) - 1)
  const wide = scratch.wide.values
  wide.set(ga.values)
  if (intercept) {
    let sum = 0
    let room = 0
    for (let i = 0; i < dual.length; i++) {
      sum += weights[i] * dual[i]
      room += weights[i] * score[i] * (1 - score[i])
    }
    const by = room > 0 ? Math.max(-1, Math.min(1, sum / room)) : 0
    const rowBy = new Float64Array(names.length)
    for (let i = 0; i < dual.length; i++) {
      const d = by * score[i] * (1 - score[i])
      dual[i] -= d
      rowBy[rowOf[i]] -= weights[i] * d
    }
    const [some, someBy] = [scratch.rows.values, scratch.by.values]
    let moved = 0
    for (let k = 0; k < names.length; k++) {
      if (rowBy[k] === 0) continue
      some[moved] = names[k]
      someBy[moved++] = rowBy[k]
    }
    matrix.addTransposed(scratch.rows, scratch.by, moved, scratch.wide)
  }
  const u = correlations(wide, base, level)
  let all = penalty
  let inSet = penalty
  for (let j = 0; j < matrix.columns; j++) {
    const size = Math.abs(u[j])
    if (size > all) all = size
    if (size > inSet && !missing(j)) inSet = size
  }
  let sum = 0
  for (let i = 0; i < dual.length; i++) {
    sum += weights[i] * dual[i] * y[i]
    dual[i] *= penalty / all
  }
  return { value: (sum * penalty) / all, restricted: (sum * penalty) / inSet, dual }
}
