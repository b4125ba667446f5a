// The work of `pinball fit`: all levels of all attributes, on from what is finished, with progress and an end on interrupt.
import type { DeviceKind } from '../device/open.ts'
import { show } from '../files/json.ts'
import { figure } from './draw.ts'
import type { AttributeFit, Finished, Keeper, Settings } from './fit_partial.ts'
import type { Problem } from './fit_problem.ts'
import {
  type AlphaProgress,
  chooseAlpha,
  type FitOptions,
  type LevelFit,
  openSolver,
  type Progress,
  type Solver,
} from './fit_solver.ts'
import { duration, startStatus } from './progress.ts'

export interface Work {
  readonly problem: Problem
  readonly settings: Settings
  readonly finished: Finished
  readonly keeper: Keeper
  readonly threads?: number
  readonly device: DeviceKind
  readonly signal: AbortSignal
}

/** Finishes what is not finished yet, level after level. Throws the signal's reason where it is aborted. */
export async function finishLevels(work: Work): Promise<void> {
  const { problem, settings, finished, threads, device, signal } = work
  const { attributes, levels } = settings
  if (finished.fits.length === attributes.length * levels.length) return
  const { features } = problem
  const read: typeof features.read = (firstRow, count) => {
    signal.throwIfAborted()
    return features.read(firstRow, count)
  }
  const solver = await openSolver({ ...features, read }, { threads, device }).finally(() => problem.close())
  const progress = startLevels(attributes.length * levels.length, finished.fits.length)
  try {
    for (let m = Math.floor(finished.fits.length / levels.length); m < attributes.length; m++) {
      await finishAttribute(solver, m, work, progress)
    }
  } finally {
    progress.end()
    await solver.close()
  }
}

async function finishAttribute(
  solver: Solver,
  m: number,
  { problem, settings, finished, keeper, signal }: Work,
  progress: LevelProgress,
): Promise<void> {
  const { levels, intercept, tolerance, nonCrossing, columns } = settings
  const attribute = settings.attributes[m]
  const labels = attributeLabels(problem, m)
  const first = finished.fits.length - m * levels.length
  const options = { intercept, tolerance, signal }
  const onProgress = (state: Progress) => progress.update(attribute, state)
  if (settings.alpha === 'auto' && finished.alphas.length === m) {
    const onProgress = (state: AlphaProgress) => progress.choose(attribute, state)
    finished.alphas.push(
      await chooseAlpha(solver, labels, { levels, intercept, signal, onProgress }).catch((error: Error) => {
        if (signal.aborted) throw error
        throw new Error(`labels ${show(attribute)}: ${error.message}`, { cause: error })
      }),
    )
    keeper.touch()
  }
  const waiting: AttributeFit[] = []
  const keep = (...fits: AttributeFit[]) => {
    finished.fits.push(...fits)
    keeper.touch()
  }
  const onLevel: FitOptions['onLevel'] = ({ index, fit, weights, intercept: constant }) => {
    const row = m * levels.length + first + index
    finished.weight.set(weights, row * columns)
    if (finished.bias && constant !== null) finished.bias[row] = constant
    // Levels that hold each other come from the middle outward, and count only together.
    if (nonCrossing) waiting[index] = { attribute, ...fit }
    else keep({ attribute, ...fit })
    progress.done(attribute, fit)
  }
  await solver.fit(labels, {
    ...options,
    levels: levels.slice(first),
    alpha: settings.alpha === 'auto' ? finished.alphas[m].alpha : settings.alpha,
    ...(nonCrossing && { nonCrossing }),
    ...(first > 0 && { start: startAfter(finished, m * levels.length + first - 1, columns) }),
    onLevel,
    onProgress,
  })
  if (nonCrossing) keep(...waiting)
}

/** Where the level after output `row` starts. */
function startAfter({ weight, bias }: Finished, row: number, columns: number): FitOptions['start'] {
  return { weights: weight.slice(row * columns, (row + 1) * columns), intercept: bias ? bias[row] : null }
}

function attributeLabels({ labels, attributes, rowIndex, weights }: Problem, m: number) {
  const count = attributes.length
  const values = new Float32Array(labels.length / count)
  for (let i = 0; i < values.length; i++) values[i] = labels[i * count + m]
  return { values, rowIndex, weights }
}

interface LevelProgress {
  update(attribute: string, state: Progress): void
  /** For the search of an attribute's alpha. */
  choose(attribute: string, state: AlphaProgress): void
  done(attribute: string, fit: LevelFit): void
  end(): void
}

function startLevels(total: number, before: number): LevelProgress {
  const status = startStatus()
  const start = performance.now()
  let done = before
  const overall = () => {
    const each = (performance.now() - start) / 1000 / (done - before)
    const left = done > before ? `, ${duration(each * (total - done))} left` : ''
    return `${done} of ${total} levels${left}`
  }
  const show = (attribute: string, { level, gap, nonzeros, iterations }: Progress | LevelFit) =>
    status.show(() => {
      const steps = `${iterations} ${iterations === 1 ? 'step' : 'steps'}`
      return `${attribute} ${level}: gap ${gap.toExponential(1)}, ${nonzeros} nonzeros, ${steps}; ${overall()}`
    })
  return {
    update: show,
    choose: (attribute, state) => status.show(() => `${attribute}: ${choosing(state)}; ${overall()}`),
    done(attribute, fit) {
      done++
      show(attribute, fit)
    },
    end: status.end,
  }
}

/** How far the choice of a penalty has come, in words. */
export function choosing({ index, alphas, alpha, fold, folds }: AlphaProgress): string {
  if (index < 0) return 'choosing alpha, first where it begins'
  return `choosing alpha, ${index + 1} of ${alphas} (${figure(alpha)}), fold ${fold + 1} of ${folds}`
}
