// L1-penalised quantile regression, each level with a certificate of optimality.
//
//   minimise over w, b   mean over i of pinball_level(y_i - x_i.w - b) + alpha * |w|_1
//
// The objective is the one of scikit-learn's QuantileRegressor, the mean weighted if the labels are; the intercept b is
// optional and not penalised. Levels are fitted independently, as in the paper, so that quantiles may cross; the option
// `nonCrossing` holds each level by the one before (see non_crossing.ts).

import { openHardware } from '../device/choose.ts'
import type { Device } from '../device/device.ts'
import { type DeviceKind, openDevice } from '../device/open.ts'
import { type FeatureBlocks, memoryBlocks } from '../files/table.ts'
import type { Features, Labels } from './certificate.ts'
import { fastProducts } from './certificate_products.ts'
import { givenLabels, mergeLabels, weightedQuantile } from './labels.ts'
import { type Candidate, fitLevel, type LevelFit, type Problem, type Start, type State, sumRows } from './level.ts'
import { Matrix } from './matrix.ts'
import { countCrossings, fitBeside, type OrderedLevel, outward } from './non_crossing.ts'
import { Phases } from './phases.ts'
import { Team } from './team.ts'

export type { FeatureBlocks } from '../files/table.ts'
export type { Features, Labels } from './certificate.ts'
export type { LevelFit, Start } from './level.ts'

const PROGRESS_MS = 250
/** Bytes that are read from a file at a time. */
const READ_BYTES = 16 * 2 ** 20
/** Problems with fewer elements are done before threads have started. */
const WORTH_THREADS = 2 ** 19

/** How far a level has come. */
export interface Progress {
  /** Position in `levels`, their number, and the level itself. */
  readonly index: number
  readonly levels: number
  readonly level: number
  /** Relative gap as the solver sees it; 1 before it has a bound. */
  readonly gap: number
  readonly nonzeros: number
  readonly iterations: number
}

/** A finished level, with its certified fit. */
export interface FinishedLevel {
  /** Position in `levels`. */
  readonly index: number
  readonly fit: LevelFit
  /** [columns] */
  readonly weights: Float32Array
  readonly intercept: number | null
}

export interface FitOptions {
  /** Quantile levels [K], each inside (0, 1). They are fitted in ascending order. */
  readonly levels: readonly number[]
  /** Penalty on |w|_1 beside the mean loss, 0 or more; default 0.003. */
  readonly alpha?: number
  /** Whether to fit an unpenalised constant; default false. */
  readonly intercept?: boolean
  /** Largest relative duality gap that counts as solved, in (0, 1); default 1e-4. */
  readonly tolerance?: number
  /** Whether to return the dual points of the certificates; default false. */
  readonly duals?: boolean
  /**
   * Whether the predictions of higher levels must not be below those of lower ones on rows with labels; default false. The level
   * nearest to the median is then fitted first, and the others outward, upper ones before lower ones. Bounds hold for weights
   * that keep to the order given the level before. Not together with `start`.
   */
  readonly nonCrossing?: boolean
  /**
   * Where the first level starts: weights [columns] of the level before, or of a larger alpha. A fit that goes on from the last
   * finished level gives the same bits as one that was never interrupted.
   */
  readonly start?: Start
  /** Called after each level. */
  readonly onLevel?: (done: FinishedLevel) => void
  /** Called a few times a second. */
  readonly onProgress?: (state: Progress) => void
  /** Aborts between and inside levels; the promise rejects with its reason. */
  readonly signal?: AbortSignal
}

export interface QuantileFit {
  /** [K, columns], row-major, in the order of `levels`. */
  readonly weights: Float32Array
  /** [K]; null without an intercept. */
  readonly intercepts: Float32Array | null
  /** [K] */
  readonly fits: LevelFit[]
  /** With the option `duals`: [K, labels], row-major, the points from which `certify` makes the bounds; 0 for missing labels. */
  readonly duals: Float64Array | null
  /** With `duals` and `nonCrossing`: [K, rows], the multipliers of the limits by feature row, below 0 for upper ones. */
  readonly multipliers: Float64Array | null
  /** With `nonCrossing`: pairs of a row with labels and a level whose prediction is below that of the level before it. */
  readonly crossings: number | null
  /** Milliseconds by phase; they add up to the time of the fit. */
  readonly phases: Record<string, number>
}

