// The parts that compare with others on one problem each: small, lasso, plot and references.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fitQuantiles, openSolver } from '../../src/index.ts'
import type { QuantileFit } from '../../src/solver/fit.ts'
import { measure, type Timing } from '../measure.ts'
import { ALPHA, type CheckedProblem, checkFit, LEVEL, LEVELS, peakMiB } from './fits.ts'
import { type PartOptions, type PartResult, seconds } from './parts.ts'
import { type Reference, type ReferenceFit, runReference } from './references.ts'
import { makeRatings, makeStates, widen } from './states.ts'

/** Where the part `references` keeps what the references took, so that the plot need not wait for them. */
export const REFERENCE_FILE = 'bench/results/solver_reference.json'

/** Points of the plot: rows at PLOT_COLUMNS columns, columns at PLOT_ROWS rows. */
export const PLOT_COLUMNS = 128
export const PLOT_ROWS = 5000
const ROWS = [1000, 2000, 5000, 10_000, 20_000, 50_000]
const COLUMNS = [32, 64, 128, 256, 512, 1024]

/** States as f32, which all take, with ratings of five grades. */
async function makeProblem(rows: number, columns: number, levels: readonly number[]): Promise<CheckedProblem> {
  const states = await makeStates({ rows, columns })
  return {
    features: { data: widen(states.data), rows, columns },
    labels: { values: makeRatings({ rows, columns }) },
    levels,
  }
}

interface OwnFit {
  /** `fitQuantiles` as a user calls it: features to weights and certificates. */
  readonly whole: Timing
  /** `fit` of an open solver. */
  readonly fit: Timing
  readonly result: QuantileFit
  readonly gap: number
}

/** Checks our fit, then times it. */
async function timeOurs({ features, labels, levels }: CheckedProblem, threads?: number): Promise<OwnFit> {
  const options = { levels, alpha: ALPHA }
  const solver = await openSolver(features, { threads })
  const result = await solver.fit(labels, { ...options, duals: true })
  const gap = checkFit(result, { features, labels, levels }).confirmed
  const timing = { budgetMs: 1000, minRuns: 3 }
  const fit = await measure(async () => {
    await solver.fit(labels, options)
  }, timing)
  await solver.close()
  const whole = await measure(async () => {
    await fitQuantiles(features, labels, { ...options, threads })
  }, timing)
  return { whole, fit, result, gap }
}

/** A reference on the same problem; its objective must agree with our certificate. */
function runTheirs(who: Reference, problem: CheckedProblem, ours: OwnFit, options: PartOptions): ReferenceFit | null {
  const { features, labels } = problem
  const { rows, columns } = features
  const x = features.data as Float32Array
  const task = { x, y: labels.values, rows, columns, level: LEVEL, alpha: ALPHA }
  const theirs = runReference(who, options.findProgram, task, options.limitMs)
  const { dual } = ours.result.fits[0]
  if (theirs && !(theirs.objective >= dual * (1 - 1e-9)))
    throw new Error(`bench: ${who} has objective ${theirs.objective}, below our proven bound of ${dual}`)
  return theirs
}

function excess(theirs: ReferenceFit, ours: OwnFit): string {
  return `objective ${(ours.result.fits[0].objective / theirs.objective - 1).toExponential(1)} relative to theirs`
}

