// Quantile heads over several attributes: all levels of all attributes, each with a certificate, and the penalties where they are
// to be chosen. A fit with a store goes on where it was after a crash, and ends with the same bits.
import type { Device } from '../device/device.ts'
import type { DeviceKind } from '../device/open.ts'
import { show } from '../files/json.ts'
import type { Store } from '../files/store.ts'
import { openWork, type Work, type WorkSettings } from '../files/work.ts'
import { checkLevels } from '../reward/distribution.ts'
import type { Fitted } from '../reward/fitted.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import { type Unit, USUAL_UNIT } from '../reward/unit.ts'
import { type AlphaProgress, type ChosenAlpha, chooseAlpha } from '../solver/alpha.ts'
import { type FitOptions, type LevelFit, openGpu, openSolver, type Progress, type Solver } from '../solver/fit.ts'
import {
  type AttributeFit,
  type Finished,
  type Keeper,
  type Kept,
  keepFinished,
  PART_NAMES,
  readFinished,
} from './heads_keeper.ts'
import { fittedRows, hashFeatures, hashLabels, labelsOf, originOf, type Problem } from './problem.ts'

export interface HeadsOptions {
  /** Quantile levels [K], ascending, each inside (0, 1). */
  readonly levels: readonly number[]
  /** Penalty on the absolute weights, 0 or more; 'auto': by cross-validation, for each attribute. Default 0.003. */
  readonly alpha?: number | 'auto'
  /** What counts once where rows have several ratings; default 'item'. */
  readonly unit?: Unit
  /** Whether to fit an unpenalised constant; default false. */
  readonly intercept?: boolean
  /** Whether to order the levels on the rows they are fitted to; default false. */
  readonly nonCrossing?: boolean
  /** Largest relative duality gap that counts as solved, in (0, 1); default 1e-4. */
  readonly tolerance?: number
  /** See `openSolver`: default 'wasm', because a GPU rounds in its own way. */
  readonly device?: DeviceKind | Device
  /** 1 to 64; default all cores. Results do not depend on it. */
  readonly threads?: number
  /** Keeps what is finished; a fit of the same problem with the same options goes on from there. */
  readonly store?: Store
  /** Begins anew, whatever the store holds of an earlier fit. */
  readonly restart?: boolean
  /** Called once the features are in the solver's memory: they are not read again. */
  readonly onLoaded?: () => void
  /** Called a few times a second, and after each level. */
  readonly onProgress?: (progress: HeadsProgress) => void
  /** Called with what the store holds when the fit begins, and when it ends, is aborted or fails. */
  readonly onKept?: (kept: Kept) => void
  /** Takes a line about each damaged part of the store, and one where the store cannot be written. */
  readonly onNote?: (line: string) => void
  /** The promise rejects with its reason, after what is finished has been kept. */
  readonly signal?: AbortSignal
}

/** How far a fit has come: the level or the choice of a penalty that it works on. */
export interface HeadsProgress {
  readonly attribute: string
  /** Finished levels of all M K. */
  readonly done: number
  readonly total: number
  readonly level?: Progress | LevelFit
  readonly choice?: AlphaProgress
}

/** Heads, as `encodeHeads` and whatever takes a `HeadsFile` take them, with what is known of each. */
export interface FittedHeads extends HeadsFile {
  /** [K] */
  readonly levels: readonly number[]
  /** The penalty, or those that were chosen, by attribute. */
  readonly alpha: number | Readonly<Record<string, number>>
  /** How they were chosen [M]; null where the penalty was given. */
  readonly alphas: readonly ChosenAlpha[] | null
  /** [M K]; those with another status than "optimal" missed the tolerance. */
  readonly fits: readonly AttributeFit[]
  /** As a file of these heads says it: attributes, levels, penalties, options, names of columns, the model of the features. */
  readonly metadata: Readonly<Record<string, string>>
  /** Removes what the store holds of the fit, once the heads are safe elsewhere. */
  end(): Promise<void>
}

type Course = HeadsOptions & Required<Pick<HeadsOptions, 'alpha' | 'unit' | 'intercept' | 'nonCrossing' | 'tolerance'>>

