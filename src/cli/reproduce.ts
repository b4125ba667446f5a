// pinball reproduce: the paper's figures from a small world with known truth.
import { join } from 'node:path'
import { Argument, type Command } from 'commander'
import type { Device } from '../device/device.ts'
import { directoryStore, directoryTree } from '../files/disk.ts'
import { printable } from '../files/json.ts'
import { makeFolder } from '../files/new_folder.ts'
import { figure3Document, figure3Files, figure3Progress, figure3Text, keptText } from '../report/figure3.ts'
import { type Figure3, type Figure3Stores, reproduceFigure3, writeFigure3 } from '../world/figure3.ts'
import { FIGURE3_DEFAULTS, type Figure3Settings, POLICIES, type PolicyName } from '../world/settings.ts'
import { withDevice } from './engine.ts'
import { interruptible } from './interrupt.ts'
import {
  computeOptions,
  type DeviceChoice,
  fileName,
  parseLambda,
  parseNames,
  positive,
  realNumber,
  usageError,
  wholeNumber,
} from './options.ts'
import { note, print, printJson } from './output.ts'
import { startStatus } from './progress.ts'

interface ReproduceOptions
  extends Omit<DeviceChoice, 'model'>,
    Pick<Figure3Settings, 'seed' | 'seeds' | 'steps' | 'prompts' | 'k' | 'beta' | 'lr' | 'lambda' | 'samples'> {
  readonly out: string
  readonly policies: readonly string[]
  readonly restart?: boolean
  readonly json?: boolean
}

const HELP = `
In the small world, people answer short questions with adjectives, and three camps of raters judge the answers: the true distribution
of ratings of any answer is known. For each seed the command draws ratings, fits and calibrates a quantile reward model, fine-tunes a
small Llama, and trains it by RLOO against the reward model: neutral by the expectation, risk-aware by the utility
-E[exp(-lambda r)], reliability-weighted by the expectation with advantages that count less where the distribution is wide.

--out gets report.html, which opens from the disk, the figures as SVG, figures.json with all numbers, and in "stages" a folder for each
model and training, which "score", "generate" and the other commands can read. After Ctrl-C the same command goes on from there and ends with the
same numbers; with more --seeds, or other --policies of the same settings, it adds to what is there.

Examples:
  $ pinball reproduce figure3
  $ pinball reproduce figure3 --seeds 10 --steps 200 --out figure3-long
  $ pinball reproduce figure3 --policies neutral,risk-aware --lambda 4 --out averse --json
`

/** Folder of models, trainings and what is kept between calls. */
const STAGES = 'stages'

const count = wholeNumber(1, 1e6)
const { seed, seeds, steps, prompts, k, beta, lr, lambda, samples } = FIGURE3_DEFAULTS

/** Adds the command to the program. */
export function addReproduce(program: Command): void {
  const command = program
    .command('reproduce')
    .description("reproduce the paper's Figures 1 and 3 in a small world with known truth")
    .addArgument(new Argument('<figure>', 'what to reproduce').choices(['figure3']))
    .option(
      '--out <dir>',
      'directory for report, figures, numbers and models',
      fileName('--out', 'directory'),
      'figure3',
    )
    .option('--seeds <n>', 'repetitions, each with ratings, models and draws of its own', count, seeds)
    .option('--seed <n>', 'of the first repetition; the others follow', wholeNumber(0, 2 ** 31 - 1), seed)
    .option('--steps <n>', 'steps of reinforcement learning', count, steps)
    .option('--policies <names>', `some of ${POLICIES.join(', ')}, with commas`, parseNames, [...POLICIES])
    .option('--prompts <n>', 'prompts of a step', wholeNumber(1, 36), prompts)
    .option('--k <n>', 'answers to each prompt of a step', wholeNumber(2, 1024), k)
    .option(
      '--beta <number>',
      'coefficient of the KL in the reward',
      realNumber((b) => b >= 0 && b < Infinity, 'of at least 0'),
      beta,
    )
    .option('--lr <number>', 'learning rate', positive, lr)
    .option('--lambda <number>', 'risk aversion of the utility', parseLambda, lambda)
    .option('--samples <n>', 'answers to each prompt by which policies are compared at the end', count, samples)
    .option('--restart', 'begin anew, whatever --out holds of an earlier call')
  computeOptions(command)
    .option('--json', 'print one JSON document')
    .addHelpText('after', HELP)
    .action(async (_figure: string, options: ReproduceOptions) => reproduce(options))
}

async function reproduce(options: ReproduceOptions): Promise<void> {
  const { out, device: _, threads: __, json, restart, ...given } = options
  const bad = given.policies.find((name) => !POLICIES.includes(name as PolicyName))
  if (bad !== undefined) usageError(`--policies: must be some of ${POLICIES.join(', ')}, got "${bad}"`)
  const settings: Figure3Settings = { ...FIGURE3_DEFAULTS, ...given, policies: given.policies as PolicyName[] }
  await withDevice(options, (device) =>
    makeFigure3(device, settings, { out, restart }, async (figure, files) => {
      if (json) await printJson(figure3Document(figure, out, files))
      else await print(`${figure3Text(figure)}${printable(out)}: ${files.join(', ')}\n`)
    }),
  )
}

/** Runs the experiment in a folder, writes its files, and reports; an interrupt ends it with a note about what is kept. */
export function makeFigure3(
  device: Device,
  settings: Figure3Settings,
  { out, restart }: { readonly out: string; readonly restart?: boolean },
  report: (figure: Figure3, files: readonly string[]) => Promise<void>,
): Promise<void> {
  const stores: Figure3Stores = {
    root: directoryStore(join(out, STAGES)),
    folder: (name) => directoryTree(join(out, STAGES, name)),
  }
  return interruptible('figure3', async ({ signal, code }) => {
    await makeFolder(out)
    const progress = startStatus()
    const start = performance.now()
    let first: number | undefined
    try {
      const figure = await reproduceFigure3(device, {
        ...{ ...settings, stores, restart, signal, onNote: note },
        onProgress(now) {
          first ??= now.share
          const from = first
          progress.show(() => figure3Progress(now, from, (performance.now() - start) / 1000))
        },
      })
      progress.end()
      const files = figure3Files(figure)
      await writeFigure3(device, settings, stores, files, directoryStore(out))
      await report(figure, Object.keys(files))
    } catch (error) {
      progress.end()
      if (!signal.aborted) throw error
      note(`figure3: ${keptText(out)}`)
      process.exitCode = code()
    }
  })
}
