// Fits linear quantile heads: L1-penalised quantile regression, each level with a certificate of optimality.
//
//   minimise over w, b   mean over i of pinball_level(y_i - x_i.w - b) + alpha * |w|_1
//
// The objective is the one of scikit-learn's QuantileRegressor; the intercept b is optional and not penalised. Levels are
// fitted independently, as in the paper, so that quantiles may cross.

import { type Certificate, certify, type Features, type Labels } from './certificate.ts'
import { interiorPoint, type Solution } from './interior_point.ts'
import { type LabelSet, MISSING, mergeLabels, weightedQuantile } from './labels.ts'
import { Matrix } from './matrix.ts'
import { proximalNewton } from './proximal_newton.ts'

export type { Features, Labels } from './certificate.ts'

export interface FitOptions {
  /** Quantile levels [K], each inside (0, 1). */
  readonly levels: readonly number[]
  /** Penalty on |w|_1 beside the mean loss, 0 or more; default 0.003. */
  readonly alpha?: number
  /** Whether to fit an unpenalised constant; default false. */
  readonly intercept?: boolean
  /** Largest relative duality gap that counts as solved, in (0, 1); default 1e-4. */
  readonly tolerance?: number
  /** Whether to return the dual points of the certificates; default false. */
  readonly duals?: boolean
  /** Called after each level. */
  readonly onProgress?: (done: { readonly fit: LevelFit; readonly index: number; readonly levels: number }) => void
  /** Aborts between and inside levels; the promise rejects with its reason. */
  readonly signal?: AbortSignal
}

/** A gap this small, in units of the labels' mean size, is met whatever the objective. */
const VANISHING = 1e-9

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

export interface QuantileFit {
  /** [K, columns], row-major. */
  readonly weights: Float32Array
  /** [K]; null without an intercept. */
  readonly intercepts: Float32Array | null
  readonly fits: LevelFit[]
  /** With the option `duals`: [K, labels], row-major, the points from which `certify` makes the bounds; 0 for missing labels. */
  readonly duals: Float64Array | null
}

/** Features in the solver's memory, for fitting several attributes. */
export interface Solver {
  fit(labels: Labels, options: FitOptions): Promise<QuantileFit>
}

/** Fits the levels of one attribute. See `openSolver` for several attributes over the same features. */
export async function fitQuantiles(features: Features, labels: Labels, options: FitOptions): Promise<QuantileFit> {
  return openSolver(features).fit(labels, options)
}

/**
 * Copies features [rows, columns] once into the solver's memory (4 bytes a value).
 *
 * Throws where the shape does not fit the data or a value is not finite. `fit` throws for levels outside (0, 1), a negative
 * penalty, labels that do not fit the rows, an infinite label, no label at all; never for a problem that is merely hard.
 */
export function openSolver(features: Features): Solver {
  checkFeatures(features)
  const matrix = new Matrix(features.data, features.rows, features.columns)
  return { fit: (labels, options) => fitLevels(features, matrix, labels, options) }
}

async function fitLevels(
  features: Features,
  matrix: Matrix,
  labels: Labels,
  options: FitOptions,
): Promise<QuantileFit> {
  const { levels, alpha = 0.003, intercept = false, tolerance = 1e-4, onProgress, signal } = options
  const points = options.duals ? new Float64Array(levels.length * labels.values.length) : null
  checkOptions(levels, alpha, tolerance)
  const set = mergeLabels(labels.values, labels.rowIndex, features.rows)
  const scale = columnScales(features, set)
  const columns: number[] = []
  for (let d = 0; d < features.columns; d++) if (scale[d] > 0) columns.push(d)
  if (intercept) columns.push(features.columns)
  const shift = intercept ? weightedQuantile(set.values, set.weights, 0.5) : 0
  let size = 0
  for (let i = 0; i < set.values.length; i++) size += set.weights[i] * Math.abs(set.values[i] - shift)
  const problem: Problem = {
    features,
    labels,
    matrix,
    set,
    scale,
    columns: Uint32Array.from(columns),
    shift,
    size,
    y: set.values.map((value) => (size > 0 ? (value - shift) / size : 0)),
    alpha,
    intercept,
    tolerance,
    signal,
  }
  const weights = new Float32Array(levels.length * features.columns)
  const intercepts = intercept ? new Float32Array(levels.length) : null
  const fits: LevelFit[] = []
  let start: Float64Array | undefined
  for (let k = 0; k < levels.length; k++) {
    await pause()
    signal?.throwIfAborted()
    const result = fitLevel(problem, levels[k], start)
    start = result.start ?? start
    signal?.throwIfAborted()
    weights.set(result.weights, k * features.columns)
    if (intercepts) intercepts[k] = result.intercept ?? 0
    points?.set(result.dual, k * labels.values.length)
    fits.push(result.fit)
    onProgress?.({ fit: result.fit, index: k, levels: levels.length })
  }
  return { weights, intercepts, fits, duals: points }
}

