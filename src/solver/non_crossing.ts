// Levels whose quantiles do not cross on the training rows, one after the other, each held by the one before.
//
// Source: Liu and Wu 2009, stepwise estimation. The level nearest to the median is fitted freely; going up, each further level is
// fitted subject to predictions at or above those of the level before, going down at or below. A limit is a label more in its
// row, with level 1 and a weight that is an exact penalty: a floor under the prediction, whose dual value is the multiplier of
// the limit. Going down, labels, limits and weights change their signs, so that the solvers know only floors.
import { certifyWith, type Limit } from './certificate.ts'
import { fastProducts } from './certificate_products.ts'
import { searchColumns } from './column_search.ts'
import { MISSING } from './labels.ts'
import {
  type Candidate,
  check,
  type LevelFit,
  type Problem,
  report,
  type State,
  solved,
  solverUnits,
  suitsNewton,
  taskOf,
} from './level.ts'
import { proximalNewton } from './proximal_newton.ts'
import type { Solution, Task } from './task.ts'

/** A row counts as crossing where its quantiles are out of order by more than this, in units of the labels' mean size. */
const CROSSING = 1e-6
/** Penalty on a broken floor at first, in mean weights of a row's labels, and its growth where it was not enough. */
const PENALTY = 30
const GROWTH = 8
/** Floors are raised by this at first, in units of the tolerance and the labels' mean size, and may be missed by as much. */
const SLACK = 0.3
const ROUNDS = 4

/** One level of a fit without crossings. */
export interface OrderedLevel {
  readonly fit: LevelFit
  readonly candidate: Candidate
  /** Multipliers of the limits by feature row, below 0 for upper ones; absent for the first level. */
  readonly multipliers?: Float64Array
}

/** The order in which levels are fitted, as positions, each with the one that limits it; none for the first. */
export function outward(levels: readonly number[]): { index: number; side: 1 | -1; inner: number }[] {
  const sorted = Array.from(levels.keys()).sort((a, b) => levels[a] - levels[b] || a - b)
  let middle = 0
  for (const [k, index] of sorted.entries()) {
    if (Math.abs(levels[index] - 0.5) < Math.abs(levels[sorted[middle]] - 0.5)) middle = k
  }
  const order: { index: number; side: 1 | -1; inner: number }[] = [{ index: sorted[middle], side: 1, inner: -1 }]
  for (let k = middle + 1; k < sorted.length; k++) order.push({ index: sorted[k], side: 1, inner: sorted[k - 1] })
  for (let k = middle - 1; k >= 0; k--) order.push({ index: sorted[k], side: -1, inner: sorted[k + 1] })
  return order
}

/** Fits a level whose predictions must not fall below (side 1) or exceed (side -1) those of `inner` on rows with labels. */
export async function fitBeside(
  problem: Problem,
  level: number,
  side: 1 | -1,
  inner: Candidate,
  tell: (state: State) => void,
): Promise<OrderedLevel> {
  const started = performance.now()
  const { matrix, set, tolerance, size, signal } = problem
  const predicted = fastProducts(matrix).predict(inner.weights, inner.intercept ?? 0)
  const values = new Float64Array(matrix.rows).fill(Number.NaN)
  for (const row of set.rows) values[row] = predicted[row]
  let iterations = 0
  let best: { candidate: Candidate; limit: Limit; method: LevelFit['method'] } | undefined
  let from: Float64Array = solverUnits(problem, inner).map((w) => side * w)
  let penalty = PENALTY
  let slack = SLACK * tolerance
  // Solves once; says whether that settles it.
  const attempt = async (method: LevelFit['method'], solve: (task: Task) => Promise<Solution>): Promise<boolean> => {
    const floored = addFloors(taskOf(problem, level, tell), problem, values, side, penalty, slack)
    const solution = await solve(floored.task)
    iterations += solution.iterations
    from = solution.weights.slice()
    const multipliers = new Float64Array(matrix.rows)
    let short = false
    for (const [k, row] of set.rows.entries()) {
      const at = floored.floorOf[k]
      multipliers[row] = Math.max(0, floored.task.labels.weights[at] * solution.dual[at])
      if (solution.dual[at] > 0.9) short = true
    }
    const limit = { side, values, multipliers }
    const back = {
      ...solution,
      weights: solution.weights.map((w) => side * w),
      dual: Float64Array.from(floored.place, (at) => side * solution.dual[at]),
    }
    const candidate = check(problem, level, back, limit)
    const kept = candidate.certificate.excess <= 0.9 * CROSSING * size
    // Where the order leaves no other weights, those of the inner level are the best, and the dual proves it.
    const choice = kept ? candidate : repeatInner(problem, level, inner, candidate.dual, limit)
    if (!(best && best.candidate.certificate.gap <= choice.certificate.gap)) best = { candidate: choice, limit, method }
    if (short) penalty *= GROWTH
    if (kept) slack /= GROWTH
    else if (!short) slack *= GROWTH
    return solved(choice, tolerance) || Boolean(signal?.aborted)
  }
  let done = false
  if (suitsNewton(problem)) {
    for (let round = 0; round < ROUNDS && !done; round++)
      done = await attempt('proximal newton', (task) => proximalNewton(task, problem.base, from))
  }
  for (let round = 0; round < ROUNDS && !done; round++) {
    const columns: number[] = []
    for (let j = 0; j < matrix.columns; j++) if (from[j] !== 0) columns.push(j)
    done = await attempt('interior point', (task) => searchColumns({ ...task, tolerance: 1e-3 * tolerance }, columns))
  }
  if (!best) throw new Error(`fit: level ${level} was not tried`)
  const { candidate, limit, method } = best
  return {
    fit: report(problem, level, candidate, method, iterations, started),
    candidate,
    multipliers: limit.multipliers.map((value) => side * value),
  }
}

