// Fits with the public solver and checks every claim it makes against certificates of the tests' own.

import * as assert from 'uvu/assert'
import { fitQuantiles, type LevelFit, type QuantileFit } from '../src/index.ts'
import {
  type Evidence,
  type Features,
  type Labels,
  type Regression,
  regression,
  weigh,
} from './reference/quantile_regression.ts'

/** The options of `fitQuantiles` that change what is solved, or how well. */
export interface Options {
  readonly levels: readonly number[]
  readonly alpha?: number
  readonly intercept?: boolean
  readonly tolerance?: number
  readonly threads?: number
}

/** A fit, and for each level what it was asked and what it is worth. */
export interface Checked {
  readonly name: string
  readonly fit: QuantileFit
  readonly problems: Regression[]
  readonly evidence: Evidence[]
}

/** Asserts, with the numbers in the message. */
export function within(actual: number, expected: number, limit: number, name: string): void {
  const error = Math.abs(actual - expected)
  assert.ok(error <= limit, `${name}: expected ${expected}, got ${actual}, off by ${error}, allowed ${limit}`)
}

/**
 * Fits, and asserts for every level that objective, bound, gap, nonzeros and status are what the returned weights and dual point
 * prove. The status must be 'optimal' unless the problem is said to be `hopeless`; then it must be true.
 */
export async function checkedFit(
  name: string,
  features: Features,
  labels: Labels,
  options: Options,
  { hopeless = false }: { hopeless?: boolean } = {},
): Promise<Checked> {
  const { levels, alpha = 0.003, intercept = false, tolerance = 1e-4 } = options
  const { columns, rows } = features
  const count = labels.values.length
  // One thread starts no worker; that more give the same bits is tested once.
  const asked = { threads: 1, ...options, duals: true }
  const fit = await fitQuantiles(features as Features & { data: Float32Array }, labels, asked)
  assert.is(fit.fits.length, levels.length, `${name}: fits`)
  assert.is(fit.weights.length, levels.length * columns, `${name}: weights`)
  assert.is(fit.intercepts?.length, intercept ? levels.length : undefined, `${name}: intercepts`)
  assert.is(fit.duals?.length, levels.length * count, `${name}: duals`)
  const problems: Regression[] = []
  const evidence: Evidence[] = []
  for (const [k, level] of levels.entries()) {
    const where = `${name}, ${rows} x ${columns}, level ${level}`
    const claim = fit.fits[k]
    const problem = regression(features, labels, { level, alpha, intercept })
    const w = fit.weights.subarray(k * columns, (k + 1) * columns)
    const u = problem.labels.map((i) => fit.duals![k * count + i])
    const proof = weigh(problem, w, fit.intercepts?.[k] ?? 0, u)
    problems.push(problem)
    evidence.push(proof)
    const size = meanSize(problem)
    assert.is(claim.level, level, `${where}: level`)
    assert.ok(w.every(Number.isFinite), `${where}: weights must be finite`)
    within(claim.objective, proof.objective, 1e-9 * proof.objective + 1e-13 * size, `${where}: objective`)
    assert.ok(
      claim.dual <= claim.objective * (1 + 1e-12) + 1e-13 * size,
      `${where}: bound ${claim.dual} above the objective`,
    )
    checkGap(claim, proof, problem, tolerance, where)
    assert.is(claim.nonzeros, w.filter((value) => value !== 0).length, `${where}: nonzeros`)
    const proven = proof.gap <= tolerance * 1.02 + 1e-9 || proof.objective - proof.bound <= proof.rounding
    const shown = `gap ${proof.gap}, claimed ${claim.gap}, after ${claim.iterations} steps, ${claim.method}`
    if (claim.status === 'optimal') assert.ok(proven, `${where}: called optimal without proof, ${shown}`)
    else assert.ok(claim.gap > tolerance, `${where}: "${claim.status}" with ${shown}`)
    if (!hopeless) assert.is(claim.status, 'optimal', `${where}: ${shown}`)
  }
  return { name, fit, problems, evidence }
}

/**
 * A claimed gap agrees with the proven one within 2 %, and is never better than that. Where a dual point must first be balanced, which
 * can be done in several ways, the claim may be more cautious: by a tenth of the tolerance, without a penalty by any amount.
 */
function checkGap(claim: LevelFit, proof: Evidence, problem: Regression, tolerance: number, where: string): void {
  // Where an objective vanishes, which is not a sharp line, both are counted in units of the labels.
  const vanishing = proof.objective <= 4 * proof.rounding
  const gapOf = ({ objective, bound }: { objective: number; bound: number }) =>
    (objective - bound) / (meanSize(problem) || 1)
  const claimed = vanishing ? gapOf({ objective: claim.objective, bound: claim.dual }) : claim.gap
  const proven = vanishing ? gapOf(proof) : proof.gap
  const limit = Math.max(0.02 * proven, 1e-9)
  const shown = `${where}: claimed gap ${claimed} (bound ${claim.dual}), proven ${proven} (bound ${proof.bound})`
  assert.ok(claimed >= proven - limit, `${shown}: too good`)
  const caution = problem.intercept ? Math.max(limit, 0.1 * tolerance) : limit
  if (problem.alpha > 0) assert.ok(claimed <= proven + caution, `${shown}: too modest`)
}

/** Weighted mean of |y|, the unit of what is negligible. */
export function meanSize({ y, v }: Regression): number {
  return y.reduce((sum, value, i) => sum + v[i] * Math.abs(value), 0) / v.reduce((sum, value) => sum + value, 0)
}

/**
 * Asserts that two fits have the same optimum, when objectives of `b` are `factor` times those of `a`: each one's bound must lie
 * below the other's objective. Fits of certified problems pass only if they are within their gaps of each other.
 */
export function sameOptimum(a: Checked, b: Checked, factor = 1): void {
  for (const [k, mine] of a.evidence.entries()) {
    const theirs = b.evidence[k]
    // Both sides are sums of rounded numbers.
    const slack = 1e-10 * (mine.objective + meanSize(a.problems[k]))
    const level = a.problems[k].level
    const shown =
      `${a.name} / ${b.name}, level ${level}: [${mine.bound}, ${mine.objective}] and ` +
      `[${theirs.bound / factor}, ${theirs.objective / factor}] must overlap`
    assert.ok(mine.bound <= theirs.objective / factor + slack && theirs.bound / factor <= mine.objective + slack, shown)
  }
}

/** Asserts that a known objective of some weights is not below the bound, and that ours is not above it by more than the gap. */
export function notWorse({ name, problems, evidence }: Checked, known: readonly number[], tolerance: number): void {
  for (const [k, { objective, bound, rounding }] of evidence.entries()) {
    const slack = 1e-9 * (known[k] + meanSize(problems[k]))
    const shown = `${name}, level ${problems[k].level}: [${bound}, ${objective}] against ${known[k]}`
    assert.ok(bound <= known[k] + slack, `${shown}: the bound is too high`)
    assert.ok(objective <= known[k] * (1 + tolerance) + rounding + slack, `${shown}: the objective is too high`)
  }
}
