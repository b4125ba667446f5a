// One level of one attribute: which solver, from where, and what its answer is worth.
import type { Device } from '../device/device.ts'
import type { F64 } from './arena.ts'
import { type Certificate, certifyWith, type Labels, type Limit } from './certificate.ts'
import { fastProducts } from './certificate_products.ts'
import { searchColumns } from './column_search.ts'
import { type LabelSet, MISSING, takeRows, weightedQuantile } from './labels.ts'
import type { Matrix } from './matrix.ts'
import type { Phases } from './phases.ts'
import { proximalNewton } from './proximal_newton.ts'
import type { Solution, Task } from './task.ts'

/** A gap this small, in units of the labels' mean size, is met whatever the objective. */
const VANISHING = 1e-9
/** The event loop runs this often. */
const PAUSE_MS = 50
/**
 * A level without a start is first fitted to every eighth row, if that leaves enough of them, roughly, and with a larger
 * penalty: the noise of fewer rows would let in more columns.
 */
const START_STEP = 8
const START_ROWS = 500
const START_TOLERANCE = 0.03
const START_PENALTY = 2

/** Weights [columns] to start from. */
export interface Start {
  readonly weights: Float32Array
  readonly intercept: number | null
}

/** One level. `objective`, `dual` and `gap` are those of `certify`, evaluated at the returned f32 weights. */
export interface LevelFit {
  readonly level: number
  readonly objective: number
  readonly dual: number
  readonly gap: number
  /** 'optimal': gap within the tolerance, or met by the f64 weights and lost only to their rounding to f32. */
  readonly status: 'optimal' | 'tolerance not reached'
  readonly nonzeros: number
  readonly iterations: number
  readonly ms: number
  readonly method: 'closed form' | 'proximal newton' | 'interior point'
}

/** What the levels of one attribute share. */
export interface Problem {
  readonly labels: Labels
  readonly matrix: Matrix
  readonly set: LabelSet
  /** X'1 over the weighted labels. */
  readonly base: F64
  /** The solvers see y = (label - shift) / size, of mean size 1. */
  readonly shift: number
  readonly size: number
  readonly y: Float64Array
  readonly alpha: number
  readonly intercept: boolean
  readonly tolerance: number
  readonly phases: Phases
  readonly device: Device | null
  readonly signal?: AbortSignal
  /** When the event loop last had its turn. */
  rested: number
}

export type State = { readonly gap: number; readonly nonzeros: number; readonly iterations: number }

/** Fits a level from `start` (0 if absent); `tell` hears of its progress when the event loop has had its turn. */
export async function fitLevel(
  problem: Problem,
  level: number,
  start: Start | undefined,
  tell: (state: State) => void,
): Promise<{ fit: LevelFit; candidate: Candidate }> {
  const started = performance.now()
  const { matrix, tolerance, size, y, signal } = problem
  const finish = (candidate: Candidate, method: LevelFit['method'], iterations: number) => ({
    candidate,
    fit: report(problem, level, candidate, method, iterations, started),
  })
  if (size === 0) {
    const weights = new Float64Array(matrix.stride)
    const dual = y.map((value) => (value > 0 ? level : value < 0 ? level - 1 : 0))
    return finish(check(problem, level, { weights, dual, objective: 0, bound: 0 }), 'closed form', 0)
  }
  const task = taskOf(problem, level, tell)
  let from = start && solverUnits(problem, start)
  let first: { candidate: Candidate; iterations: number } | undefined
  if (suitsNewton(problem)) {
    from ??= await coldStart(problem, task)
    const solution = await proximalNewton(task, problem.base, from)
    const candidate = check(problem, level, solution)
    if (solved(candidate, tolerance) || signal?.aborted)
      return finish(candidate, 'proximal newton', solution.iterations)
    first = { candidate, iterations: solution.iterations }
  }
  const columns: number[] = []
  for (let j = 0; j < matrix.columns; j++) if ((first?.candidate.weights[j] ?? from?.[j] ?? 0) !== 0) columns.push(j)
  // The last digits cost one or two steps, and tell weights that are zero from weights that are small.
  const solution = await searchColumns({ ...task, tolerance: 1e-3 * tolerance }, columns)
  const candidate = check(problem, level, solution)
  const iterations = solution.iterations + (first?.iterations ?? 0)
  if (first && first.candidate.certificate.gap < candidate.certificate.gap) {
    return finish(first.candidate, 'proximal newton', iterations)
  }
  return finish(candidate, 'interior point', iterations)
}

/** What the solvers are given. */
export function taskOf(problem: Problem, level: number, tell: (state: State) => void): Task {
  const { set, matrix, tolerance, alpha, y, signal, phases, intercept, device } = problem
  const pause = async (state: State): Promise<void> => {
    if (performance.now() - problem.rested < PAUSE_MS) return
    const before = phases.enter('pause')
    tell(state)
    await breathe()
    problem.rested = performance.now()
    phases.enter(before)
  }
  return {
    matrix,
    labels: set,
    y,
    level,
    penalty: alpha,
    intercept,
    tolerance: 0.9 * tolerance,
    enough: 0.3 * tolerance,
    floor: 1e-14,
    phases,
    device,
    signal,
    pause,
  }
}

/** Weights [stride] as the solvers see them. */
export function solverUnits({ matrix, size, shift, intercept }: Problem, start: Start): Float64Array {
  const from = new Float64Array(matrix.stride)
  for (let j = 0; j < matrix.columns; j++) from[j] = start.weights[j] / size
  if (intercept) from[matrix.columns] = ((start.intercept ?? shift) - shift) / size
  return from
}

