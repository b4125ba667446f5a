// Cholesky factors in f32 of parts of a symmetric matrix, made by all threads; its kernels are in assembly/solver/factor.ts.
import type { F32, F64, U32 } from './arena.ts'
import type { Team } from './team.ts'

/** Memory for one factor at a time, of up to `capacity` rows. Owns memory of the team. */
export class Factor {
  readonly #team: Team
  readonly #width: number
  readonly #values: number
  readonly #diagonal: number
  readonly #inverse: number
  readonly #strips: number
  #size = 0

  constructor(team: Team, capacity: number) {
    const { arena, kernels } = team
    this.#team = team
    this.#width = kernels.factor_width()
    this.#diagonal = arena.take(capacity * 4)
    this.#inverse = arena.take(this.#width * this.#width * 4)
    this.#strips = arena.take(capacity * this.#width * 4)
    this.#values = arena.take(capacity * (capacity + 16) * 4)
  }

  // An odd number of 32-byte groups keeps rows from fighting for the same cache lines.
  get #ld(): number {
    return ((this.#size / 8) | 1) * 8
  }

  /**
   * Factors the rows and columns support[0 .. count - 1] of `matrix` + diag(ridge), f32 [*, ld] at address `at`; `size` is `count`
   * rounded up to a multiple of 8, with unit rows.
   */
  make({ at, ld }: { at: number; ld: number }, ridge: F64, support: U32, count: number, size: number): void {
    this.#size = size
    const team = this.#team
    const width = this.#width
    const [a, lda] = [this.#values, this.#ld]
    const copying = [at, ld, ridge.at, support.at, count, a, lda, this.#diagonal]
    team.run('factor_copy', copying, size, size > 128 ? 32 : size)
    for (let k = 0; k < size; k += width) {
      const block = Math.min(width, size - k)
      team.kernels.factor_block(a, lda, k, block, this.#diagonal, this.#inverse)
      const groups = (size - k - width) / 8
      if (groups <= 0) break
      team.run('factor_rows', [a, lda, k, this.#inverse, this.#strips], groups, groups > 16 ? 2 : groups)
      team.run('factor_update', [a, lda, k, size, this.#strips], groups, groups > 16 ? 1 : groups)
    }
  }

  /** Solves for a right side [size], in place. */
  solve(side: F32): void {
    this.#team.kernels.factor_solve(this.#values, this.#ld, this.#size, side.at)
  }
}
