// Reward distributions as vectors of quantile values: mixing attributes, and the distribution that such a vector stands for.
//
// Source: QRM, section 3.4 (mixture: equation 3) and its published forward pass. A vector q [K] at the levels t [K] is read
// in two ways, and each function says which:
// - masses: K equally likely values, as the paper takes its expectations. No order is needed.
// - curve: the quantile function Q that is linear between the points (t[k], q[k]) and goes on to levels 0 and 1 with the slope
//   of its first and last piece; one point alone is a constant. Q must not decrease: `rearrange` first where levels cross.
//   A flat piece of Q is an atom: its levels' share of probability lies on one value.
// The two differ a little: the mean of the masses is the integral of the curve only up to its tails.
import { checkFinite, place, quantileModule } from './quantile.ts'

/** How attributes are added up: `sum` is equation 3; `mean` also divides by their number, as one released model does. */
export type Mixture = 'sum' | 'mean'

export interface MixInput {
  /** Quantile values of each attribute [N, M, K]. */
  readonly values: ArrayLike<number>
  /** Weights of the attributes [N, M]. */
  readonly gate: ArrayLike<number>
  /** The matrix T [M, M], rows = from, columns = to; absent or null: identity. */
  readonly transform?: ArrayLike<number> | null
  /** M */
  readonly objectives: number
  /** K */
  readonly levels: number
  readonly mixture?: Mixture
}

export interface MixOutput {
  /** A'[n, j, k] = sum over i of A[n, i, k] * T[i, j]; [N, M, K]. */
  readonly debiased: Float64Array
  /** sum over j of g[n, j] * A'[n, j, k], divided by M where the mixture is `mean`; [N, K]. */
  readonly quantiles: Float64Array
  /** sum over j of g[n, j] * mean over k of A'[n, j, k], under both mixtures; [N]. */
  readonly scores: Float64Array
}

// Rows are mixed in portions of this many values, so that the module's memory stays small.
const PORTION = 1 << 17

/** The K levels k / (K + 1), k = 1..K. */
export function evenLevels(count: number): number[] {
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new Error(`levels: their number must be a whole number of at least 1, got ${count}`)
  }
  return Array.from({ length: count }, (_, k) => (k + 1) / (count + 1))
}

/** Throws unless `levels` increase strictly, inside of 0 and 1 (both excluded); `name` is what the error calls them. */
export function checkLevels(levels: ArrayLike<number>, name = 'levels'): void {
  if (levels.length === 0) throw new Error(`${name}: must have at least one level, got none`)
  for (let k = 0; k < levels.length; k++) {
    if (!(levels[k] > 0 && levels[k] < 1)) throw new Error(`${name}: must be between 0 and 1, got ${levels[k]}`)
    if (k > 0 && !(levels[k] > levels[k - 1])) {
      throw new Error(`${name}: must increase, got ${levels[k]} after ${levels[k - 1]}`)
    }
  }
}

/** Debiases and mixes the attributes' quantiles of N rows, in float64. Throws on sizes that disagree and on NaN or infinity. */
export function mix(input: MixInput): MixOutput {
  const { values, gate, transform = null, objectives, levels, mixture = 'sum' } = input
  const rows = checkMix(input)
  const stride = objectives * levels
  const output: MixOutput = {
    debiased: new Float64Array(values.length),
    quantiles: new Float64Array(rows * levels),
    scores: new Float64Array(rows),
  }
  const portion = Math.max(1, Math.floor(PORTION / stride))
  for (let begin = 0; begin < rows; begin += portion) {
    const count = Math.min(portion, rows - begin)
    const { at, views } = place(
      slice(values, begin * stride, count * stride),
      slice(gate, begin * objectives, count * objectives),
      transform ?? 0,
      count * stride,
      count * levels,
      count,
    )
    const matrix = transform === null ? 0 : at[2]
    const mean = mixture === 'mean' ? 1 : 0
    quantileModule().mix(at[0], matrix, at[1], at[3], at[4], at[5], count, objectives, levels, mean)
    output.debiased.set(views[3], begin * stride)
    output.quantiles.set(views[4], begin * levels)
    output.scores.set(views[5], begin)
  }
  return output
}

function checkMix({ values, gate, transform, objectives, levels, mixture }: MixInput): number {
  for (const [name, count] of [
    ['objectives', objectives],
    ['levels', levels],
  ] as const) {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new Error(`mix: ${name} must be a whole number of at least 1, got ${count}`)
    }
  }
  const rows = gate.length / objectives
  if (!Number.isSafeInteger(rows) || values.length !== rows * objectives * levels) {
    throw new Error(
      `mix: values [N, ${objectives}, ${levels}] and gate [N, ${objectives}] must have one N, ` +
        `got ${values.length} and ${gate.length} numbers`,
    )
  }
  if (transform && transform.length !== objectives * objectives) {
    throw new Error(`mix: transform must be [${objectives}, ${objectives}], got ${transform.length} numbers`)
  }
  if (mixture !== undefined && mixture !== 'sum' && mixture !== 'mean') {
    throw new Error(`mix: mixture must be sum or mean, got ${String(mixture)}`)
  }
  if (rows > 0) {
    checkFinite(values, 'mix: values')
    checkFinite(gate, 'mix: gate')
  }
  if (transform) checkFinite(transform, 'mix: transform')
  return rows
}