/** What is said about a level that began at `started`. */
export function report(
  { tolerance }: Problem,
  level: number,
  candidate: Candidate,
  method: LevelFit['method'],
  iterations: number,
  started: number,
): LevelFit {
  return {
    level,
    objective: candidate.certificate.objective,
    dual: candidate.certificate.dual,
    gap: candidate.certificate.gap,
    status: solved(candidate, tolerance) ? 'optimal' : 'tolerance not reached',
    nonzeros: candidate.weights.reduce((count, w) => count + (w !== 0 ? 1 : 0), 0),
    iterations,
    ms: performance.now() - started,
    method,
  }
}

// Where nothing is known, a rough fit to a part of the rows is a cheap place to start from.
async function coldStart({ matrix, base, set }: Problem, task: Task): Promise<Float64Array | undefined> {
  if (set.rows.length < START_STEP * START_ROWS) return undefined
  const part = takeRows(set, task.y, START_STEP)
  const { arena } = matrix.team
  const mark = arena.mark()
  try {
    const sums = arena.f64(base.length)
    sumRows(matrix, part.labels, sums)
    const rough = { ...task, ...part, tolerance: START_TOLERANCE, penalty: START_PENALTY * task.penalty }
    return (await proximalNewton(rough, sums)).weights
  } finally {
    arena.release(mark)
  }
}

/** Proximal Newton needs a penalty, and pays where a Gram matrix over all rows would be slow: sooner where rows are many. */
export function suitsNewton({ alpha, set, matrix }: Problem): boolean {
  const rows = set.rows.length
  const { columns } = matrix
  const slow = rows > 32 * columns ? 2e6 : 2e7
  return alpha > 0 && rows > 4 * Math.min(columns, 256) && rows * columns ** 2 > slow
}

/** Weights as they are stored, with their proof. */
export interface Candidate {
  readonly weights: Float32Array
  readonly intercept: number | null
  /** Dual point of each label as given. */
  readonly dual: Float64Array
  readonly certificate: Certificate
  /** Whether the solver's f64 weights met the tolerance, so that only their rounding can be in the way. */
  readonly met: boolean
}

/**
 * Weights in the units of the labels, rounded to f32, and what they are worth. Weights whose removal cannot cost more than 2 % of
 * the tolerance become exact zeros.
 */
export function check(
  problem: Problem,
  level: number,
  solution: Omit<Solution, 'iterations'>,
  limit?: Limit,
): Candidate {
  const { labels, set, alpha, matrix, tolerance, size, shift, phases } = problem
  const before = phases.enter('certificate')
  const scale = matrix.scale.values
  const effect = (j: number) => Math.abs(solution.weights[j]) * scale[j]
  const order = Array.from({ length: matrix.columns }, (_, j) => j).sort((a, b) => effect(a) - effect(b))
  const weights = new Float32Array(matrix.columns)
  const allowed = 0.02 * tolerance * solution.objective
  let removed = 0
  for (const j of order) {
    removed += effect(j)
    // Features so small that their weights leave the range of f32 stay without one.
    if (removed > allowed && Number.isFinite(Math.fround(solution.weights[j] * size))) {
      weights[j] = solution.weights[j] * size
    }
  }
  const dual = new Float64Array(labels.values.length)
  for (let i = 0; i < dual.length; i++) if (set.index[i] !== MISSING) dual[i] = solution.dual[set.index[i]]
  const products = fastProducts(matrix)
  const met = solution.objective - solution.bound <= Math.max(tolerance * solution.objective, VANISHING)
  const judge = (intercept: number | null): Candidate => {
    const certificate = certifyWith(products, labels, { level, alpha, weights, intercept, dual, limit })
    return { weights, intercept, dual, certificate, met }
  }
  let candidate = judge(problem.intercept ? Math.fround(solution.weights[matrix.columns] * size + shift) : null)
  if (problem.intercept && !limit && !solved(candidate, tolerance)) {
    // The best constant for the weights as they are stored makes up for what their rounding did.
    candidate = judge(bestConstant(set, products.predict(weights, 0), level))
  }
  phases.enter(before)
  return candidate
}

function bestConstant(set: LabelSet, predicted: Float64Array, level: number): number {
  const residuals = set.values.map((value, i) => value - predicted[set.rows[set.rowOf[i]]])
  return Math.fround(weightedQuantile(residuals, set.weights, level))
}

export function solved({ certificate, met }: Candidate, tolerance: number): boolean {
  const { objective, dual, gap, rounding } = certificate
  return gap <= tolerance || (met && objective - dual <= rounding)
}

/** base = X' (weights of the labels, by row). */
export function sumRows(matrix: Matrix, set: LabelSet, base: F64): void {
  const { arena } = matrix.team
  const mark = arena.mark()
  const [rows, sums] = [arena.u32(set.rows.length), arena.f64(set.rows.length)]
  rows.values.set(set.rows)
  for (let i = 0; i < set.rowOf.length; i++) sums.values[set.rowOf[i]] += set.weights[i]
  matrix.addTransposed(rows, sums, set.rows.length, base)
  arena.release(mark)
}

// Lets the event loop run, by the quickest way there is.
const breathe = (): Promise<void> =>
  new Promise((resolve) => {
    if (typeof setImmediate === 'function') setImmediate(resolve)
    else setTimeout(resolve, 0)
  })
