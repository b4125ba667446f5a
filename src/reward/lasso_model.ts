// The quadratic model of one proximal Newton step:  min over p   -g'p + p'Hp / 2 + sum_c penalty_c |w_c + p_c|.
//
// Alternates coordinate descent, which finds signs and zeros, with Newton steps on the support, which find the values.

import type { Matrix, Vector } from './matrix.ts'

/** Model of width m = w.length; H is [m, ld], symmetric, both triangles filled. */
export interface LassoModel {
  readonly matrix: Matrix
  readonly h: Vector<Float64Array>
  readonly ld: number
  readonly g: Float64Array
  readonly w: Float64Array
  readonly penalty: Float64Array
  /** Working memory: [ld, ld] and [ld]. */
  readonly factor: Vector<Float64Array>
  readonly side: Vector<Float64Array>
}

const ROUNDS = 20
/** The model is solved when its optimality residual has fallen by this factor. */
const REDUCTION = 20

/** Returns the step p [m], at which the model is below its value at p = 0. */
export function solveLassoModel(model: LassoModel): Float64Array {
  const m = model.w.length
  const p = new Float64Array(m)
  // Gradient of the smooth part, Hp - g, kept up to date.
  const gradient = model.g.map((g) => -g)
  const first = residual(model, p, gradient)
  for (let round = 0; round < ROUNDS; round++) {
    sweep(model, p, gradient)
    sweep(model, p, gradient)
    newtonOnSupport(model, p, gradient)
    if (residual(model, p, gradient) <= first / REDUCTION) break
  }
  return p
}

// Largest violation of the model's optimality conditions.
function residual({ w, penalty }: LassoModel, p: Float64Array, gradient: Float64Array): number {
  let largest = 0
  for (let c = 0; c < p.length; c++) {
    const z = w[c] + p[c]
    const excess = z !== 0 ? Math.abs(gradient[c] + penalty[c] * Math.sign(z)) : Math.abs(gradient[c]) - penalty[c]
    if (excess > largest) largest = excess
  }
  return largest
}

function sweep(model: LassoModel, p: Float64Array, gradient: Float64Array): void {
  const { ld, w, penalty } = model
  const h = model.h.values
  for (let c = 0; c < p.length; c++) {
    const curvature = h[c * ld + c]
    if (!(curvature > 0)) continue
    const z = w[c] + p[c]
    const free = z - gradient[c] / curvature
    const shrink = penalty[c] / curvature
    const next = free > shrink ? free - shrink : free < -shrink ? free + shrink : 0
    if (next !== z) move(h, c * ld, next - z, c, p, gradient)
  }
}

function move(h: Float64Array, row: number, by: number, c: number, p: Float64Array, gradient: Float64Array): void {
  p[c] += by
  for (let k = 0; k < gradient.length; k++) gradient[k] += by * h[row + k]
}

// Solves for the values on the current support with signs held; a full step whose sign changes are cut to zero is taken where
// it lowers the model, else the step as far as the first change of sign.
function newtonOnSupport(model: LassoModel, p: Float64Array, gradient: Float64Array): void {
  const { matrix, h, ld, w, penalty, factor, side } = model
  const support: number[] = []
  for (let c = 0; c < p.length; c++) if (w[c] + p[c] !== 0 || penalty[c] === 0) support.push(c)
  const s = support.length
  if (s === 0) return
  for (let i = 0; i < s; i++) {
    const from = support[i] * ld
    for (let j = 0; j <= i; j++) factor.values[i * ld + j] = h.values[from + support[j]]
    side.values[i] = -gradient[support[i]] - penalty[support[i]] * Math.sign(w[support[i]] + p[support[i]])
  }
  matrix.cholesky(factor, s, ld)
  matrix.solve(factor, s, ld, side)
  let reach = 1
  const cut = new Float64Array(p.length)
  for (let i = 0; i < s; i++) {
    const c = support[i]
    const z = w[c] + p[c]
    const d = side.values[i]
    cut[c] = d
    if (penalty[c] > 0 && z * (z + d) < 0) {
      reach = Math.min(reach, -z / d)
      cut[c] = -z
    }
  }
  if (reach < 1 && !lowers(model, support, cut, p, gradient)) {
    for (let i = 0; i < s; i++) cut[support[i]] = reach * side.values[i]
  }
  apply(model, support, cut, p, gradient)
}

// Whether the step lowers the model.
function lowers(
  model: LassoModel,
  support: readonly number[],
  step: Float64Array,
  p: Float64Array,
  gradient: Float64Array,
): boolean {
  const { w, penalty } = model
  const curved = times(model, support, step)
  let change = 0
  for (const c of support) {
    change += step[c] * (gradient[c] + 0.5 * curved[c])
    change += penalty[c] * (Math.abs(w[c] + p[c] + step[c]) - Math.abs(w[c] + p[c]))
  }
  return change < 0
}

function times({ h, ld }: LassoModel, support: readonly number[], step: Float64Array): Float64Array {
  const out = new Float64Array(step.length)
  for (const c of support) {
    const by = step[c]
    if (by === 0) continue
    const row = c * ld
    for (let k = 0; k < out.length; k++) out[k] += by * h.values[row + k]
  }
  return out
}

function apply(
  model: LassoModel,
  support: readonly number[],
  step: Float64Array,
  p: Float64Array,
  gradient: Float64Array,
): void {
  const curved = times(model, support, step)
  for (let k = 0; k < gradient.length; k++) gradient[k] += curved[k]
  for (const c of support) {
    const z = model.w[c] + p[c]
    // A coordinate that is meant to reach zero must be zero exactly, whatever rounding says.
    const zero = step[c] === -z || (model.penalty[c] > 0 && z * (z + step[c]) < 0)
    p[c] = zero ? -model.w[c] : p[c] + step[c]
  }
}