export interface OpenOptions {
  /** 1 to 64; default all cores. Results do not depend on it. */
  readonly threads?: number
  /**
   * A GPU takes the large products of the Newton steps; results then depend on its rounding, but are certified by the CPU all
   * the same. 'auto' takes one where there is one; default 'wasm', which is none. An open device stays open.
   */
  readonly device?: DeviceKind | Device
  /** Ends the reading of the features; the promise rejects with its reason. */
  readonly signal?: AbortSignal
}

/** Features in the solver's memory, for fitting several attributes. */
export interface Solver {
  /** Number of threads that work on a fit. */
  readonly threads: number
  /** Throws for options out of range and labels that do not fit the rows; never for a problem that is merely hard. */
  fit(labels: Float32Array | Labels, options: FitOptions): Promise<QuantileFit>
  /** Predictions of all rows, in f64, by weights [columns] and an intercept. */
  predict(weights: Float32Array, intercept: number | null): Promise<Float64Array>
  /** Ends the threads and frees the memory. */
  close(): Promise<void>
}

/** Fits the levels of one attribute. See `openSolver` for several attributes over the same features. */
export async function fitQuantiles(
  features: Features | FeatureBlocks,
  labels: Float32Array | Labels,
  options: FitOptions & OpenOptions & { readonly weights?: Float32Array },
): Promise<QuantileFit> {
  const solver = await openSolver(features, options)
  try {
    const given = givenLabels(labels)
    return await solver.fit(options.weights ? { ...given, weights: options.weights } : given, options)
  } finally {
    await solver.close()
  }
}

/**
 * Copies features [rows, columns] once into the solver's memory, in their storage type.
 *
 * Throws where the shape does not fit the data, a value is not finite, or the features do not fit into 4 GiB.
 */
export async function openSolver(features: Features | FeatureBlocks, options: OpenOptions = {}): Promise<Solver> {
  const { rows, columns } = features
  if (!Number.isInteger(rows) || rows < 1 || !Number.isInteger(columns) || columns < 1) {
    throw new Error(`fit: features must have at least one row and one column, got ${rows} x ${columns}`)
  }
  const blocks = 'data' in features ? memoryBlocks('fit', features) : features
  const small = rows * columns < WORTH_THREADS
  const team = await Team.open(options.threads ?? (small ? 1 : undefined))
  let gpu: Gpu | null = null
  try {
    gpu = await openGpu(options.device ?? 'wasm')
    const matrix = naming(blocks, () => new Matrix(team, blocks.dtype, rows, columns))
    const step = Math.max(1, Math.floor(READ_BYTES / (columns * 4)))
    for (let first = 0; first < rows; first += step) {
      options.signal?.throwIfAborted()
      const count = Math.min(step, rows - first)
      const data = await blocks.read(first, count)
      if (data.length !== count * columns) {
        throw new Error(
          `${blocks.name}: rows ${first} to ${first + count - 1} must have ${count * columns} values, got ${data.length}`,
        )
      }
      matrix.load(first, data)
    }
    naming(blocks, () => matrix.measure())
    return solverOf(matrix, blocks.name, gpu)
  } catch (error) {
    await team.close()
    if (gpu?.ours) await gpu.device.destroy()
    throw error
  }
}

/** Runs work on features, so that its errors name what they are read from. */
function naming<T>({ name }: FeatureBlocks, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { message } = error as Error
    throw message.includes(name) ? error : new Error(`${name}: ${message}`, { cause: error })
  }
}

/** A GPU for the solver. */
export interface Gpu {
  readonly device: Device
  /** Whether it was opened here, and so must be destroyed by whoever asked for it. */
  readonly ours: boolean
}

/** The GPU that was asked for; null for 'wasm', and where 'auto' finds only the CPU. */
export async function openGpu(asked: DeviceKind | Device): Promise<Gpu | null> {
  if (typeof asked !== 'string') return asked.kind === 'webgpu' ? { device: asked, ours: false } : null
  if (asked === 'wasm') return null
  const device = asked === 'auto' ? await openHardware() : await openDevice(asked)
  return device && { device, ours: true }
}