/** Pairs of a row with labels and a level, of fits in ascending order, whose quantile is below that of the level before. */
export function countCrossings({ matrix, set }: Problem, fits: readonly Candidate[]): number {
  const mean = set.values.reduce((sum, value, i) => sum + set.weights[i] * Math.abs(value), 0)
  let count = 0
  let below: Float64Array | undefined
  for (const { weights, intercept } of fits) {
    const predicted = fastProducts(matrix).predict(weights, intercept ?? 0)
    if (below) for (const row of set.rows) if (predicted[row] < below[row] - CROSSING * mean) count++
    below = predicted
  }
  return count
}

// The inner level's own weights, which never cross it, as a fit of this level.
function repeatInner(problem: Problem, level: number, inner: Candidate, dual: Float64Array, limit: Limit): Candidate {
  const { labels, alpha, matrix } = problem
  const { weights, intercept } = inner
  const certificate = certifyWith(fastProducts(matrix), labels, { level, alpha, weights, intercept, dual, limit })
  return { weights, intercept, dual, certificate, met: false }
}

interface Floored {
  readonly task: Task
  /** Floor of each row with labels, as a position in the task's labels [R]. */
  readonly floorOf: Uint32Array
  /** Where each of the problem's labels went [N]. */
  readonly place: Uint32Array
}

// The task with a floor in each row, behind its labels; turned over for an upper limit.
function addFloors(
  task: Task,
  { size, shift }: Problem,
  values: Float64Array,
  side: 1 | -1,
  penalty: number,
  slack: number,
): Floored {
  const { labels } = task
  const [n, rows] = [labels.values.length, labels.rows.length]
  const level = side > 0 ? task.level : 1 - task.level
  const rowOf = new Uint32Array(n + rows)
  const y = new Float64Array(n + rows)
  const weights = new Float64Array(n + rows)
  const levels = new Float64Array(n + rows).fill(level)
  const place = new Uint32Array(n)
  const floorOf = new Uint32Array(rows)
  let at = 0
  for (let k = 0, i = 0; k < rows; k++) {
    for (; i < n && labels.rowOf[i] === k; i++) {
      rowOf[at] = k
      y[at] = side * task.y[i]
      weights[at] = labels.weights[i]
      place[i] = at++
    }
    rowOf[at] = k
    y[at] = (side * (values[labels.rows[k]] - shift)) / size + slack
    weights[at] = penalty / rows
    levels[at] = 1
    floorOf[k] = at++
  }
  const index = labels.index.map((i) => (i === MISSING ? MISSING : place[i]))
  const floored = { ...labels, rowOf, values: y, weights, index }
  return { task: { ...task, labels: floored, y, level, levels, slack }, floorOf, place }
}
