// The penalty of a quantile regression, chosen by cross-validation: mean pinball loss of held-out rows along a path of penalties.
//
// The rows that carry labels are dealt to folds in the order of a seeded hash of their number; all labels of a row share its
// fold. A fold is held out by making its labels missing, so that all fits share one copy of the features. The path descends, and
// each level of each fold starts from its own weights at the penalty before.

import { mix32, WEYL } from '../data/scramble.ts'
import type { Labels } from './certificate.ts'
import type { Solver, Start } from './fit.ts'
import { givenLabels, weightOf } from './labels.ts'

const TOLERANCE = 1e-3
const FOLDS = 5
/** The path of penalties, where none is given: this many, evenly in the logarithm, over this factor. */
const STEPS = 12
const RANGE = 1e3
/** The path ends when this many penalties in succession are clearly worse than the best before. */
const PATIENCE = 3
/** Where all weights vanish, the fit says nothing but how many columns there are. */
const HUGE = 1e30
/** Powers of two that the search for the largest penalty of a path passes, and its bisections of the last of them. */
const POWERS = 40
const BISECTIONS = 3
/** Random combinations of the columns that tell how large they are. */
const PROBES = 4

/** How far the choice has come. */
export interface AlphaProgress {
  /** Position on the path; -1 while its largest penalty is being sought. */
  readonly index: number
  /** Length of the path, which may end early; 0 while it is not known. */
  readonly alphas: number
  readonly alpha: number
  /** The fold that is held out, from 0, and their number. */
  readonly fold: number
  readonly folds: number
  readonly level: number
}

export interface AlphaOptions {
  /** Quantile levels, each inside (0, 1); the loss is the mean over them. */
  readonly levels: readonly number[]
  /** Whether the fits have an unpenalised constant; default false. */
  readonly intercept?: boolean
  /** Relative duality gap of the fits of the search; default 1e-3, which is far below the noise of held-out losses. */
  readonly tolerance?: number
  /** Number of folds, 2 or more; default 5. */
  readonly folds?: number
  /**
   * Penalties to try, each 0 or more, in any order. Default: 12 over three decades, down from the smallest at which all weights of
   * all levels vanish (to within a tenth, found by halving).
   */
  readonly alphas?: readonly number[]
  /** Other seeds deal the rows to other folds; default 0. */
  readonly seed?: number
  /**
   * 'min' (default): the penalty of the least loss, the largest of equal ones. 'one standard error': the largest penalty whose loss
   * exceeds the least one by no more than that one's standard error, which gives sparser weights of about the same worth.
   */
  readonly rule?: 'min' | 'one standard error'
  /** Called a few times a second, and after each level of each fold. */
  readonly onProgress?: (state: AlphaProgress) => void
  /** The promise rejects with its reason. */
  readonly signal?: AbortSignal
}

/** A penalty and what it is worth on rows that were held out. */
export interface AlphaStep {
  readonly alpha: number
  /** Mean pinball loss of the held-out labels by their weights, and over the levels. */
  readonly loss: number
  /** Standard error of the loss, from its variation over the folds. */
  readonly error: number
}

export interface ChosenAlpha {
  readonly alpha: number
  /** The penalties that were tried, descending. */
  readonly path: AlphaStep[]
}

/**
 * Chooses the penalty of `fit` for one attribute. The same arguments give the same choice, whatever the number of threads.
 *
 * The path ends early when three penalties in succession lost more than the best one before, by more than the standard error of
 * the difference (over the folds). Costs up to folds x alphas fits of all levels, roughly solved: 40 to 60 times an ordinary fit.
 *
 * Throws for options out of range, and where fewer rows carry labels than there are folds.
 */