/**
 * Fits heads to all attributes of a problem. Levels of an attribute start from one another, and attributes share one copy of the
 * features; neither the number of threads nor where a fit was cut changes a bit.
 *
 * Throws for options out of range, for features that do not fit into 4 GiB, where the store holds something else, and where it
 * holds a fit with other settings, of which the first that differs is named.
 */
export async function fitHeads(problem: Problem, options: HeadsOptions): Promise<FittedHeads> {
  const { alpha = 0.003, unit = USUAL_UNIT, intercept = false, nonCrossing = false, tolerance = 1e-4, signal } = options
  const course: Course = { ...options, alpha, unit, intercept, nonCrossing, tolerance }
  checkLevels(options.levels, 'fit: levels')
  const outputs = problem.attributes.length * options.levels.length
  const finished: Finished = {
    weight: new Float32Array(outputs * problem.features.columns),
    bias: intercept ? new Float32Array(outputs) : null,
    fits: new Array<null>(outputs).fill(null),
    alphas: new Array<null>(problem.attributes.length).fill(null),
  }
  const gpu = await openGpu(options.device ?? 'wasm')
  try {
    const device = gpu?.device ?? 'wasm'
    const work = await begin(problem, course, device)
    if (work) await readFinished(work, finished)
    const keeper = work && keepFinished(work, finished, (line) => options.onNote?.(line))
    if (keeper) options.onKept?.({ ...keeper.kept })
    let fitted: Fitted | null = null
    try {
      if (!isFinished(finished, course)) fitted = await fitMissing(problem, { ...course, device }, finished, keeper)
      fitted ??= await fittedRows(problem, unit)
    } catch (error) {
      await keeper?.save()
      // Nothing came of it, so that nothing is left of it.
      if (work?.resumed === false && keeper?.kept.levels === 0 && keeper.kept.alphas === 0) await work.end()
      if (keeper) options.onKept?.({ ...keeper.kept })
      throw signal?.aborted ? signal.reason : error
    }
    await keeper?.save()
    if (keeper) options.onKept?.({ ...keeper.kept })
    return headsOf(problem, course, finished, { work, fitted })
  } finally {
    if (gpu?.ours) await gpu.device.destroy()
  }
}

/** Begins or resumes the work in the store; null without one. */
async function begin(problem: Problem, course: Course, device: Device | 'wasm'): Promise<Work | null> {
  const { store, restart, onNote } = course
  if (!store) return null
  const { features, attributes, columns } = problem
  const settings: WorkSettings = {
    '--labels': attributes,
    '--levels': course.levels,
    '--alpha': course.alpha,
    '--unit': course.unit,
    '--intercept': course.intercept,
    '--tolerance': course.tolerance,
    '--non-crossing': course.nonCrossing,
    // Devices round in their own ways.
    '--device': device === 'wasm' ? device : device.name,
    'feature rows': features.rows,
    'feature columns': columns ?? features.columns,
    'features with the SHA-256': problem.hash ?? (await hashFeatures(features)),
    'labels with the SHA-256': await hashLabels(problem),
  }
  return openWork(store, { command: 'fit', settings, partNames: PART_NAMES, restart, onDamage: onNote })
}

function isFinished({ fits, alphas }: Finished, { alpha }: Course): boolean {
  return fits.every((fit) => fit !== null) && (alpha !== 'auto' || alphas.every((chosen) => chosen !== null))
}

/** Fits what is not finished. Gives the rows that the heads are fitted to, which are looked at before the features are let go of. */
async function fitMissing(
  problem: Problem,
  course: Course,
  finished: Finished,
  keeper: Keeper | null,
): Promise<Fitted> {
  const { device, threads, signal } = course
  const solver = await openSolver(problem.features, { device, threads, signal })
  try {
    const fitted = await fittedRows(problem, course.unit)
    course.onLoaded?.()
    for (const m of problem.attributes.keys()) await fitAttribute(solver, problem, m, course, finished, keeper)
    return fitted
  } finally {
    await solver.close()
  }
}