/** 10,000 x 128: one level against scikit-learn, 19 levels against one. */
export async function small(options: PartOptions): Promise<PartResult> {
  const { rows = 10_000, columns = 128, threads } = options
  const problem = await makeProblem(rows, columns, [LEVEL])
  const begin = performance.now()
  await fitQuantiles(problem.features, problem.labels, { levels: problem.levels, alpha: ALPHA, threads })
  const firstMs = performance.now() - begin
  const one = await timeOurs(problem, threads)
  const single = await timeOurs(problem, 1)
  const all = await timeOurs({ ...problem, levels: LEVELS }, threads)
  const theirs = runTheirs('scikit-learn', problem, one, options)
  const row = (what: string, { whole, fit, gap, result }: OwnFit): string[] => [
    what,
    seconds(whole.ms),
    seconds(fit.ms),
    theirs && result.fits.length === 1 ? `${(theirs.ms / whole.ms).toFixed(0)} x` : '',
    gap.toExponential(1),
  ]
  const lines = [row('one level', one), row('one level, 1 thread', single), row('19 levels', all)]
  if (theirs) lines.push(['scikit-learn, one level', seconds(theirs.ms), '', '1 x', ''])
  const levelsRatio = all.whole.ms / one.whole.ms
  const timing = ({ whole, fit, gap }: OwnFit) => ({ ms: whole.ms, spreadMs: whole.spreadMs, fitMs: fit.ms, gap })
  return {
    title: `${rows} x ${columns}, alpha ${ALPHA}, level ${LEVEL} or 19 levels, no intercept`,
    head: ['what', 'fitQuantiles', 'fit alone', 'against scikit-learn', 'gap'],
    lines,
    notes: [
      `19 levels take ${levelsRatio.toFixed(1)} x the time of one (of the fit alone: ${(all.fit.ms / one.fit.ms).toFixed(1)} x)`,
      `the first fit of the process, with all compilation: ${seconds(firstMs)}`,
      theirs ? `${theirs.software}: ${excess(theirs, one)}` : 'scikit-learn did not run: no ratio',
    ],
    record: {
      rows,
      columns,
      one: timing(one),
      single: timing(single),
      all: timing(all),
      levelsRatio,
      firstMs,
      scikitLearn: theirs,
      ratio: theirs && theirs.ms / one.whole.ms,
      ratioFit: theirs && theirs.ms / one.fit.ms,
      peakMiB: peakMiB(),
    },
  }
}

/** 20,000 x 512, one level, against R's rq.fit.lasso. */
export async function lasso(options: PartOptions): Promise<PartResult> {
  const { rows = 20_000, columns = 512, threads } = options
  const problem = await makeProblem(rows, columns, [LEVEL])
  const ours = await timeOurs(problem, threads)
  const theirs = runTheirs('quantreg', problem, ours, options)
  const ratio = theirs && theirs.ms / ours.whole.ms
  const lines = [
    [
      'ours',
      seconds(ours.whole.ms),
      seconds(ours.fit.ms),
      ratio ? `${ratio.toFixed(0)} x` : '',
      ours.gap.toExponential(1),
    ],
  ]
  if (theirs) lines.push(['rq.fit.lasso', seconds(theirs.ms), '', '1 x', ''])
  return {
    title: `${rows} x ${columns}, alpha ${ALPHA} (lambda = 2 n alpha), level ${LEVEL}, no intercept`,
    head: ['what', 'fitQuantiles', 'fit alone', 'against R', 'gap'],
    lines,
    notes: [theirs ? `${theirs.software}, ${theirs.blas}: ${excess(theirs, ours)}` : 'R did not run: no ratio'],
    record: {
      rows,
      columns,
      ms: ours.whole.ms,
      spreadMs: ours.whole.spreadMs,
      fitMs: ours.fit.ms,
      gap: ours.gap,
      quantreg: theirs,
      ratio,
      ratioFit: theirs && theirs.ms / ours.fit.ms,
      peakMiB: peakMiB(),
    },
  }
}

/** One measurement of the plot. */
export interface PlotPoint {
  readonly who: 'pinball' | Reference
  readonly rows: number
  readonly columns: number
  readonly ms: number
}

function plotSizes(): { rows: number; columns: number }[] {
  const sizes = ROWS.map((rows) => ({ rows, columns: PLOT_COLUMNS }))
  for (const columns of COLUMNS) if (columns !== PLOT_COLUMNS) sizes.push({ rows: PLOT_ROWS, columns })
  return sizes
}

