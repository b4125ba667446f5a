// Optimality certificate of an L1-penalised quantile regression: plain float64 loops that share nothing with the solvers.
//
//   primal(w, b) = mean over i of pinball(y_i - x_i.w - b) + alpha * |w|_1      pinball(r) = max(level * r, (level - 1) * r)
//   dual(u)      = mean over i of u_i * y_i      for  level - 1 <= u_i <= level,  |mean over i of x_ij u_i| <= alpha,
//                                                     mean over i of u_i = 0 where there is an intercept
//
// Every feasible u bounds every primal value from below. Any u is made feasible by clipping, by moving its interior values
// until their mean is 0 (intercept), and by scaling.

import { widenBF16 } from '../files/safetensors.ts'

/** Feature rows [rows, columns], row-major; a Uint16Array holds the bits of bf16 values. */
export interface Features {
  readonly data: Float32Array | Uint16Array
  readonly rows: number
  readonly columns: number
}

/** Labels; NaN is a missing one. Label i belongs to feature row rowIndex[i], or to row i without `rowIndex`. */
export interface Labels {
  readonly values: Float32Array
  readonly rowIndex?: Uint32Array
  /** Weight of each label in the mean loss, 0 or more; 1 without. */
  readonly weights?: Float32Array
}

/** The two products with the features that a certificate needs, in f64, and the root mean square of each column. */
export interface Products {
  /** Predictions of all rows for weights [columns] and an intercept. */
  predict(weights: Float32Array, intercept: number): Float64Array
  /** Sum over rows of u_row x_row for each column, or of u_row |x_row|. */
  correlate(u: Float64Array, absolute?: boolean): Float64Array
  readonly scale: ArrayLike<number>
  readonly rows: number
}

/** Predictions of another level that those of the claim must not fall below (side 1) or exceed (side -1). */
export interface Limit {
  readonly side: 1 | -1
  /** By feature row; NaN for rows that have no limit. */
  readonly values: Float64Array
  /** Candidates for the dual of the limits, by feature row, in units of the mean loss; those below 0 count as 0. */
  readonly multipliers: Float64Array
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
  /** Where the predictions are limited: the bound then holds for weights that keep within the limits. */
  readonly limit?: Limit
}

export interface Certificate {
  /** Primal value at the weights. */
  readonly objective: number
  /** Lower bound on the primal value of any weights. */
  readonly dual: number
  /** (objective - dual) / objective; where the objective vanishes (see `certify`), (objective - dual) / mean |y|. */
  readonly gap: number
  /**
   * How far f32 storage of the weights can have moved the objective: 2^-24 times sum_j |w_j| rms_j, but no more than 1e-6 of
   * the labels' mean size, so that huge weights are no excuse.
   */
  readonly rounding: number
  /** How far a prediction is past its limit, at most; 0 without limits. */
  readonly excess: number
}

/** Share of the labels' mean size that may be put down to rounding. */
const LARGEST_ROUNDING = 1e-6

/** An unpenalised column counts as satisfied when its sum is this small a share of the sum of its absolute terms. */
const BALANCED = 1e-9

/** Attempts at balancing an intercept's dual. */
const ROUNDS = 60

/** The bound charges what is left in an unpenalised column for weights up to this many times the claimed one. */
const REACH = 10

/**
 * Computes objective, dual bound and gap of the claim with plain loops; O(rows * columns + labels).
 *
 * The gap is relative to the objective unless that is below 1e-12 of the labels' mean size or below what f32 weights can
 * resolve; then it is relative to the labels' mean size. A dual that cannot be made feasible counts as u = 0, whose bound is 0.
 */
export function certify(features: Features, labels: Labels, claim: Claim): Certificate {
  return certifyWith(plainProducts(features), labels, claim)
}

/** The same with given products. */
export function certifyWith(products: Products, labels: Labels, claim: Claim): Certificate {
  const shares = labelShares(labels)
  let size = 0
  for (let i = 0; i < shares.length; i++) if (shares[i] > 0) size += shares[i] * Math.abs(labels.values[i])
  const { objective, excess } = evaluatePrimal(products, labels, shares, claim)
  const dual = evaluateDual(products, labels, shares, claim)
  const difference = Math.max(0, objective - dual)
  let moved = Math.abs(claim.intercept ?? 0)
  for (let d = 0; d < claim.weights.length; d++) moved += Math.abs(claim.weights[d]) * products.scale[d]
  const rounding = Math.min(moved * 2 ** -24, LARGEST_ROUNDING * size)
  const unit = objective > Math.max(1e-12 * size, rounding) ? objective : size
  return { objective, dual, gap: difference === 0 ? 0 : difference / unit, rounding, excess }
}

// Share of each label in the mean loss; 0 for a missing one.
function labelShares({ values, weights }: Labels): Float64Array {
  const shares = Float64Array.from(values, (value, i) => (Number.isNaN(value) ? 0 : weights ? weights[i] : 1))
  let total = 0
  for (const share of shares) total += share
  return shares.map((share) => share / total)
}