interface Problem {
  readonly features: Features
  readonly labels: Labels
  readonly matrix: Matrix
  readonly set: LabelSet
  readonly scale: Float64Array
  /** Columns with a non-zero value; the intercept, if any, is the last. */
  readonly columns: Uint32Array
  /** The solvers see y = (label - shift) / size, of mean size 1. */
  readonly shift: number
  readonly size: number
  readonly y: Float64Array
  readonly alpha: number
  readonly intercept: boolean
  readonly tolerance: number
  readonly signal?: AbortSignal
}

interface LevelResult {
  readonly weights: Float32Array
  readonly intercept: number | null
  readonly dual: Float64Array
  readonly fit: LevelFit
  /** Where the next level may start. */
  readonly start?: Float64Array
}

function fitLevel(problem: Problem, level: number, start: Float64Array | undefined): LevelResult {
  const started = performance.now()
  const { set, matrix, tolerance, alpha, scale, columns, size, y, signal } = problem
  const finish = (candidate: Candidate, method: LevelFit['method'], iterations: number): LevelResult => ({
    weights: candidate.weights,
    intercept: candidate.intercept,
    dual: candidate.dual,
    fit: {
      level,
      objective: candidate.certificate.objective,
      dual: candidate.certificate.dual,
      gap: candidate.certificate.gap,
      status: solved(candidate, tolerance) ? 'optimal' : 'tolerance not reached',
      nonzeros: candidate.weights.reduce((count, w) => count + (w !== 0 ? 1 : 0), 0),
      iterations,
      ms: performance.now() - started,
      method,
    },
  })
  if (size === 0 || columns.length === 0) {
    const weights = new Float64Array(matrix.stride)
    const dual = y.map((value) => (value > 0 ? level : value < 0 ? level - 1 : 0))
    return finish(check(problem, level, { weights, dual, objective: 0, bound: 0 }), 'closed form', 0)
  }
  const enough = 0.3 * tolerance
  const task = { matrix, labels: set, y, level, penalty: alpha, columns, scale, enough, floor: 1e-14, signal }
  let first: { candidate: Candidate; iterations: number } | undefined
  if (suitsNewton(problem)) {
    const solution = proximalNewton({ ...task, tolerance: 0.7 * tolerance }, start)
    const candidate = check(problem, level, solution)
    if (solved(candidate, tolerance) || signal?.aborted) {
      return { ...finish(candidate, 'proximal newton', solution.iterations), start: solution.weights }
    }
    first = { candidate, iterations: solution.iterations }
  }
  // The last digits cost one or two steps, and tell weights that are zero from weights that are small.
  const solution = interiorPoint({ ...task, tolerance: 1e-3 * tolerance })
  const candidate = check(problem, level, solution)
  const iterations = solution.iterations + (first?.iterations ?? 0)
  if (first && first.candidate.certificate.gap < candidate.certificate.gap) {
    return finish(first.candidate, 'proximal newton', iterations)
  }
  return finish(candidate, 'interior point', iterations)
}

// Proximal Newton needs a penalty, and pays only where a Gram matrix over all rows would be slow.
function suitsNewton({ alpha, set, columns }: Problem): boolean {
  const rows = set.rows.length
  return alpha > 0 && rows > 4 * columns.length && rows * columns.length ** 2 > 2e7
}

