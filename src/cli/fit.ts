// pinball fit: linear quantile heads from a file of features, each level with the gap to its certified optimum.

import { type Command, Option } from 'commander'
import type { DeviceKind } from '../device/open.ts'
import { writeFileAtomic } from '../files/disk.ts'
import { printable } from '../files/json.ts'
import { encodeSafetensors, type TensorData } from '../files/safetensors.ts'
import { figure, table } from './draw.ts'
import { finishLevels } from './fit_levels.ts'
import {
  type AttributeFit,
  type Finished,
  isThere,
  type Keeper,
  keepFinished,
  nothingFinished,
  partialName,
  readFinished,
  type Settings,
} from './fit_partial.ts'
import { checkProblemOptions, openProblem, type Problem, type ProblemOptions, problemOptions } from './fit_problem.ts'
import { type Interrupt, interruptible } from './interrupt.ts'
import { computeOptions, parseAlpha, parseLevels, realNumber } from './options.ts'
import { note, print, printJson } from './output.ts'

interface FitCommand extends ProblemOptions {
  readonly levels: number[]
  readonly alpha: number | 'auto'
  readonly intercept?: boolean
  readonly nonCrossing?: boolean
  readonly tolerance: number
  readonly resume?: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

/** The exit code where a fit missed its tolerance; what was reached is written all the same. */
const MISSED = 3

const EXAMPLES = `
Features, by the ending of the file:
  .npy            an array [N, D]; --labels names an .npy file [N] or [N, M], --label-rows and --weights others
  .csv, .tsv      a header line, then numbers; --labels names the columns that are labels, all others are features
  .parquet, .pq   the same, without the text
  all others      safetensors: "embeddings" [N, D] and "labels" [N, M], as "pinball features --labels" makes them; with
                  "label_rows" [L] (feature row of each label) labels are [L, M]; "label_weights" [L]
Several safetensors files are read as one, in the order given; a folder stands for all its files NAME.safetensors, by name: the
shards of "pinball features", or those of the scripts of ArmoRM, whose labels get their names from --attributes.
Floats may have 16, 32 or 64 bits; bfloat16 stays as it is, all else is kept in 32 bits. An empty cell (null, NaN) is a missing
label. Features must not be missing.

--levels 19 means the levels 0.05, 0.10, ..., 0.95; --levels 0.1,0.5,0.9 means just those.
The file holds "regression_layer.weight" [M * K, D] F32 (row = attribute * K + level) and, with --intercept,
"regression_layer.bias" [M * K]. Exit code 3: a fit missed its tolerance; what it reached is written.

Finished levels are kept in OUT.partial while a long fit goes on. After Ctrl-C (exit code 130) or a crash the same command with
--resume goes on from there and writes the same file, bit for bit. With --non-crossing an attribute is kept when all its levels
are finished.

--alpha auto takes, for each attribute, the penalty with the least mean pinball loss in a cross-validation with five folds over
a path of twelve penalties; --json shows the path. The file holds what was chosen in its metadata, by attribute.

Examples:
  $ pinball fit --features ratings.safetensors --out heads.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors --levels 0.1,0.5,0.9 --alpha 0.001 --json
  $ pinball fit --features ratings.safetensors --labels helpful --alpha auto --out heads.safetensors
  $ pinball fit --features shards/ more.safetensors --out heads.safetensors
  $ pinball fit --features x.npy --labels y.npy --weights w.npy --intercept --out heads.safetensors
  $ pinball fit --features engel.csv --labels foodexp --levels 0.25,0.5,0.75 --alpha 0 --intercept --out engel.safetensors
  $ pinball fit --features wages.parquet --labels wage --columns age,school --intercept --out wages.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors --resume
`

/** Adds the command to the program. */
export function addFit(program: Command): void {
  const command = problemOptions(program.command('fit'))
    .description('fit quantile heads to features: L1-penalised quantile regression')
    .addOption(
      new Option('--levels <levels>', 'number of levels, or the levels with commas')
        .argParser(parseLevels)
        .default(parseLevels('19'), '19'),
    )
    .option('--alpha <number>', 'penalty on the absolute weights; auto: by cross-validation', parseAlpha, 0.003)
    .option('--intercept', 'also fit a constant, without penalty')
    .option(
      '--non-crossing',
      'order the levels on the rows they are fitted to (each level is kept above the one below; certificates then are ' +
        'those of the constrained problem)',
    )
    .option(
      '--tolerance <number>',
      'largest relative duality gap',
      realNumber((t) => t > 0 && t < 1, 'between 0 and 1'),
      1e-4,
    )
    .option('--resume', 'go on from the levels that an interrupted fit has kept')
  // A GPU rounds in its own way, so that it is asked for: without one the bits are the same everywhere.
  computeOptions(command, 'wasm')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: FitCommand) => fit(options))
}

