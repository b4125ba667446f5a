// The quadratic model of one proximal Newton step:  min over p   -g'p + p'Hp / 2 + sum_c penalty_c |w_c + p_c|.
//
// Alternates coordinate descent, which finds signs and zeros, with Newton steps on the support, which find the values. A
// factor in f32 solves for those; what it leaves over is found in f64 and solved for again.
import type { F32, F64, U32 } from './arena.ts'
import { Factor } from './factor.ts'
import type { Phases } from './phases.ts'
import type { Team } from './team.ts'

const ROUNDS = 6
/** The model is solved when its optimality residual has fallen by this factor. */
const REDUCTION = 20
const REFINEMENTS = 4
/** Refinement ends when what is left over has fallen to this share. */
const REFINED = 0.03

/** H = G + diag(ridge) for a symmetric G, f32 [size, ld] at address `at`. */
export interface Symmetric {
  readonly at: number
  readonly ld: number
  readonly size: number
}

export class LassoModel {
  readonly #team: Team
  readonly #phases: Phases
  /** The model, by position; the caller fills these in. Padding has a penalty, and so is never moved. */
  readonly ridge: F64
  readonly penalty: F64
  readonly weight: F64
  readonly #p: F64
  readonly #gradient: F64
  readonly #step: F64
  readonly #curved: F64
  readonly #support: U32
  readonly #side: F32
  readonly #factor: Factor

  constructor(team: Team, phases: Phases, capacity: number) {
    const { arena } = team
    this.#team = team
    this.#phases = phases
    const vector = () => arena.f64(capacity)
    this.ridge = vector()
    this.penalty = vector()
    this.weight = vector()
    this.#p = vector()
    this.#gradient = vector()
    this.#step = vector()
    this.#curved = vector()
    this.#support = arena.u32(capacity)
    this.#side = arena.f32(capacity)
    this.#factor = new Factor(team, capacity)
  }

  /** Solves for the gradient g [size], and returns p; it is overwritten by the next call. */
  solve(matrix: Symmetric, g: Float64Array): Float64Array {
    const { size } = matrix
    this.#p.values.fill(0, 0, size)
    const gradient = this.#gradient.values
    for (let c = 0; c < size; c++) gradient[c] = -g[c]
    const first = this.#residual(size)
    for (let round = 0; round < ROUNDS; round++) {
      this.#sweep(matrix)
      this.#sweep(matrix)
      const before = this.#phases.enter('factor')
      this.#newtonOnSupport(matrix)
      this.#phases.enter(before)
      if (this.#residual(size) <= first / REDUCTION) break
    }
    return this.#p.values
  }

  // Largest violation of the model's optimality conditions.
  #residual(size: number): number {
    const [p, w, penalty, gradient] = [this.#p.values, this.weight.values, this.penalty.values, this.#gradient.values]
    let largest = 0
    for (let c = 0; c < size; c++) {
      const z = w[c] + p[c]
      const excess = z !== 0 ? Math.abs(gradient[c] + penalty[c] * Math.sign(z)) : Math.abs(gradient[c]) - penalty[c]
      if (excess > largest) largest = excess
    }
    return largest
  }

  #sweep({ at, ld, size }: Symmetric): void {
    const { ridge, penalty, weight } = this
    this.#team.kernels.sweep(at, ld, size, ridge.at, penalty.at, weight.at, this.#p.at, this.#gradient.at)
  }

