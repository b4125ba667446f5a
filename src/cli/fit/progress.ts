// How far a fit has come, on standard error.
import { duration } from '../../report/draw.ts'
import { doing } from '../../report/fit.ts'
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
  const overall = ({ done, total }: HeadsProgress, first: number) => {
    const each = (performance.now() - start) / 1000 / (done - first)
    const left = done > first ? `, ${duration(each * (total - done))} left` : ''
    return `${done} of ${total} levels${left}`
  }
  return {
    update(progress) {
      before ??= progress.done
      const first = before
      status.show(() => `${doing(progress)}; ${overall(progress, first)}`)
    },
    end: status.end,
  }
}