async function fit(options: FitCommand): Promise<void> {
  await checkProblemOptions(options)
  const problem = await openProblem(options)
  try {
    await fitProblem(problem, options)
  } finally {
    await problem.close()
  }
}

async function fitProblem(problem: Problem, options: FitCommand): Promise<void> {
  const { out, tolerance } = options
  const settings = makeSettings(problem, options)
  const start = performance.now()
  const finished = await startOrResume(settings, options)
  const keeper = keepFinished(partialName(out), settings, finished)
  const task = { problem, settings, finished, keeper }
  if (!(await interruptible('fit', (interrupt) => runLevels(task, options, interrupt)))) return
  await show(settings, finished, performance.now() - start, options)
  const missed = finished.fits.filter((level) => level.status !== 'optimal').length
  if (missed === 0) return
  const so = `${missed} of ${finished.fits.length} levels missed the tolerance ${tolerance}`
  note(`fit: ${so}; they are written as far as they came`)
  process.exitCode = MISSED
}

function makeSettings({ attributes, features, columns, fingerprint }: Problem, options: FitCommand): Settings {
  const { levels, alpha, intercept = false, nonCrossing = false, tolerance } = options
  const shape = { rows: features.rows, columns: features.columns, names: columns }
  return { attributes, levels, alpha, intercept, tolerance, nonCrossing, ...shape, ...fingerprint }
}

async function startOrResume(settings: Settings, { out, resume = false }: FitCommand): Promise<Finished> {
  const partial = partialName(out)
  const there = await isThere(partial)
  if (there && resume) return readFinished(partial, settings)
  const name = printable(partial)
  if (resume) note(`note: ${name} is not there, so the fit begins with the first level`)
  if (there) note(`note: ${name} has levels of an earlier fit; --resume goes on from them, without it they are lost`)
  return nothingFinished(settings)
}

interface Task {
  readonly problem: Problem
  readonly settings: Settings
  readonly finished: Finished
  readonly keeper: Keeper
}

/**
 * Finishes the levels and writes them. Gives whether it did; otherwise it was interrupted, and the user has been told how to
 * go on.
 */
async function runLevels(task: Task, { out, threads, device }: FitCommand, interrupt: Interrupt): Promise<boolean> {
  const { problem, settings, finished, keeper } = task
  const { signal } = interrupt
  try {
    await finishLevels({ ...task, threads, device, signal })
    await writeHeads(problem, settings, finished, out)
    await keeper.remove()
    return true
  } catch (error) {
    const partial = printable(partialName(out))
    const count = `${finished.fits.length} of ${settings.attributes.length * settings.levels.length} levels`
    const kept = (await keeper.save())
      ? `${count} are kept in ${partial}; the same command with --resume goes on from there`
      : 'no level was finished'
    if (signal.aborted) {
      note(`fit: interrupted; ${kept}`)
      process.exitCode = interrupt.code()
      return false
    }
    const { message } = error as Error
    throw finished.fits.length > 0 ? new Error(`${message} (${kept})`, { cause: error }) : error
  }
}