  // Solves for the values on the support with signs held; a full step whose sign changes are cut to zero is taken where it
  // lowers the model, else the step as far as the first change of sign.
  #newtonOnSupport(matrix: Symmetric): void {
    const { size } = matrix
    const [p, w, penalty, gradient] = [this.#p.values, this.weight.values, this.penalty.values, this.#gradient.values]
    const support = this.#support.values
    let s = 0
    for (let c = 0; c < size; c++) if (w[c] + p[c] !== 0 || penalty[c] === 0) support[s++] = c
    if (s === 0) return
    const padded = (s + 7) & ~7
    this.#factor.make(matrix, this.ridge, this.#support, s, padded)
    const step = this.#solveRefined(matrix, s, padded)
    const curved = this.#curved.values
    let reach = 1
    let cut = false
    for (let i = 0; i < s; i++) {
      const c = support[i]
      const z = w[c] + p[c]
      if (penalty[c] > 0 && z * (z + step[c]) < 0) {
        reach = Math.min(reach, -z / step[c])
        cut = true
      }
    }
    if (cut) {
      const full = step.slice(0, size)
      for (let i = 0; i < s; i++) {
        const c = support[i]
        const z = w[c] + p[c]
        if (penalty[c] > 0 && z * (z + step[c]) < 0) step[c] = -z
      }
      this.#times(matrix)
      if (this.#change(s) >= 0) {
        for (let c = 0; c < size; c++) step[c] = reach * full[c]
        this.#times(matrix)
      }
    }
    for (let c = 0; c < size; c++) gradient[c] += curved[c]
    for (let i = 0; i < s; i++) {
      const c = support[i]
      const z = w[c] + p[c]
      // A coordinate that is meant to reach zero must be zero exactly, whatever rounding says.
      const zero = step[c] === -z || (penalty[c] > 0 && z * (z + step[c]) < 0)
      p[c] = zero ? -w[c] : p[c] + step[c]
    }
  }

  // Change of the model by `step`, with `curved` = H step.
  #change(s: number): number {
    const [p, w, penalty, gradient] = [this.#p.values, this.weight.values, this.penalty.values, this.#gradient.values]
    const [step, curved, support] = [this.#step.values, this.#curved.values, this.#support.values]
    let change = 0
    for (let i = 0; i < s; i++) {
      const c = support[i]
      change += step[c] * (gradient[c] + 0.5 * curved[c])
      change += penalty[c] * (Math.abs(w[c] + p[c] + step[c]) - Math.abs(w[c] + p[c]))
    }
    return change
  }

  // step = minus the inverse of H on the support times (gradient + penalty * sign), refined until little is left over; `curved`
  // is H step.
  #solveRefined(matrix: Symmetric, s: number, padded: number): Float64Array {
    const [p, w, penalty, gradient] = [this.#p.values, this.weight.values, this.penalty.values, this.#gradient.values]
    const [step, curved, support, side] = [
      this.#step.values,
      this.#curved.values,
      this.#support.values,
      this.#side.values,
    ]
    step.fill(0, 0, matrix.size)
    curved.fill(0, 0, matrix.size)
    const target = new Float64Array(s)
    for (let i = 0; i < s; i++) {
      const c = support[i]
      target[i] = -gradient[c] - penalty[c] * Math.sign(w[c] + p[c])
    }
    let left = Number.POSITIVE_INFINITY
    let first = 0
    for (let round = 0; round <= REFINEMENTS; round++) {
      let norm = 0
      for (let i = 0; i < s; i++) {
        const rest = target[i] - curved[support[i]]
        side[i] = rest
        norm += rest * rest
      }
      if (round === 0) first = norm
      // Where refinement makes it worse, the matrix is singular to f32: the coordinate descent has to do.
      if (norm > left) {
        for (let i = 0; i < s; i++) step[support[i]] = this.#before[i]
        this.#times(matrix)
        break
      }
      left = norm
      if (round === REFINEMENTS || norm <= REFINED * REFINED * first || norm === 0) break
      for (let i = 0; i < s; i++) this.#before[i] = step[support[i]]
      side.fill(0, s, padded)
      this.#factor.solve(this.#side)
      for (let i = 0; i < s; i++) step[support[i]] += side[i]
      this.#times(matrix)
    }
    return step
  }

  readonly #before: number[] = []

  #times({ at, ld, size }: Symmetric): void {
    this.#team.kernels.model_times(at, ld, size, this.ridge.at, this.#step.at, this.#curved.at)
  }
}
