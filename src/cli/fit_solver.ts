// The solver as `pinball fit` uses it; its errors about features name the file.
import type { DeviceKind } from '../device/open.ts'
import type { FeatureBlocks } from '../files/table.ts'
import { openSolver as open, type Solver } from '../solver/fit.ts'

export { type AlphaProgress, type ChosenAlpha, chooseAlpha } from '../solver/alpha.ts'
export type { FitOptions, LevelFit, Progress, Solver } from '../solver/fit.ts'

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