// Fits share the memory, so that one begins when the one before has ended.
function solverOf(matrix: Matrix, name: string, gpu: Gpu | null): Solver {
  let last: Promise<unknown> = Promise.resolve()
  let closed = false
  const inTurn = <T>(work: () => T | Promise<T>): Promise<T> => {
    const result = last.then(() => {
      if (closed) throw new Error(`${name}: the solver has been closed; open it again`)
      return work()
    })
    last = result.catch(() => {})
    return result
  }
  return {
    threads: matrix.team.threads,
    fit(labels, options) {
      const given = givenLabels(labels)
      return inTurn(() => fitLevels(matrix, given, options, gpu?.device ?? null))
    },
    predict(weights, intercept) {
      if (weights.length !== matrix.columns)
        throw new Error(`${name}: weights must be ${matrix.columns}, got ${weights.length}`)
      return inTurn(() => fastProducts(matrix).predict(weights, intercept ?? 0))
    },
    async close() {
      closed = true
      await last
      await matrix.team.close()
      if (gpu?.ours) await gpu.device.destroy()
    },
  }
}

async function fitLevels(
  matrix: Matrix,
  labels: Labels,
  options: FitOptions,
  device: Device | null,
): Promise<QuantileFit> {
  const { levels, alpha = 0.003, intercept = false, tolerance = 1e-4, onLevel, onProgress, signal } = options
  const { columns } = matrix
  const { arena } = matrix.team
  checkOptions(levels, alpha, tolerance)
  checkStart(options.start, columns, intercept)
  if (options.nonCrossing && options.start)
    throw new Error(
      'fit: start must be absent with nonCrossing, as levels are not fitted in ascending order; leave one out',
    )
  const phases = new Phases('labels')
  const mark = arena.mark()
  try {
    const set = mergeLabels(labels, matrix.rows)
    const shift = intercept ? weightedQuantile(set.values, set.weights, 0.5) : 0
    let size = 0
    for (let i = 0; i < set.values.length; i++) size += set.weights[i] * Math.abs(set.values[i] - shift)
    const base = arena.f64(matrix.stride)
    sumRows(matrix, set, base)
    const problem: Problem = {
      labels,
      matrix,
      set,
      base,
      shift,
      size,
      y: set.values.map((value) => (size > 0 ? (value - shift) / size : 0)),
      alpha,
      intercept,
      tolerance,
      phases,
      device,
      signal,
      rested: performance.now(),
    }
    const weights = new Float32Array(levels.length * columns)
    const intercepts = intercept ? new Float32Array(levels.length) : null
    const points = options.duals ? new Float64Array(levels.length * labels.values.length) : null
    const fits = new Array<LevelFit>(levels.length)
    const multipliers = points && options.nonCrossing ? new Float64Array(levels.length * matrix.rows) : null
    let start = options.start
    const done = new Array<Candidate>(levels.length)
    const ascending = Array.from(levels.keys()).sort((a, b) => levels[a] - levels[b] || a - b)
    const order = options.nonCrossing
      ? outward(levels)
      : ascending.map((index) => ({ index, side: 1 as const, inner: -1 }))
    for (const { index, side, inner } of order) {
      const tell = onProgress && everySoOften(PROGRESS_MS, onProgress)
      const hear = (state: State) => tell?.({ index, levels: levels.length, level: levels[index], ...state })
      const free = inner < 0 || size === 0
      const result: OrderedLevel = free
        ? await fitLevel(problem, levels[index], start, hear)
        : await fitBeside(problem, levels[index], side, done[inner], hear)
      const { fit, candidate } = result
      signal?.throwIfAborted()
      start = candidate
      done[index] = candidate
      if (result.multipliers) multipliers?.set(result.multipliers, index * matrix.rows)
      weights.set(candidate.weights, index * columns)
      if (intercepts) intercepts[index] = candidate.intercept ?? 0
      points?.set(candidate.dual, index * labels.values.length)
      fits[index] = fit
      onLevel?.({ index, fit, weights: candidate.weights, intercept: candidate.intercept })
    }
    phases.enter('end')
    const crossings = options.nonCrossing
      ? countCrossings(
          problem,
          ascending.map((index) => done[index]),
        )
      : null
    return { weights, intercepts, fits, duals: points, multipliers, crossings, phases: phases.ms }
  } finally {
    arena.release(mark)
  }
}

function everySoOften<T>(ms: number, call: (value: T) => void): (value: T) => void {
  let last = 0
  return (value) => {
    if (performance.now() - last < ms) return
    last = performance.now()
    call(value)
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

function checkStart(start: Start | undefined, columns: number, intercept: boolean): void {
  if (!start) return
  if (start.weights.length !== columns)
    throw new Error(`fit: start must have ${columns} weights, got ${start.weights.length}`)
  if (intercept && start.intercept === null) throw new Error('fit: start must have an intercept, as the fit has one')
}
