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
  /** Called after each level. */
  readonly onProgress?: (done: { readonly fit: LevelFit; readonly index: number; readonly levels: number }) => void
  /** Aborts between and inside levels; the promise rejects with its reason. */
  readonly signal?: AbortSignal
}

/** One level. `objective`, `dual` and `gap` are those of `certify`, evaluated at the returned f32 weights. */
export interface LevelFit {
  readonly level: number
  readonly objective: number
  readonly dual: number
  readonly gap: number
  /** 'optimal': gap within the tolerance, or what is missing is less than f32 weights can resolve. */
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

async function fitLevels(features: Features, matrix: Matrix, labels: Labels, options: FitOptions): Promise<QuantileFit> {
  const { levels, alpha = 0.003, intercept = false, tolerance = 1e-4, onProgress, signal } = options
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
    fits.push(result.fit)
    onProgress?.({ fit: result.fit, index: k, levels: levels.length })
  }
  return { weights, intercepts, fits }
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
  readonly fit: LevelFit
  /** Where the next level may start. */
  readonly start?: Float64Array
}

function fitLevel(problem: Problem, level: number, start: Float64Array | undefined): LevelResult {
  const started = performance.now()
  const { set, matrix, tolerance, alpha, scale, columns, shift, size, y, signal } = problem
  const finish = (rounded: Rounded, certificate: Certificate, iterations: number, method: LevelFit['method']): LevelResult => ({
    weights: rounded.weights,
    intercept: rounded.intercept,
    fit: {
      level,
      objective: certificate.objective,
      dual: certificate.dual,
      gap: certificate.gap,
      status: solved(certificate, tolerance) ? 'optimal' : 'tolerance not reached',
      nonzeros: rounded.weights.reduce((count, w) => count + (w !== 0 ? 1 : 0), 0),
      iterations,
      ms: performance.now() - started,
      method,
    },
  })
  if (size === 0 || columns.length === 0) {
    const rounded = { weights: new Float32Array(matrix.columns), intercept: problem.intercept ? shift : null }
    const dual = y.map((value) => (value > 0 ? level : value < 0 ? level - 1 : 0))
    return finish(rounded, check(problem, level, rounded, dual), 0, 'closed form')
  }
  const task = { matrix, labels: set, y, level, penalty: alpha, columns, scale, enough: 0.3 * tolerance, floor: 1e-14, signal }
  let best: { rounded: Rounded; certificate: Certificate } | undefined
  let iterations = 0
  const accept = (solution: Solution): boolean => {
    iterations += solution.iterations
    const rounded = roundWeights(problem, solution)
    const certificate = check(problem, level, rounded, solution.dual)
    if (!best || certificate.gap < best.certificate.gap) best = { rounded, certificate }
    return solved(best.certificate, tolerance) || signal?.aborted === true
  }
  if (suitsNewton(problem)) {
    const solution = proximalNewton({ ...task, tolerance: 0.7 * tolerance }, start)
    if (accept(solution)) return { ...finish(best!.rounded, best!.certificate, iterations, 'proximal newton'), start: solution.weights }
  }
  // Its last digits cost one or two steps, and tell weights that are zero from weights that are small.
  accept(interiorPoint({ ...task, tolerance: 1e-3 * tolerance }))
  return finish(best!.rounded, best!.certificate, iterations, 'interior point')
}

// Proximal Newton needs a penalty, and pays only where a Gram matrix over all rows would be slow.
function suitsNewton({ alpha, set, columns }: Problem): boolean {
  const rows = set.rows.length
  return alpha > 0 && rows > 4 * columns.length && rows * columns.length ** 2 > 2e7
}

interface Rounded {
  readonly weights: Float32Array
  readonly intercept: number | null
}

// Weights in the units of the labels. Those whose removal cannot cost more than 2 % of the tolerance become exact zeros.
function roundWeights(problem: Problem, solution: Solution): Rounded {
  const { matrix, scale, tolerance, size, shift } = problem
  const effect = (j: number) => Math.abs(solution.weights[j]) * scale[j]
  const order = Array.from({ length: matrix.columns }, (_, j) => j).sort((a, b) => effect(a) - effect(b))
  const weights = new Float32Array(matrix.columns)
  const allowed = 0.02 * tolerance * solution.objective
  let removed = 0
  for (const j of order) {
    removed += effect(j)
    if (removed > allowed) weights[j] = solution.weights[j] * size
  }
  return { weights, intercept: problem.intercept ? Math.fround(solution.weights[matrix.columns] * size + shift) : null }
}

function check(problem: Problem, level: number, rounded: Rounded, dual: Float64Array): Certificate {
  const { features, labels, set, alpha } = problem
  const spread = new Float64Array(labels.values.length)
  for (let i = 0; i < spread.length; i++) if (set.index[i] !== MISSING) spread[i] = dual[set.index[i]]
  return certify(features, labels, { level, alpha, ...rounded, dual: spread })
}

function solved(certificate: Certificate, tolerance: number): boolean {
  return certificate.gap <= tolerance || certificate.objective - certificate.dual <= certificate.rounding
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
