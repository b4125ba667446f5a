// Columns without a penalty must have X'u = 0 in the dual; scaling, which mends penalised ones, cannot give them that.
import type { F64, U32 } from './arena.ts'
import type { Task } from './task.ts'

const ROUNDS = 6
/** What balancing is content with, relative to the terms of a column. */
const RESIDUE = 1e-12

/** Working memory: rows with labels [R] and a value for each, and two vectors over the columns [stride]. */
export interface BalanceScratch {
  readonly rows: U32
  readonly rowValue: F64
  readonly dual: F64
  readonly wide: F64
}

/**
 * Moves u, per unit of weight [N], until X'u = 0 in `columns` as far as f64 can tell: each value in proportion to its distance from
 * both of its bounds, by the step of least squares in that metric. `solve(q)` must fill `wide` with (X' diag(q) X)^-1 `dual`.
 */
export function balanceDual(
  { matrix, labels }: Task,
  columns: Uint32Array,
  levels: Float64Array,
  u: Float64Array,
  { rows, rowValue, dual, wide }: BalanceScratch,
  solve: (q: Float64Array) => void,
): void {
  const { rowOf, weights } = labels
  const scale = matrix.scale.values
  const room = new Float64Array(u.length)
  const kept = u.slice()
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; ; round++) {
    rowValue.values.fill(0)
    let size = 0
    for (let i = 0; i < u.length; i++) {
      rowValue.values[rowOf[i]] += weights[i] * u[i]
      size += weights[i] * Math.abs(u[i])
    }
    dual.values.fill(0)
    matrix.addTransposed(rows, rowValue, labels.rows.length, dual)
    let left = 0
    for (const j of columns) left = Math.max(left, Math.abs(dual.values[j]) / scale[j])
    if (!(left < least)) break
    least = left
    kept.set(u)
    if (left <= RESIDUE * size || round === ROUNDS) break
    for (let i = 0; i < u.length; i++) room[i] = Math.max(0, (levels[i] - u[i]) * (u[i] - levels[i] + 1))
    solve(room.map((value, i) => value * weights[i]))
    matrix.times(rows, labels.rows.length, wide.values, rowValue)
    for (let i = 0; i < u.length; i++) {
      const moved = u[i] - room[i] * rowValue.values[rowOf[i]]
      u[i] = Math.min(levels[i], Math.max(levels[i] - 1, moved))
    }
  }
  u.set(kept)
}