async function fitAttribute(
  solver: Solver,
  problem: Problem,
  m: number,
  course: Course,
  finished: Finished,
  keeper: Keeper | null,
): Promise<void> {
  const { levels, unit, intercept, tolerance, nonCrossing, signal } = course
  const { weight, bias, fits, alphas } = finished
  const { columns } = problem.features
  const attribute = problem.attributes[m]
  const labels = labelsOf(problem, m, unit)
  const K = levels.length
  let done = count(fits)
  const tell = (now: Pick<HeadsProgress, 'level' | 'choice'>) =>
    course.onProgress?.({ attribute, done, total: fits.length, ...now })
  if (course.alpha === 'auto' && alphas[m] === null) {
    const onProgress = (choice: AlphaProgress) => tell({ choice })
    alphas[m] = await chooseAlpha(solver, labels, { levels, intercept, signal, onProgress }).catch((error: Error) => {
      if (signal?.aborted) throw error
      throw new Error(`labels ${show(attribute)}: ${error.message}`, { cause: error })
    })
    keeper?.alpha(m)
  }
  for (const [first, end] of missing(fits.slice(m * K, (m + 1) * K))) {
    const [begin, stop] = [m * K + first, m * K + end]
    const waiting = new Array<AttributeFit>(end - first)
    await solver.fit(labels, {
      levels: levels.slice(first, end),
      alpha: course.alpha === 'auto' ? alphas[m]!.alpha : course.alpha,
      intercept,
      tolerance,
      ...(nonCrossing && { nonCrossing }),
      // A level starts from the one below, which may have been finished long ago.
      ...(first > 0 && { start: startFrom(finished, begin - 1, columns) }),
      onLevel({ index, fit, weights, intercept: constant }) {
        const output = begin + index
        weight.set(weights, output * columns)
        if (bias && constant !== null) bias[output] = constant
        // Levels that hold each other come from the middle outward, and are kept together: a run is all of them.
        if (nonCrossing) waiting[index] = { attribute, ...fit }
        else {
          fits[output] = { attribute, ...fit }
          keeper?.levels(output, output + 1)
        }
        done++
        tell({ level: fit })
      },
      onProgress: (level) => tell({ level }),
      signal,
    })
    if (!nonCrossing) continue
    for (const [i, fit] of waiting.entries()) fits[begin + i] = fit
    keeper?.levels(begin, stop)
  }
}

const count = (fits: readonly unknown[]): number => fits.filter((fit) => fit !== null).length

/** Runs [first, end) of levels that are not finished. */
function missing(fits: readonly (AttributeFit | null)[]): [number, number][] {
  const runs: [number, number][] = []
  for (const [k, fit] of fits.entries()) {
    if (fit !== null) continue
    const last = runs[runs.length - 1]
    if (last?.[1] === k) last[1]++
    else runs.push([k, k + 1])
  }
  return runs
}

function startFrom({ weight, bias }: Finished, output: number, columns: number): FitOptions['start'] {
  return {
    weights: weight.slice(output * columns, (output + 1) * columns),
    intercept: bias ? bias[output] : null,
  }
}

function headsOf(
  problem: Problem,
  course: Course,
  finished: Finished,
  { work, fitted }: { readonly work: Work | null; readonly fitted: Fitted },
): FittedHeads {
  const { attributes, features } = problem
  const { levels, unit, intercept, tolerance, nonCrossing } = course
  const alphas = course.alpha === 'auto' ? (finished.alphas as ChosenAlpha[]) : null
  const alpha = alphas ? Object.fromEntries(attributes.map((name, m) => [name, alphas[m].alpha])) : course.alpha
  const described = {
    attributes,
    levels,
    alpha,
    intercept,
    tolerance,
    ...(nonCrossing && { non_crossing: true }),
    ...(problem.columns && { columns: problem.columns }),
  }
  return {
    name: `heads of ${features.name}`,
    attributes,
    levels,
    columns: features.columns,
    weight: finished.weight,
    bias: finished.bias,
    transform: null,
    fingerprint: problem.metadata.fingerprint ?? null,
    alpha: alpha as number | Record<string, number>,
    alphas,
    fits: finished.fits as AttributeFit[],
    fitted,
    metadata: {
      ...Object.fromEntries(Object.entries(described).map(([key, value]) => [key, JSON.stringify(value)])),
      unit,
      fitted_sha256: fitted.hash,
      ...originOf(problem),
    },
    end: async () => work?.end(),
  }
}
