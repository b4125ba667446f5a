// pinball fit: linear quantile heads from a file of features, each level with the gap to its certified optimum.

import { type Command, Option } from 'commander'
import type { DeviceKind } from '../../device/open.ts'
import { directoryStore, writeFileAtomic } from '../../files/disk.ts'
import { namesFolder } from '../../files/file_list.ts'
import { fitDocument, fitReport, keptText } from '../../report/fit.ts'
import { checkHeadsFolder, headsCheckpoint, writeHeads } from '../../reward/heads_directory.ts'
import { encodeHeads } from '../../reward/heads_file.ts'
import { type FixedWeights, orderWeights } from '../../reward/manifest.ts'
import type { Unit } from '../../reward/unit.ts'
import { type FittedHeads, fitHeads } from '../../train/heads.ts'
import type { Kept } from '../../train/heads_keeper.ts'
import { EXIT } from '../exit_codes.ts'
import { type Interrupt, interruptible } from '../interrupt.ts'
import {
  checkOption,
  computeOptions,
  parseAlpha,
  parseFixedWeights,
  parseLevels,
  realNumber,
  unitOption,
  usageError,
} from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { type OpenedProblem, type ProblemOptions, problemOptions, withProblem } from './problem.ts'
import { startLevels } from './progress.ts'

interface FitCommand extends ProblemOptions {
  readonly levels: number[]
  readonly alpha: number | 'auto'
  readonly unit: Unit
  readonly intercept?: boolean
  readonly nonCrossing?: boolean
  readonly attributeWeights?: FixedWeights
  readonly tolerance: number
  readonly restart?: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

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

Finished levels are kept in the folder OUT.partial while a fit goes on. After Ctrl-C (exit code 130) or a crash the same command
goes on from there and writes the same file, bit for bit; with other options it is refused, unless --restart begins anew. With
--non-crossing an attribute is kept when all its levels are finished. A damaged part of OUT.partial is set aside, and its levels are
fitted again.

Where --out is a folder (one that is there, a name with a slash behind it, or one without an ending) it becomes a model directory of the
heads, which "pinball calibrate", "eval" and "assemble" take as they are: a reward model that needs no pairs, whose attributes have fixed
weights. These commands take the file as well. Heads in such a folder that an earlier fit wrote are replaced.

--unit item: the ratings of a row share its weight, so that a quantile is one of a random rating of a random row; rating: every rating
counts alike. It is the same where all rows have as many ratings. "pinball calibrate" and "pinball eval" have the same switch.

--alpha auto takes, for each attribute, the penalty with the least mean pinball loss in a cross-validation with five folds over
a path of twelve penalties; --json shows the path. The file holds what was chosen in its metadata, by attribute.

Examples:
  $ pinball fit --features ratings.safetensors --out heads.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors --levels 0.1,0.5,0.9 --alpha 0.001 --json
  $ pinball fit --features ratings.safetensors --labels helpful --alpha auto --out heads.safetensors
  $ pinball fit --features shards/ more.safetensors --out heads.safetensors
  $ pinball fit --features ratings.safetensors --attribute-weights helpful=0.7,kind=0.3 --out reward
  $ pinball fit --features x.npy --labels y.npy --weights w.npy --intercept --out heads.safetensors
  $ pinball fit --features engel.csv --labels foodexp --levels 0.25,0.5,0.75 --alpha 0 --intercept --out engel.safetensors
  $ pinball fit --features wages.parquet --labels wage --columns age,school --intercept --out wages.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors --levels 9 --restart
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
    .option(
      '--attribute-weights <weights>',
      'of the attributes in a model directory: mean (default), or NAME=NUMBER with commas',
      parseFixedWeights,
    )
    .option('--restart', 'begin anew, whatever OUT.partial holds of an earlier fit')
    .option('--resume', 'does nothing: an interrupted fit always goes on; kept for older scripts')
  // A GPU rounds in its own way, so that it is asked for: without one the bits are the same everywhere.
  computeOptions(unitOption(command), 'wasm')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: FitCommand) => fit(options))
}

async function fit(options: FitCommand): Promise<void> {
  const asFolder = await namesFolder(options.out)
  const out = asFolder ? options.out.replace(/(?<=.)[\\/]+$/, '') : options.out
  const own = { ...options, out }
  const partial = `${out}.partial`
  if (options.attributeWeights !== undefined && !asFolder)
    usageError('--attribute-weights: goes with an --out that is a folder; for a file see "pinball assemble --weights"')
  const work = async (problem: OpenedProblem) => {
    checkOption('--attribute-weights', () => orderWeights(own.attributeWeights ?? 'mean', problem.attributes, 'heads'))
    if (asFolder) await checkHeadsFolder(directoryStore(out))
    await fitProblem(problem, { partial, asFolder }, own)
  }
  await withProblem(own, work, { partial, ...(asFolder && { folder: out }) })
}

interface Places {
  /** The folder that keeps finished levels. */
  readonly partial: string
  /** Whether --out is a folder. */
  readonly asFolder: boolean
}

async function fitProblem(problem: OpenedProblem, places: Places, options: FitCommand): Promise<void> {
  const { out, tolerance, json } = options
  const start = performance.now()
  const heads = await interruptible('fit', (interrupt) => run(problem, places, options, interrupt))
  if (heads === null) return
  const ms = performance.now() - start
  const { rows } = problem.features
  await (json ? printJson(fitDocument(heads, rows, ms)) : print(fitReport(heads, rows, problem.columns, out)))
  const missed = heads.fits.filter((level) => level.status !== 'optimal').length
  if (missed === 0) return
  const so = `${missed} of ${heads.fits.length} levels missed the tolerance ${tolerance}`
  note(`fit: ${so}; they are written as far as they came`)
  process.exitCode = EXIT.missed
}

/** Fits and writes the heads. Gives null where it was interrupted, and has told the user how to go on. */
async function run(
  problem: OpenedProblem,
  { partial: folder, asFolder }: Places,
  options: FitCommand,
  interrupt: Interrupt,
): Promise<FittedHeads | null> {
  const { levels, alpha, unit, intercept, nonCrossing, tolerance, device, threads, restart, out } = options
  const { signal } = interrupt
  const progress = startLevels()
  let kept: Kept = { levels: 0, alphas: 0 }
  try {
    const heads = await fitHeads(problem, {
      ...{ levels, alpha, unit, intercept, nonCrossing, tolerance, device, threads, restart, signal },
      store: directoryStore(folder),
      onLoaded: problem.loaded,
      onProgress: progress.update,
      onKept: (now) => {
        kept = now
      },
      onNote: (line) => note(`note: ${line}`),
    }).finally(progress.end)
    if (asFolder) await writeHeads(headsCheckpoint(heads, options.attributeWeights), directoryStore(out))
    else await writeFileAtomic(out, encodeHeads(heads))
    await heads.end()
    return heads
  } catch (error) {
    const so = keptText(kept, problem.attributes.length * levels.length, folder)
    if (signal.aborted) {
      note(`fit: interrupted; ${so}`)
      process.exitCode = interrupt.code()
      return null
    }
    throw kept.levels > 0 ? new Error(`${(error as Error).message} (${so})`, { cause: error }) : error
  }
}