/** Our points of the plot; those of the references are made by the part `references`. */
export async function plot({ threads }: PartOptions): Promise<PartResult> {
  const points: PlotPoint[] = []
  const lines: string[][] = []
  for (const { rows, columns } of plotSizes()) {
    const { whole, gap } = await timeOurs(await makeProblem(rows, columns, [LEVEL]), threads)
    points.push({ who: 'pinball', rows, columns, ms: whole.ms })
    lines.push([`${rows} x ${columns}`, whole.ms.toPrecision(3), whole.spreadMs.toPrecision(2), gap.toExponential(1)])
    console.error(`${rows} x ${columns}: ${whole.ms.toPrecision(3)} ms`)
  }
  return {
    title: `one level of ${LEVEL}, for the plot (fitQuantiles)`,
    head: ['size', 'ms', '+-', 'gap'],
    lines,
    notes: ['npm run bench -- plot draws docs/solver.svg from the saved results'],
    record: { level: LEVEL, threads: threads ?? cpus().length, points },
  }
}

export interface ReferencePoint extends PlotPoint, ReferenceFit {
  readonly date: string
  readonly machine: string
}

/** The references' points as kept; none where there is no file yet. */
export function readReferences(): ReferencePoint[] {
  if (!existsSync(REFERENCE_FILE)) return []
  return (JSON.parse(readFileSync(REFERENCE_FILE, 'utf8')) as { points: ReferencePoint[] }).points
}

/** Keeps one point, in the place of an older one of its kind; the file is whole after every point. */
function keepReference(point: ReferencePoint): void {
  const same = ({ who, rows, columns }: PlotPoint): boolean =>
    who === point.who && rows === point.rows && columns === point.columns
  const points = [...readReferences().filter((old) => !same(old)), point]
  points.sort((a, b) => b.who.localeCompare(a.who) || a.columns - b.columns || a.rows - b.rows)
  const text = points.map((each) => `    ${JSON.stringify(each)}`).join(',\n')
  mkdirSync('bench/results', { recursive: true })
  writeFileSync(REFERENCE_FILE, `{\n  "level": ${LEVEL},\n  "alpha": ${ALPHA},\n  "points": [\n${text}\n  ]\n}\n`)
}

/**
 * The references' points of the plot, or those of `rows` and `columns` alone. A size is left out when a smaller one tells that it
 * must take longer than the limit, even if time grew with no more than the number of values.
 */
export async function references(options: PartOptions): Promise<PartResult> {
  const { rows: onlyRows, columns: onlyColumns, threads, limitMs } = options
  const sizes = plotSizes().filter(
    ({ rows, columns }) => rows === (onlyRows ?? rows) && columns === (onlyColumns ?? columns),
  )
  const points: ReferencePoint[] = []
  for (const who of ['scikit-learn', 'quantreg'] as const) {
    if (!options.findProgram(who)) continue
    const known: Omit<PlotPoint, 'who'>[] = []
    for (const { rows, columns } of sizes) {
      const least = known
        .filter((size) => rows >= size.rows && columns >= size.columns)
        .map((size) => (size.ms * rows * columns) / (size.rows * size.columns))
      if (Math.max(0, ...least) > limitMs) {
        console.error(`${who}, ${rows} x ${columns}: left out, would take longer than ${seconds(limitMs)}`)
        continue
      }
      const problem = await makeProblem(rows, columns, [LEVEL])
      const theirs = runTheirs(who, problem, await timeOurs(problem, threads), options)
      known.push({ rows, columns, ms: theirs ? theirs.ms : limitMs })
      if (!theirs) continue
      const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores`
      points.push({ who, rows, columns, ...theirs, date: new Date().toISOString().slice(0, 10), machine })
      keepReference(points.at(-1)!)
      console.error(`${who}, ${rows} x ${columns}: ${seconds(theirs.ms)}`)
    }
  }
  return {
    title: `one level of ${LEVEL} by the references, kept in ${REFERENCE_FILE}`,
    head: ['what', 'time', 'runs', 'nonzeros'],
    lines: points.map(({ who, rows, columns, ms, runs, nonzeros }) => [
      `${who}, ${rows} x ${columns}`,
      seconds(ms),
      String(runs),
      String(nonzeros),
    ]),
    notes: points.length === 0 ? ['nothing was measured: the file is as it was'] : [],
    record: { points },
  }
}