export async function chooseAlpha(
  solver: Solver,
  labels: Float32Array | Labels,
  options: AlphaOptions,
): Promise<ChosenAlpha> {
  const given = givenLabels(labels)
  const { levels, intercept = false, tolerance = TOLERANCE, folds = FOLDS, seed = 0, rule = 'min', signal } = options
  checkOptions(options)
  const dealt = dealLabels(given, folds, seed)
  const { onProgress } = options
  const fit: LevelSolver = async (training, level, alpha, start, at) => {
    const tell = onProgress && (() => onProgress({ ...at, alpha, folds, level }))
    const fitted = await solver.fit(training, {
      levels: [level],
      alpha,
      intercept,
      tolerance,
      ...(start && { start }),
      ...(tell && { onProgress: tell }),
      signal,
    })
    tell?.()
    const constant = fitted.intercepts ? fitted.intercepts[0] : null
    const { nonzeros, objective } = fitted.fits[0]
    return { weights: fitted.weights, intercept: constant, nonzeros, objective }
  }
  const alphas = options.alphas
    ? [...new Set(options.alphas)].sort((a, b) => b - a)
    : decades(await largestAlpha(solver, given, levels, fit))
  const parts = Array.from({ length: folds }, (_, fold) => splitLabels(given, dealt, fold))
  const starts: (Start | undefined)[][] = parts.map(() => levels.map(() => undefined))
  const losses: number[][] = []
  const shares = parts.map(({ heldOut }) => heldOut.reduce((sum, i) => sum + weightOf(given, i), 0))
  for (const [index, alpha] of alphas.entries()) {
    const ofFolds: number[] = []
    for (const [fold, { training, heldOut }] of parts.entries()) {
      let loss = 0
      for (const [k, level] of levels.entries()) {
        const fitted = await fit(training, level, alpha, starts[fold][k], { index, alphas: alphas.length, fold })
        starts[fold][k] = fitted
        const predicted = await solver.predict(fitted.weights, fitted.intercept)
        loss += pinball(given, heldOut, predicted, level) / shares[fold] / levels.length
      }
      ofFolds.push(loss)
    }
    losses.push(ofFolds)
    if (hasRisen(losses, shares)) break
  }
  const path = losses.map((ofFolds, i) => {
    const { mean, error } = estimate(ofFolds, shares)
    return { alpha: alphas[i], loss: mean, error }
  })
  return { alpha: choose(path, rule), path }
}

/** Fits one level to some labels and says where the search stands. */
type LevelSolver = (
  labels: Labels,
  level: number,
  alpha: number,
  start: Start | undefined,
  at: Pick<AlphaProgress, 'index' | 'alphas' | 'fold'>,
) => Promise<Start & { readonly nonzeros: number; readonly objective: number }>

function choose(path: readonly AlphaStep[], rule: AlphaOptions['rule']): number {
  const best = path.reduce((least, step) => (step.loss < least.loss ? step : least))
  const limit = rule === 'min' ? best.loss : best.loss + best.error
  return path.find(({ loss }) => loss <= limit)!.alpha
}

/**
 * The fold of each label, -1 where it is missing or has no weight. Labels of one feature row share a fold, and folds have
 * equally many such rows, up to one.
 */
export function dealLabels(labels: Labels, folds: number, seed: number): Int32Array {
  const rowOf = (i: number) => (labels.rowIndex ? labels.rowIndex[i] : i)
  const present = Array.from(labels.values.keys()).filter((i) => weightOf(labels, i) !== 0)
  const rows = new Set(present.map(rowOf))
  if (rows.size < folds) {
    throw new Error(
      `alpha: ${folds} folds need at least as many rows with labels, found ${rows.size}; take fewer folds, or set alpha`,
    )
  }
  const key = scramble(seed)
  const order = Array.from(rows, (row) => ({ row, hash: scramble(key ^ scramble(row)) }))
  order.sort((a, b) => a.hash - b.hash || a.row - b.row)
  const foldOf = new Map(order.map(({ row }, place) => [row, place % folds]))
  const dealt = new Int32Array(labels.values.length).fill(-1)
  for (const i of present) dealt[i] = foldOf.get(rowOf(i))!
  return dealt
}

function scramble(word: number): number {
  return mix32((word + WEYL) | 0)
}

/** The labels without those of a fold, and which those are. */
function splitLabels(labels: Labels, dealt: Int32Array, fold: number): { training: Labels; heldOut: number[] } {
  const heldOut = Array.from(dealt.keys()).filter((i) => dealt[i] === fold)
  const values = labels.values.slice()
  for (const i of heldOut) values[i] = Number.NaN
  return { training: { ...labels, values }, heldOut }
}

/** Weighted sum of the pinball losses of some labels. */
function pinball(labels: Labels, which: readonly number[], predicted: Float64Array, level: number): number {
  let sum = 0
  for (const i of which) {
    const r = labels.values[i] - predicted[labels.rowIndex ? labels.rowIndex[i] : i]
    sum += weightOf(labels, i) * (r > 0 ? level * r : (level - 1) * r)
  }
  return sum
}