function plainProducts({ data, rows, columns }: Features): Products {
  const wide = data instanceof Uint16Array ? new Float32Array(data.length) : data
  if (data instanceof Uint16Array) widenBF16(data, wide)
  const scale = new Float64Array(columns)
  for (let i = 0; i < wide.length; i++) scale[i % columns] += (wide[i] * wide[i]) / rows
  return {
    rows,
    scale: scale.map(Math.sqrt),
    predict(weights, intercept) {
      const out = new Float64Array(rows)
      for (let n = 0; n < rows; n++) {
        let sum = intercept
        for (let d = 0; d < columns; d++) sum += wide[n * columns + d] * weights[d]
        out[n] = sum
      }
      return out
    },
    correlate(u, absolute) {
      const out = new Float64Array(columns)
      for (let n = 0; n < rows; n++) {
        for (let d = 0; d < columns; d++) {
          const x = wide[n * columns + d]
          out[d] += (absolute ? Math.abs(x) : x) * u[n]
        }
      }
      return out
    },
  }
}

function evaluatePrimal(products: Products, { values, rowIndex }: Labels, shares: Float64Array, claim: Claim) {
  const { level, alpha, weights, intercept, limit } = claim
  const predicted = products.predict(weights, intercept ?? 0)
  let loss = 0
  for (let i = 0; i < values.length; i++) {
    if (shares[i] === 0) continue
    const r = values[i] - predicted[rowIndex ? rowIndex[i] : i]
    loss += shares[i] * (r > 0 ? level * r : (level - 1) * r)
  }
  let norm = 0
  for (const w of weights) norm += Math.abs(w)
  let excess = 0
  limit?.values.forEach((value, row) => {
    if (!Number.isNaN(value)) excess = Math.max(excess, limit.side * (value - predicted[row]))
  })
  return { objective: loss + alpha * norm, excess }
}

function evaluateDual(products: Products, labels: Labels, shares: Float64Array, claim: Claim): number {
  const { values, rowIndex } = labels
  const { alpha, weights, intercept, limit } = claim
  const u = clip(shares, claim)
  const perRow = new Float64Array(products.rows)
  const sizes = new Float64Array(products.rows)
  let value = 0
  let sum = 0
  for (let row = 0; limit && row < perRow.length; row++) {
    const multiplier = limit.multipliers[row]
    if (Number.isNaN(limit.values[row]) || !(multiplier > 0 && multiplier < Infinity)) continue
    perRow[row] = limit.side * multiplier
    sizes[row] = multiplier
    value += limit.side * multiplier * limit.values[row]
    sum += limit.side * multiplier
  }
  if (intercept !== null && !balance(u, shares, claim.level, sum)) return 0
  for (let i = 0; i < values.length; i++) {
    if (shares[i] === 0) continue
    const row = rowIndex ? rowIndex[i] : i
    perRow[row] += shares[i] * u[i]
    sizes[row] += Math.abs(shares[i] * u[i])
    value += shares[i] * u[i] * values[i]
    sum += shares[i] * u[i]
  }
  const total = products.correlate(perRow)
  if (intercept !== null) value -= REACH * Math.abs(sum * intercept)
  const terms = alpha > 0 ? null : products.correlate(sizes, true)
  let largest = 0
  for (let d = 0; d < weights.length; d++) {
    if (terms === null) largest = Math.max(largest, Math.abs(total[d]))
    else if (Math.abs(total[d]) > BALANCED * terms[d]) return 0
    else value -= REACH * Math.abs(total[d] * weights[d])
  }
  const bound = largest > alpha && alpha > 0 ? value * (alpha / largest) : value
  return Math.max(0, bound)
}

function clip(shares: Float64Array, { level, dual }: Claim): Float64Array {
  return shares.map((share, i) =>
    share > 0 && Number.isFinite(dual[i]) ? Math.min(level, Math.max(level - 1, dual[i])) : 0,
  )
}

// Moves values in proportion to their distance from both bounds until the weighted sum and `rest` add to 0; values at a
// bound stay there.
function balance(u: Float64Array, shares: Float64Array, level: number, rest: number): boolean {
  const step = (round: number): boolean | null => {
    let sum = rest
    let absolute = Math.abs(rest)
    let room = 0
    for (let i = 0; i < u.length; i++) {
      sum += shares[i] * u[i]
      absolute += shares[i] * Math.abs(u[i])
      room += shares[i] * (level - u[i]) * (u[i] - level + 1)
    }
    if (Math.abs(sum) <= 1e-14 * absolute) return true
    if (round === ROUNDS) return Math.abs(sum) <= BALANCED * absolute
    if (room <= 0) return false
    const by = Math.max(-1, Math.min(1, sum / room))
    for (let i = 0; i < u.length; i++) if (shares[i] > 0) u[i] -= by * (level - u[i]) * (u[i] - level + 1)
    return null
  }
  for (let round = 0; ; round++) {
    const done = step(round)
    if (done !== null) return done
  }
}
