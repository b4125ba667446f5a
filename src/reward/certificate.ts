// Optimality certificate of an L1-penalised quantile regression: plain float64 loops that share nothing with the solvers.
//
//   primal(w, b) = mean over i of pinball(y_i - x_i.w - b) + alpha * |w|_1      pinball(r) = max(level * r, (level - 1) * r)
//   dual(u)      = mean over i of u_i * y_i      for  level - 1 <= u_i <= level,  |mean over i of x_ij u_i| <= alpha,
//                                                     mean over i of u_i = 0 where there is an intercept
//
// Every feasible u bounds every primal value from below. Any u is made feasible by clipping, by moving its interior values
// until their mean is 0 (intercept), and by scaling.

/** Feature rows [rows, columns], row-major. */
export interface Features {
  readonly data: Float32Array
  readonly rows: number
  readonly columns: number
}

/** Labels; NaN is a missing one. Label i belongs to feature row rowIndex[i], or to row i without `rowIndex`. */
export interface Labels {
  readonly values: Float32Array
  readonly rowIndex?: Uint32Array
}

/** A claim to be checked. */
export interface Claim {
  readonly level: number
  readonly alpha: number
  /** Weights [columns] as stored. */
  readonly weights: Float32Array
  /** Intercept as stored; null where the model has none. */
  readonly intercept: number | null
  /** Candidate for the dual [labels]; entries of missing labels are ignored. */
  readonly dual: Float64Array
}

export interface Certificate {
  /** Primal value at the weights. */
  readonly objective: number
  /** Lower bound on the primal value of any weights. */
  readonly dual: number
  /** (objective - dual) / objective; where the objective vanishes (see `certify`), (objective - dual) / mean |y|. */
  readonly gap: number
  /**
   * How far f32 storage of the weights can have moved the objective: 2^-24 times the mean of sum_j |x_ij w_j|, but no more
   * than 1e-6 of the labels' mean size, so that huge weights are no excuse.
   */
  readonly rounding: number
}

/** Share of the labels' mean size that may be put down to rounding. */
const LARGEST_ROUNDING = 1e-6

/** An unpenalised column counts as satisfied when its sum is this small a share of the sum of its absolute terms. */
const BALANCED = 1e-9

/** The bound charges what is left in an unpenalised column for weights up to this many times the claimed one. */
const REACH = 10

/**
 * Computes objective, dual bound and gap of the claim; O(rows * columns + labels).
 *
 * The gap is relative to the objective unless that is below 1e-12 of the labels' mean size or below what f32 weights can
 * resolve; then it is relative to the labels' mean size. A dual that cannot be made feasible counts as u = 0, whose bound is 0.
 */
export function certify(features: Features, labels: Labels, claim: Claim): Certificate {
  const { count, size } = measure(labels)
  const primal = evaluatePrimal(features, labels, claim, count)
  const dual = evaluateDual(features, labels, claim, count)
  const difference = Math.max(0, primal.objective - dual)
  const rounding = Math.min(primal.rounding, LARGEST_ROUNDING * size)
  const vanishing = Math.max(1e-12 * size, rounding)
  const unit = primal.objective > vanishing ? primal.objective : size
  return { objective: primal.objective, dual, gap: difference === 0 ? 0 : difference / unit, rounding }
}

function measure({ values }: Labels): { count: number; size: number } {
  let count = 0
  let size = 0
  for (const value of values) {
    if (Number.isNaN(value)) continue
    count++
    size += Math.abs(value)
  }
  return { count, size: size / count }
}

function evaluatePrimal(
  { data, rows, columns }: Features,
  { values, rowIndex }: Labels,
  { level, alpha, weights, intercept }: Claim,
  count: number,
): { objective: number; rounding: number } {
  const predicted = new Float64Array(rows)
  const magnitude = new Float64Array(rows)
  for (let n = 0; n < rows; n++) {
    let sum = intercept ?? 0
    let absolute = Math.abs(sum)
    for (let d = 0; d < columns; d++) {
      const term = data[n * columns + d] * weights[d]
      sum += term
      absolute += Math.abs(term)
    }
    predicted[n] = sum
    magnitude[n] = absolute
  }
  let loss = 0
  let moved = 0
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue
    const n = rowIndex ? rowIndex[i] : i
    const r = values[i] - predicted[n]
    loss += r > 0 ? level * r : (level - 1) * r
    moved += magnitude[n]
  }
  let norm = 0
  for (const w of weights) norm += Math.abs(w)
  return { objective: loss / count + alpha * norm, rounding: (moved / count) * 2 ** -24 }
}

function evaluateDual({ data, rows, columns }: Features, labels: Labels, claim: Claim, count: number): number {
  const { values, rowIndex } = labels
  const { alpha, weights, intercept } = claim
  const u = clip(labels, claim)
  if (intercept !== null && !balance(u, labels, claim.level)) return 0
  const perRow = new Float64Array(rows)
  let value = 0
  let sum = 0
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) continue
    perRow[rowIndex ? rowIndex[i] : i] += u[i] / count
    value += (u[i] * values[i]) / count
    sum += u[i] / count
  }
  const total = new Float64Array(columns)
  const absolute = new Float64Array(columns)
  for (let n = 0; n < rows; n++) {
    const un = perRow[n]
    if (un === 0) continue
    for (let d = 0; d < columns; d++) {
      const term = data[n * columns + d] * un
      total[d] += term
      absolute[d] += Math.abs(term)
    }
  }
  if (intercept !== null) value -= REACH * Math.abs(sum * intercept)
  let largest = 0
  for (let d = 0; d < columns; d++) {
    if (alpha > 0) largest = Math.max(largest, Math.abs(total[d]))
    else if (Math.abs(total[d]) > BALANCED * absolute[d]) return 0
    else value -= REACH * Math.abs(total[d] * weights[d])
  }
  const bound = largest > alpha && alpha > 0 ? value * (alpha / largest) : value
  return Math.max(0, bound)
}

function clip({ values }: Labels, { level, dual }: Claim): Float64Array {
  const u = new Float64Array(values.length)
  for (let i = 0; i < values.length; i++) {
    if (!Number.isNaN(values[i]) && Number.isFinite(dual[i])) u[i] = Math.min(level, Math.max(level - 1, dual[i]))
  }
  return u
}

// Moves values in proportion to their distance from both bounds until the sum is 0; values at a bound stay there.
function balance(u: Float64Array, { values }: Labels, level: number): boolean {
  for (let round = 0; round < 60; round++) {
    let sum = 0
    let absolute = 0
    let room = 0
    for (let i = 0; i < u.length; i++) {
      if (Number.isNaN(values[i])) continue
      sum += u[i]
      absolute += Math.abs(u[i])
      room += (level - u[i]) * (u[i] - level + 1)
    }
    if (Math.abs(sum) <= 1e-14 * absolute) return true
    if (room <= 0) return false
    const step = Math.max(-1, Math.min(1, sum / room))
    for (let i = 0; i < u.length; i++) {
      if (!Number.isNaN(values[i])) u[i] -= step * (level - u[i]) * (u[i] - level + 1)
    }
  }
  let sum = 0
  let absolute = 0
  for (let i = 0; i < u.length; i++) {
    sum += u[i]
    absolute += Math.abs(u[i])
  }
  return Math.abs(sum) <= BALANCED * absolute
}
