// How far a fit has come, on standard error.
import { levelsText } from '../../report/fit.ts'
import type { HeadsProgress } from '../../train/heads.ts'
import { startStatus } from '../progress.ts'

export interface LevelProgress {
  update(progress: HeadsProgress): void
  /** Clears the line. */
  end(): void
}

/** Starts a line that says which level is being fitted, how far it is, and how long all will take. */
export function startLevels(): LevelProgress {
  const status = startStatus()
  const start = performance.now()
  let before: number | null = null
  return {
    update(progress) {
      before ??= progress.done
      const first = before
      status.show(() => levelsText(progress, first, (performance.now() - start) / 1000))
    },
    end: status.end,
  }
}
