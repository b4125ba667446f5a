// How far a fit has come, on standard error.
import type { AlphaProgress } from '../../solver/alpha.ts'
import type { HeadsProgress } from '../../train/heads.ts'
import { figure } from '../draw.ts'
import { duration, startStatus } from '../progress.ts'

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
      const { attribute, level, choice, done } = progress
      before ??= done
      const first = before
      status.show(() => {
        if (choice) return `${attribute}: ${choosing(choice)}; ${overall(progress, first)}`
        const { gap, nonzeros, iterations } = level!
        const steps = `${iterations} ${iterations === 1 ? 'step' : 'steps'}`
        return `${attribute} ${level!.level}: gap ${gap.toExponential(1)}, ${nonzeros} nonzeros, ${steps}; ${overall(progress, first)}`
      })
    },
    end: status.end,
  }
}

/** How far the choice of a penalty has come, in words. */
export function choosing({ index, alphas, alpha, fold, folds }: AlphaProgress): string {
  if (index < 0) return 'choosing alpha, first where it begins'
  return `choosing alpha, ${index + 1} of ${alphas} (${figure(alpha)}), fold ${fold + 1} of ${folds}`
}