interface Candidate {
  readonly weights: Float32Array
  readonly intercept: number | null
  /** Dual point of each label as given. */
  readonly dual: Float64Array
  readonly certificate: Certificate
  /** Whether the solver's f64 weights met the tolerance, so that only their rounding can be in the way. */
  readonly met: boolean
}

// Weights in the units of the labels, rounded to f32, and what they are worth. Weights whose removal cannot cost more than 2 %
// of the tolerance become exact zeros.
function check(
  problem: Problem,
  level: number,
  solution: Pick<Solution, 'weights' | 'dual' | 'objective' | 'bound'>,
): Candidate {
  const { features, labels, set, alpha, matrix, scale, tolerance, size, shift } = problem
  const effect = (j: number) => Math.abs(solution.weights[j]) * scale[j]
  const order = Array.from({ length: matrix.columns }, (_, j) => j).sort((a, b) => effect(a) - effect(b))
  const weights = new Float32Array(matrix.columns)
  const allowed = 0.02 * tolerance * solution.objective
  let removed = 0
  for (const j of order) {
    removed += effect(j)
    if (removed > allowed) weights[j] = solution.weights[j] * size
  }
  const intercept = problem.intercept ? Math.fround(solution.weights[matrix.columns] * size + shift) : null
  const dual = new Float64Array(labels.values.length)
  for (let i = 0; i < dual.length; i++) if (set.index[i] !== MISSING) dual[i] = solution.dual[set.index[i]]
  const certificate = certify(features, labels, { level, alpha, weights, intercept, dual })
  const met = solution.objective - solution.bound <= Math.max(tolerance * solution.objective, VANISHING)
  return { weights, intercept, dual, certificate, met }
}

function solved({ certificate, met }: Candidate, tolerance: number): boolean {
  const { objective, dual, gap, rounding } = certificate
  return gap <= tolerance || (met && objective - dual <= rounding)
}

// Root mean square of each column over the labels [stride]; 1 for the intercept.
function columnScales({ data, columns }: Features, set: LabelSet): Float64Array {
  const out = new Float64Array((columns + 4) & ~3)
  const perRow = new Float64Array(set.rows.length)
  for (let i = 0; i < set.rowOf.length; i++) perRow[set.rowOf[i]] += set.weights[i]
  for (let k = 0; k < set.rows.length; k++) {
    const from = set.rows[k] * columns
    for (let d = 0; d < columns; d++) out[d] += perRow[k] * data[from + d] * data[from + d]
  }
  for (let d = 0; d < columns; d++) out[d] = Math.sqrt(out[d])
  out[columns] = 1
  return out
}

function checkFeatures({ data, rows, columns }: Features): void {
  if (!Number.isInteger(rows) || rows < 1 || !Number.isInteger(columns) || columns < 1) {
    throw new Error(`fit: features must have at least one row and one column, got ${rows} x ${columns}`)
  }
  if (data.length !== rows * columns) {
    throw new Error(`fit: features of ${rows} x ${columns} must have ${rows * columns} values, got ${data.length}`)
  }
  for (let i = 0; i < data.length; i++) {
    if (Number.isFinite(data[i])) continue
    const where = `row ${Math.floor(i / columns)}, column ${i % columns}`
    throw new Error(`fit: features must be finite, ${where} is ${data[i]}`)
  }
}

function checkOptions(levels: readonly number[], alpha: number, tolerance: number): void {
  if (levels.length === 0) throw new Error('fit: levels must have at least one entry, got none')
  for (const level of levels) {
    if (!(level > 0 && level < 1)) throw new Error(`fit: levels must lie between 0 and 1, got ${level}`)
  }
  if (!(alpha >= 0 && Number.isFinite(alpha))) throw new Error(`fit: alpha must be 0 or more, got ${alpha}`)
  if (!(tolerance > 0 && tolerance < 1)) throw new Error(`fit: tolerance must lie between 0 and 1, got ${tolerance}`)
}

// Lets the event loop run, so that an abort or a progress bar gets its turn.
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0))
}
