// Fits with their checks: no fit has a time before its certificates hold.

import { certify } from '../../src/index.ts'
import type { FeatureBlocks, Features, Labels, QuantileFit } from '../../src/solver/fit.ts'
import { cachePath, readRows, widen } from './states.ts'

export const ALPHA = 0.003
export const TOLERANCE = 1e-4
/** The level of all benchmarks of one level. */
export const LEVEL = 0.3
/** 19 levels, 0.05 apart, as in the paper. */
export const LEVELS = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)

/** `count` of the 19 levels, evenly spread, the middle one for one. */
export function someLevels(count: number): number[] {
  if (!(count >= 1 && count <= 19)) throw new Error(`bench: --levels must be 1 to 19, got ${count}`)
  return Array.from({ length: count }, (_, k) => LEVELS[Math.floor(((k + 0.5) * LEVELS.length) / count)])
}

export interface CheckedProblem {
  readonly features: Features
  readonly labels: Labels
  readonly levels: readonly number[]
  /** Default: ALPHA. */
  readonly alpha?: number
}

export interface Gaps {
  /** Largest gap that the solver reports. */
  readonly claimed: number
  /** Largest gap by the independent certificate, over the levels checked. */
  readonly confirmed: number
  readonly levelsConfirmed: number
}

/**
 * Throws unless the solver's gaps of all levels, and the independent certificates of the levels of the indices given, are within
 * the tolerance. `fit` must have its duals.
 */
export function checkFit(fit: QuantileFit, problem: CheckedProblem, indices?: readonly number[]): Gaps {
  const { features, labels, levels, alpha = ALPHA } = problem
  const { duals } = fit
  if (!duals) throw new Error('bench: a fit to be checked must have its duals, got none')
  const which = indices ?? levels.map((_, k) => k)
  const gaps = which.map((k) => {
    const { columns } = features
    const count = labels.values.length
    return certify(features, labels, {
      level: levels[k],
      alpha,
      weights: fit.weights.subarray(k * columns, (k + 1) * columns),
      intercept: fit.intercepts ? fit.intercepts[k] : null,
      dual: duals.subarray(k * count, (k + 1) * count),
    }).gap
  })
  const claimed = Math.max(...fit.fits.map(({ gap }) => gap))
  const confirmed = Math.max(...gaps)
  if (!(claimed <= TOLERANCE)) throw new Error(`bench: a fit reports a gap of ${claimed}, above ${TOLERANCE}`)
  if (!(confirmed <= TOLERANCE)) throw new Error(`bench: a certificate has a gap of ${confirmed}, above ${TOLERANCE}`)
  return { claimed, confirmed, levelsConfirmed: which.length }
}

/** The first `rows` rows of the cached states, to be read block by block. */
export function cachedBlocks(file: { rows: number; columns: number }, rows = file.rows): FeatureBlocks {
  const path = cachePath(file)
  return {
    name: path,
    rows,
    columns: file.columns,
    dtype: 'bf16',
    read: async (firstRow, count) => readRows(path, file.columns, firstRow, count),
  }
}

/** All of the cached states as f32, for `certify`. */
export function cachedFeatures({ rows, columns }: { rows: number; columns: number }): Features {
  return { data: widen(readRows(cachePath({ rows, columns }), columns, 0, rows)), rows, columns }
}

/** Peak memory of the process so far, in MiB. */
export function peakMiB(): number {
  return process.resourceUsage().maxRSS / 1024
}
