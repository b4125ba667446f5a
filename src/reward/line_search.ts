// Step length of the proximal Newton method: the inner objective along one direction, exactly.

import type { LabelSet } from './labels.ts'

/** The inner problem (see proximal_newton.ts) at weights w with residuals r, and a direction p with X p = fitted. */
export interface Line {
  readonly labels: LabelSet
  readonly level: number
  readonly bandwidth: number
  /** Centre of the rank scores and residual of each label [N]. */
  readonly centre: Float64Array
  readonly residual: Float64Array
  /** X p for each row with labels [R]. */
  readonly fitted: Float64Array
  readonly columns: Uint32Array
  /** Penalty, weight and direction of each column [stride]. */
  readonly penalty: Float64Array
  readonly weights: Float64Array
  readonly step: Float64Array
}

/** A full step is taken where it brings this share of what the linear model promises, because only it keeps exact zeros. */
const ENOUGH = 0.25
/** Otherwise the slope is brought below this share of its value at 0. */
const FLAT = 1e-3
const TRIALS = 25

/** Returns 1 where that is good enough, else nearly the minimiser in (0, 1); `decrease` is the linear model's change, below 0. */
export function stepLength(line: Line, decrease: number): number {
  const full = along(line, 1)
  if (full.slope <= 0) return 1
  const start = along(line, 0)
  if (full.value - start.value <= ENOUGH * decrease) return 1
  // False position with the Illinois rule: the end that stays twice counts half.
  let low = 0
  let high = 1
  let below = start.slope
  let above = full.slope
  let side = 0
  for (let trial = 0; trial < TRIALS; trial++) {
    const t = below < 0 ? (low * above - high * below) / (above - below) : 0.5 * (low + high)
    const { slope } = along(line, t)
    if (slope <= 0) {
      low = t
      below = slope
      if (side === -1) above /= 2
      side = -1
    } else {
      high = t
      above = slope
      if (side === 1) below /= 2
      side = 1
    }
    if (low > 0 && Math.abs(slope) <= FLAT * Math.abs(start.slope)) break
  }
  return low
}

// The inner objective and its right derivative at w + t p.
function along(line: Line, t: number): { value: number; slope: number } {
  const { labels, level, bandwidth, centre, residual, fitted, columns, penalty, weights, step } = line
  const { rowOf, weights: share } = labels
  const scale = 1 / bandwidth
  let value = 0
  let slope = 0
  for (let i = 0; i < rowOf.length; i++) {
    const x = fitted[rowOf[i]]
    const r = residual[i] - t * x
    const c = centre[i]
    const a = Math.min(1, Math.max(0, c + r * scale))
    value += share[i] * ((a + level - 1) * r - 0.5 * bandwidth * (a - c) * (a - c))
    slope -= share[i] * (a + level - 1) * x
  }
  for (const j of columns) {
    const p = step[j]
    if (p === 0) continue
    const z = weights[j] + t * p
    value += penalty[j] * Math.abs(z)
    slope += penalty[j] * (z === 0 ? Math.abs(p) : p * Math.sign(z))
  }
  return { value, slope }
}