function slice(array: ArrayLike<number>, begin: number, length: number): ArrayLike<number> {
  if (begin === 0 && length === array.length) return array
  return Float64Array.from({ length }, (_, i) => array[begin + i])
}

/** The values in ascending order: the monotone rearrangement of crossing quantiles (Chernozhukov et al. 2010). */
export function rearrange(values: ArrayLike<number>): Float64Array {
  checkFinite(values, 'rearrange: quantile values')
  const { at, views } = place(values)
  quantileModule().rearrange(at[0], values.length)
  return views[0].slice()
}

/** mean over k of q[k] (masses): the paper's expectation. */
export function expectation(values: ArrayLike<number>): number {
  checkFinite(values, 'expectation: quantile values')
  const count = values.length
  let sum = 0
  for (let k = 0; k < count; k++) sum += values[k]
  if (Number.isFinite(sum)) return sum / count
  // Where the plain sum overflows, the values are divided before they are added.
  sum = 0
  for (let k = 0; k < count; k++) sum += values[k] / count
  return sum
}

/** mean over k of (q[k] - expectation)^2 (masses). */
export function variance(values: ArrayLike<number>): number {
  checkFinite(values, 'variance: quantile values')
  return quantileModule().variance(place(values).at[0], values.length)
}

type CurveFunction = 'quantile' | 'cdf' | 'below' | 'density' | 'tail_mean'

/** Q(level) of the curve, 0 <= level <= 1. Throws on values that decrease. */
export function quantile(values: ArrayLike<number>, levels: ArrayLike<number>, level: number): number {
  if (!(level >= 0 && level <= 1)) throw new Error(`quantile: level must be 0 to 1, got ${level}`)
  return onCurve('quantile', 'quantile', values, levels, level)
}

/** P(R <= reward) of the curve: the largest level whose quantile is at most `reward`. Throws on values that decrease. */
export function cdf(values: ArrayLike<number>, levels: ArrayLike<number>, reward: number): number {
  return onCurve('cdf', 'cdf', values, levels, reward)
}

/** P(R < reward) of the curve; less than `cdf` by the atom at `reward`, if there is one. Throws on values that decrease. */
export function probabilityBelow(values: ArrayLike<number>, levels: ArrayLike<number>, reward: number): number {
  return onCurve('below', 'probabilityBelow', values, levels, reward)
}

/**
 * Density of the curve at `reward`: the levels that a piece spans, divided by the values it spans. At a point between two
 * pieces it is that of the upper one; Infinity at an atom; 0 outside of [Q(0), Q(1)) otherwise. Throws on values that decrease.
 */
export function density(values: ArrayLike<number>, levels: ArrayLike<number>, reward: number): number {
  return onCurve('density', 'density', values, levels, reward)
}

/**
 * Mean of the lowest share of the curve, 1 / level * integral of Q from 0 to level, 0 < level <= 1; at level 1 the mean of the
 * curve. `cvar` is the same of the masses. Throws on values that decrease.
 */
export function tailMean(values: ArrayLike<number>, levels: ArrayLike<number>, level: number): number {
  if (!(level > 0 && level <= 1)) throw new Error(`tailMean: level must be above 0 and at most 1, got ${level}`)
  return onCurve('tail_mean', 'tailMean', values, levels, level)
}

function onCurve(
  name: CurveFunction,
  where: string,
  values: ArrayLike<number>,
  levels: ArrayLike<number>,
  at: number,
): number {
  checkFinite(values, `${where}: quantile values`)
  checkLevels(levels, `${where}: levels`)
  if (levels.length !== values.length) {
    throw new Error(`${where}: values and levels must be equally many, got ${values.length} and ${levels.length}`)
  }
  if (Number.isNaN(at)) throw new Error(`${where}: the reward must be a number, got NaN`)
  for (let k = 1; k < values.length; k++) {
    if (values[k] < values[k - 1]) {
      throw new Error(
        `${where}: quantile values must not decrease, got ${values[k - 1]} at level ${levels[k - 1]} and ` +
          `${values[k]} at ${levels[k]}; rearrange them first`,
      )
    }
  }
  const points = values.length + 2
  const placed = place(points, points)
  const [t, q] = placed.views
  t.set(levels, 1)
  q.set(values, 1)
  const wasm = quantileModule()
  wasm.extend(placed.at[0], placed.at[1], values.length)
  if (!Number.isFinite(q[0]) || !Number.isFinite(q[points - 1])) {
    throw new Error(`${where}: the curve must end in finite values, got ${q[0]} and ${q[points - 1]}`)
  }
  return wasm[name](placed.at[0], placed.at[1], points, at)
}
