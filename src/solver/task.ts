// What the solvers are given and what they give back.
import type { Device } from '../device/device.ts'
import type { LabelSet } from './labels.ts'
import type { Matrix } from './matrix.ts'
import type { Phases } from './phases.ts'

/** One level of one attribute, in the solver's units (labels shifted and scaled to a mean size of about 1). */
export interface Task {
  readonly matrix: Matrix
  readonly labels: LabelSet
  /** Targets [N], in place of labels.values. */
  readonly y: Float64Array
  readonly level: number
  /** Level of each label [N] where they differ: 1 for a floor under the predictions (see non_crossing.ts). */
  readonly levels?: Float64Array
  /** How far a prediction may stay below its floor. */
  readonly slack?: number
  /** Penalty on the mean loss, 0 or more, of the columns below matrix.columns. */
  readonly penalty: number
  /** Whether matrix.columns, the intercept, takes part. */
  readonly intercept: boolean
  /** Stop at this relative gap, or at this absolute one. */
  readonly tolerance: number
  /** A relative gap at which a stalled solver need not try for long. */
  readonly enough: number
  readonly floor: number
  readonly phases: Phases
  /** A GPU for the products of the Newton matrix. */
  readonly device: Device | null
  readonly signal?: AbortSignal
  /** Lets the event loop run now and then, and says how far the solver has come. */
  readonly pause: (state: { gap: number; nonzeros: number; iterations: number }) => Promise<void>
}

/** What a solver found. Both points are only claims until a certificate has looked at them. */
export interface Solution {
  /** Weights [stride] including the intercept at matrix.columns. */
  readonly weights: Float64Array
  /** Dual values per unit of weight, in [level - 1, level], [N]. */
  readonly dual: Float64Array
  readonly objective: number
  readonly bound: number
  readonly iterations: number
}
