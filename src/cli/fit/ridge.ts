// pinball ridge: point estimates of all attributes by ridge regression, as ArmoRM fits them.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { writeFileAtomic } from '../../files/disk.ts'
import { ridgeProgress, ridgeReport } from '../../report/ridge.ts'
import { encodeHeads } from '../../reward/heads_file.ts'
import { fitRidge, RIDGE_ALPHAS, type RidgeFit, type RidgeProgress } from '../../train/multi_attribute.ts'
import type { Problem } from '../../train/problem.ts'
import { type Interrupt, interruptible } from '../interrupt.ts'
import { realNumber, wholeNumber } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startStatus } from '../progress.ts'
import { type ProblemOptions, problemOptions, withProblem } from './problem.ts'

interface RidgeCommand extends ProblemOptions {
  readonly alphas: number[]
  readonly validation: number
  readonly refit: 'train' | 'all'
  readonly seed: number
  readonly threads?: number
  readonly json?: boolean
}

const EXAMPLES = `
Features and labels are given as for "pinball fit": see there.

Fits w of |y - X w|^2 + alpha |w|^2, without a constant, to the rows that a hash of row number and seed does not hold out, and
takes for each attribute the penalty with the least mean squared error on those that it does. ArmoRM leaves it at that
(--refit train); --refit all fits the chosen penalty to all rows once more.

The file holds "regression_layer.weight" [M, D] F32, with metadata attributes, alpha and point: true; "pinball gate" takes it as
heads. The same command gives the same file, bit for bit, with any number of threads.

Examples:
  $ pinball ridge --features ratings.safetensors --out ridge.safetensors
  $ pinball ridge --features ratings.safetensors --alphas 1,10,100 --refit all --out ridge.safetensors --json
  $ pinball gate --features pairs.safetensors --heads ridge.safetensors --out armo
`

/** Adds the command to the program. */
export function addRidge(program: Command): void {
  problemOptions(program.command('ridge'))
    .description('fit point estimates to features: ridge regression of all attributes')
    .addOption(
      new Option('--alphas <numbers>', 'penalties to choose from, with commas')
        .argParser(parseAlphas)
        .default([...RIDGE_ALPHAS], '1e-4 to 1e4 by decades'),
    )
    .option(
      '--validation <share>',
      'share of the rows that chooses the penalty',
      realNumber((share) => share > 0 && share < 1, 'between 0 and 1'),
      0.2,
    )
    .addOption(
      new Option('--refit <rows>', 'rows that the chosen penalty is fitted to')
        .choices(['train', 'all'])
        .default('train'),
    )
    .option('--seed <n>', 'of the hash that holds rows out', wholeNumber(0, 2 ** 31 - 1), 0)
    .option('--threads <n>', 'threads (default: all cores)', wholeNumber(1, 64))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: RidgeCommand) => ridge(options))
}

/** Parses --alphas: numbers above 0 with commas, ascending order not needed. */
function parseAlphas(text: string): number[] {
  const alphas = text
    .split(',')
    .map(realNumber((alpha) => alpha > 0 && alpha < Infinity, 'above 0 (several with commas)'))
  if (new Set(alphas).size < alphas.length) throw new InvalidArgumentError('Must be different numbers.')
  return alphas
}

async function ridge(options: RidgeCommand): Promise<void> {
  await withProblem(options, async (problem) => {
    const start = performance.now()
    const fit = await interruptible('ridge', (interrupt) => run(problem, options, interrupt))
    if (fit === null) return
    const ms = performance.now() - start
    const { out, json } = options
    const { rows, columns } = problem.features
    await writeFileAtomic(out, encodeHeads(fit))
    await (json ? printJson({ rows, columns, fits: fit.fits, ms }) : print(ridgeReport(fit, rows, out)))
  })
}

/** Gives null where it was interrupted: there is nothing to keep. */
async function run(problem: Problem, options: RidgeCommand, interrupt: Interrupt): Promise<RidgeFit | null> {
  const status = startStatus()
  const { signal } = interrupt
  const { alphas, validation, refit, seed, threads } = options
  const onProgress = (progress: RidgeProgress) => status.show(() => ridgeProgress(progress))
  try {
    return await fitRidge(problem, { alphas, validation, refit, seed, threads, onProgress, signal })
  } catch (error) {
    if (!signal.aborted) throw error
    note('ridge: interrupted; nothing is kept')
    process.exitCode = interrupt.code()
    return null
  } finally {
    status.end()
  }
}