/** Mean over folds by their shares, and its standard error. */
function estimate(values: readonly number[], shares: readonly number[]): { mean: number; error: number } {
  const total = shares.reduce((sum, share) => sum + share, 0)
  const mean = values.reduce((sum, value, f) => sum + (shares[f] / total) * value, 0)
  const squares = values.reduce((sum, value, f) => sum + ((shares[f] / total) * (value - mean)) ** 2, 0)
  return { mean, error: Math.sqrt((squares * values.length) / (values.length - 1)) }
}

/** Whether the last penalties all lost clearly more than the best before; folds are compared with themselves. */
function hasRisen(losses: readonly number[][], shares: readonly number[]): boolean {
  if (losses.length <= PATIENCE) return false
  const means = losses.map((ofFolds) => estimate(ofFolds, shares).mean)
  const before = means.slice(0, -PATIENCE)
  const best = losses[before.indexOf(Math.min(...before))]
  return losses.slice(-PATIENCE).every((ofFolds) => {
    const differences = ofFolds.map((loss, f) => loss - best[f])
    const { mean, error } = estimate(differences, shares)
    return mean > error
  })
}

function decades(largest: number): number[] {
  return Array.from({ length: STEPS }, (_, i) => largest * RANGE ** (-i / (STEPS - 1)))
}

/**
 * The smallest penalty, up to a tenth, at which all weights of all levels vanish; 1 where that is so at any. It is no more than
 * the root of the sum of the columns' mean squares, and combinations of the columns with random signs say how much that is.
 */
async function largestAlpha(
  solver: Solver,
  labels: Labels,
  levels: readonly number[],
  fit: LevelSolver,
): Promise<number> {
  const at = { index: -1, alphas: 0, fold: 0 }
  let size: number | undefined
  let largest = 0
  // The middle levels mostly need the largest, so that the others only confirm it.
  for (const level of [...levels].sort((a, b) => Math.abs(a - 0.5) - Math.abs(b - 0.5))) {
    const zero = await fit(labels, level, HUGE, undefined, at)
    size ??= await columnSize(solver, zero.weights.length)
    if (size === 0) break
    if (zero.objective === 0) continue
    const vanish = async (alpha: number) => (await fit(labels, level, alpha, zero, at)).nonzeros === 0
    if (largest === 0 || !(await vanish(largest))) largest = await threshold(vanish, 2 * largest || size)
  }
  return largest || 1
}

/** The smallest value that passes, up to a tenth, if larger ones do; by powers of two from a start, and bisection. */
async function threshold(passes: (value: number) => Promise<boolean>, from: number): Promise<number> {
  let [low, high] = [from, from]
  let power = 0
  while (power++ < POWERS && !(await passes(high))) [low, high] = [high, 2 * high]
  if (low === high) {
    do low /= 2
    while (power++ < POWERS && (await passes(low)))
    high = 2 * low
  }
  for (let i = 0; i < BISECTIONS; i++) {
    const middle = Math.sqrt(low * high)
    if (await passes(middle)) high = middle
    else low = middle
  }
  return high
}

/** About the root of the sum over columns of their mean squares. */
async function columnSize(solver: Solver, columns: number): Promise<number> {
  let largest = 0
  for (let probe = 0; probe < PROBES; probe++) {
    const key = scramble(probe)
    const signs = Float32Array.from({ length: columns }, (_, j) => (scramble(key ^ scramble(j)) & 1 ? 1 : -1))
    const sums = await solver.predict(signs, null)
    const square = sums.reduce((total, sum) => total + sum * sum, 0) / sums.length
    largest = Math.max(largest, Math.sqrt(square))
  }
  return largest
}

function checkOptions({ levels, folds = FOLDS, seed = 0, rule = 'min', alphas }: AlphaOptions): void {
  if (levels.length === 0) throw new Error('alpha: levels must have at least one entry, got none')
  if (!Number.isSafeInteger(folds) || folds < 2) {
    throw new Error(`alpha: folds must be a whole number of at least 2, got ${folds}`)
  }
  if (!Number.isSafeInteger(seed)) throw new Error(`alpha: seed must be a whole number, got ${seed}`)
  if (rule !== 'min' && rule !== 'one standard error') {
    throw new Error(`alpha: rule must be "min" or "one standard error", got "${String(rule)}"`)
  }
  if (alphas?.length === 0) throw new Error('alpha: alphas must have at least one entry, got none')
  for (const alpha of alphas ?? []) {
    if (!(alpha >= 0 && alpha < Infinity)) throw new Error(`alpha: alphas must be 0 or more, got ${alpha}`)
  }
}