async function writeHeads(problem: Problem, settings: Settings, finished: Finished, out: string): Promise<void> {
  const { attributes, levels, columns, intercept, tolerance, nonCrossing } = settings
  const outputs = attributes.length * levels.length
  const tensors: TensorData[] = [
    { name: 'regression_layer.weight', dtype: 'F32', shape: [outputs, columns], data: finished.weight },
  ]
  if (finished.bias) {
    tensors.push({ name: 'regression_layer.bias', dtype: 'F32', shape: [outputs], data: finished.bias })
  }
  const described = {
    attributes,
    levels,
    alpha: alphas(settings, finished),
    intercept,
    tolerance,
    ...(nonCrossing && { non_crossing: true }),
    ...(problem.columns && { columns: problem.columns }),
  }
  const metadata: Record<string, string> = {}
  for (const [key, value] of Object.entries(described)) metadata[key] = JSON.stringify(value)
  for (const key of ['model', 'fingerprint']) if (key in problem.metadata) metadata[key] = problem.metadata[key]
  await writeFileAtomic(out, encodeSafetensors(tensors, metadata))
}

/** The penalty, or that of each attribute where they were chosen. */
function alphas({ alpha, attributes }: Settings, finished: Finished): number | Record<string, number> {
  if (alpha !== 'auto') return alpha
  return Object.fromEntries(attributes.map((name, m) => [name, finished.alphas[m].alpha]))
}

async function show(settings: Settings, finished: Finished, ms: number, { out, json }: FitCommand): Promise<void> {
  const { rows, columns, attributes } = settings
  const alpha = alphas(settings, finished)
  if (json) {
    const paths = typeof alpha === 'object' && {
      paths: Object.fromEntries(attributes.map((name, m) => [name, finished.alphas[m].path])),
    }
    return printJson({ rows, columns, alpha, fits: finished.fits.map(fields), ms, ...paths })
  }
  const chosen =
    typeof alpha === 'object' ? Object.entries(alpha).map(([name, value]) => `${name} ${figure(value)}`) : []
  const choice = chosen.length > 0 ? `alpha by cross-validation: ${chosen.join(', ')}\n` : ''
  const outputs = `${finished.fits.length} heads over ${columns} columns from ${rows} rows`
  return print(`${report(finished.fits)}\n${coefficients(settings, finished)}${choice}${printable(out)}: ${outputs}\n`)
}

function fields({ attribute, level, objective, dual, gap, status, nonzeros, iterations, ms, method }: AttributeFit) {
  return { attribute, level, objective, dual, gap, status, nonzeros, iterations, ms, method }
}

function report(fits: readonly AttributeFit[]): string {
  const head = ['attribute', 'level', 'objective', 'gap', 'nonzeros', 'iterations', 'ms', 'method']
  const lines = fits.map((level) => [
    level.attribute,
    figure(level.level),
    figure(level.objective),
    level.gap.toExponential(1),
    String(level.nonzeros),
    String(level.iterations),
    String(Math.round(level.ms)),
    level.status === 'optimal' ? level.method : `${level.method}, ${level.status}`,
  ])
  return table([head, ...lines], [1, 2, 3, 4, 5, 6])
}

const COLUMNS_SHOWN = 10

/** A line of coefficients for each level, where the columns have names and are few. */
function coefficients({ names, columns }: Settings, { weight, bias, fits }: Finished): string {
  if (names === null || columns > COLUMNS_SHOWN) return ''
  const digits = (value: number) => String(Number(value.toPrecision(6)))
  const lines = fits.map(({ attribute, level }, row) => [
    attribute,
    figure(level),
    ...(bias ? [digits(bias[row])] : []),
    ...Array.from(weight.subarray(row * columns, (row + 1) * columns), digits),
  ])
  const head = ['attribute', 'level', ...(bias ? ['(intercept)'] : []), ...names]
  return `${table([head, ...lines], [...head.keys()].slice(1))}\n`
}
