// What commands that train on pairs have in common: options, files, interrupts, progress and the report.
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Device } from '../../device/device.ts'
import type { DeviceKind } from '../../device/open.ts'
import { directoryStore } from '../../files/disk.ts'
import { pairRate, type Timed, trainingReport } from '../../report/training.ts'
import { openPairs, type PairFile } from '../../reward/pair_file.ts'
import { PAIR_DEFAULTS, type PairSettings } from '../../train/pair_task.ts'
import type { Trained, TrainOptions, TrainProgress } from '../../train/recipes.ts'
import { SAVE_DEFAULT, type SaveEvery } from '../../train/training_folder.ts'
import { claimOutputs } from '../claims.ts'
import { withDevice, withFeatures } from '../engine.ts'
import { interruptibleTraining } from '../interrupt.ts'
import { computeOptions, parseFeatures, parseOut, positive, realNumber, wholeNumber } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startProgress } from '../progress.ts'

/** The options that `trainingOptions` adds. */
export interface TrainingOptions extends PairSettings {
  readonly features: string[]
  readonly out: string
  readonly logEvery: number
  readonly saveEvery: SaveEvery
  readonly restart?: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

export const TRAINING_HELP = `
Pairs are safetensors files: "embeddings" [N, 2, D], the chosen response before the rejected one, and "prompt_embeddings" [N, D] or
[N, 2, D], as "pinball features" and the scripts of ArmoRM write them. Several files are read as one; a folder stands for all its
files NAME.safetensors. Pairs with the same prompt are all for training or all for validation. Only the rows of two batches are in
memory at a time.

While it goes on, --out holds the last two states and log.jsonl (a line of means every --log-every steps, and one an epoch). After
Ctrl-C (exit code 130) or a crash the same command goes on from the last state and writes the same files, bit for bit, the log
included; a damaged state is set aside. When it is done, --out holds the model, the log and training.json, and the same command
does nothing more. Files in --out that no training has made are never touched.`

/** Adds the options for training. */
export function trainingOptions(command: Command): Command {
  command
    .requiredOption('--features <files...>', 'features of pairs: safetensors files, or folders of them', parseFeatures)
    .requiredOption('--out <dir>', 'directory for the model, the log and the state', parseOut)
    .option(
      '--lr <number>',
      'learning rate of the first step, from which it falls to 0 along a cosine',
      positive,
      PAIR_DEFAULTS.lr,
    )
    .option(
      '--weight-decay <number>',
      'weight decay of AdamW',
      realNumber((decay) => decay >= 0 && decay < Infinity, 'of at least 0'),
      PAIR_DEFAULTS.weightDecay,
    )
    .option('--batch <n>', 'pairs of a step', wholeNumber(2, 2 ** 20), PAIR_DEFAULTS.batch)
    .option('--epochs <n>', 'times that the pairs are gone through', wholeNumber(1, 1e6), PAIR_DEFAULTS.epochs)
    .option('--margin-scale <number>', 'factor of the margin in the loss', positive, PAIR_DEFAULTS.marginScale)
    .option(
      '--validation <share>',
      'share of the prompts that is for validation',
      realNumber((share) => share >= 0 && share < 1, 'from 0 to below 1'),
      PAIR_DEFAULTS.validation,
    )
    .option('--seed <n>', 'of initial weights, split and order', wholeNumber(0, 2 ** 31 - 1), PAIR_DEFAULTS.seed)
    .option('--log-every <steps>', 'steps between two lines of the log', wholeNumber(1, 1e9), 10)
    .addOption(
      new Option('--save-every <time>', 'steps between two saved states, or seconds as 60s')
        .argParser(parseSaveEvery)
        .default(SAVE_DEFAULT, '60s'),
    )
    .option('--restart', 'begin anew, whatever --out holds of an earlier training')
  return computeOptions(command).option('--json', 'print one JSON document')
}

function parseSaveEvery(text: string): SaveEvery {
  const [, digits, unit] = /^(\d+)(s?)$/.exec(text) ?? []
  const value = Number(digits)
  if (!(value >= 1)) throw new InvalidArgumentError('Must be a number of steps, or of seconds as 60s, of at least 1.')
  return unit === 's' ? { steps: Infinity, seconds: value } : { steps: value, seconds: Infinity }
}

/** Trains on a device, with the common settings, the store, and whom to tell. */
type Train = (device: Device, pairs: PairFile, run: PairSettings & TrainOptions) => Promise<Trained>

/** Runs a training from where its folder is to its end, or to an interrupt; `inputs` are files that it reads beside the features. */
export async function runTraining(
  command: string,
  options: TrainingOptions,
  train: Train,
  inputs: Readonly<Record<string, string>> = {},
): Promise<void> {
  await claimOutputs({ inputs: { '--features': options.features, ...inputs }, folders: { '--out': options.out } })
  await withFeatures(options.features, async (sources) => {
    const pairs = await openPairs(sources)
    await withDevice(options, (device) => runOn(device, pairs, { command, options, train }))
  })
}

interface Run {
  readonly command: string
  readonly options: TrainingOptions
  readonly train: Train
}

function runOn(device: Device, pairs: PairFile, { command, options, train }: Run): Promise<void> {
  const { out, lr, weightDecay, batch, epochs, marginScale, validation, seed, logEvery, saveEvery, restart } = options
  const start = performance.now()
  const progress = startProgress('steps', 'pairs')
  const seen: { first?: Timed<TrainProgress>; last?: Timed<TrainProgress> } = {}
  return interruptibleTraining({
    ...{ command, out, progress },
    train: (signal, onSave) =>
      train(device, pairs, {
        ...{ lr, weightDecay, batch, epochs, marginScale, validation, seed },
        ...{ logEvery, saveEvery, restart, signal, onSave },
        store: directoryStore(out),
        onNote: note,
        onProgress(now) {
          seen.last = { ...now, at: performance.now() }
          seen.first ??= seen.last
          const before = seen.first.pairs
          progress.update(now.step, now.steps, now.pairs - before, now.allPairs - before)
        },
      }),
    report({ checkpoint: _, finished: __, ...result }) {
      const times = { ms: performance.now() - start, rows_per_second: pairRate(seen.first, seen.last) }
      return options.json ? printJson({ ...result, ...times }) : print(trainingReport(result, out))
    },
  })
}
