// The solver as `pinball fit` uses it; its errors about features name the file.
import type { DeviceKind } from '../device/open.ts'
import type { FeatureBlocks } from '../files/table.ts'
import { openSolver as open, type Solver } from '../solver/fit.ts'

export type { FitOptions, LevelFit, Progress, Solver } from '../solver/fit.ts'

/** A penalty that was chosen by cross-validation, with the mean loss on held-out rows and its standard error along the path. */
export interface ChosenAlpha {
  readonly alpha: number
  readonly path: { readonly alpha: number; readonly loss: number; readonly error: number }[]
}

/** Opens the solver for the features of a file. */
export async function openSolver(
  features: FeatureBlocks,
  options: { readonly threads?: number; readonly device?: DeviceKind },
): Promise<Solver> {
  try {
    return await open(features, options)
  } catch (error) {
    const { message } = error as Error
    throw message.includes(features.name) ? error : new Error(`${features.name}: ${message}`, { cause: error })
  }
}

export async function chooseAlpha(..._args: unknown[]): Promise<ChosenAlpha> {
  throw new Error('fit: --alpha auto is not there yet')
}
