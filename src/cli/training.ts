// What commands that train on pairs have in common: options, the folder, saving and resuming, progress and the report.

import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Device } from '../device/device.ts'
import { type DeviceKind, openDevice } from '../device/open.ts'
import { sampleHash } from '../files/hash.ts'
import { printable } from '../files/json.ts'
import { closeSources } from '../files/source.ts'
import { encodeCheckpoint } from '../reward/encode.ts'
import { openPairs, type PairFile } from '../reward/pair_file.ts'
import type { EpochResult } from '../train/log.ts'
import { largestBatch, splitPairs } from '../train/pair_batches.ts'
import {
  PAIR_DEFAULTS,
  type PairModel,
  type PairSettings,
  type PairStates,
  type Position,
  trainPairs,
} from '../train/pair_training.ts'
import type { Recipe } from '../train/recipes.ts'
import { planSteps } from '../train/schedule.ts'
import { figure, table } from './draw.ts'
import { listFeatureFiles, openFiles } from './feature_files.ts'
import { type Interrupt, interruptible } from './interrupt.ts'
import { computeOptions, parseFeatures, parseOut, positive, realNumber, wholeNumber } from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress } from './progress.ts'
import { openTrainingFolder, type TrainingFolder, type TrainingSettings } from './training_folder.ts'

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

interface SaveEvery {
  readonly steps: number
  readonly seconds: number
}

export const TRAINING_HELP = `
Pairs are safetensors files: "embeddings" [N, 2, D], the chosen response before the rejected one, and "prompt_embeddings" [N, D] or
[N, 2, D], as "pinball features" and the scripts of ArmoRM write them. Several files are read as one; a folder stands for all its
files NAME.safetensors. Pairs with the same prompt are all for training or all for validation. Only the rows of two batches are in
memory at a time.

While it goes on, --out holds state.safetensors and log.jsonl (a line of means every --log-every steps, and one an epoch). After
Ctrl-C (exit code 130) or a crash the same command goes on from the state and writes the same files, bit for bit, the log included.
When it is done, --out holds the model, the log and training.json, and the same command does nothing more.`

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
        .default({ steps: Infinity, seconds: 60 }, '60s'),
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

/** A training as its command sets it up. */
export interface Training {
  readonly command: string
  /** What its bits depend on beside the common options. */
  readonly settings: TrainingSettings
  /** Gets it ready for batches of up to `rows` pairs. */
  prepare(device: Device, pairs: PairFile, rows: number, signal: AbortSignal): Promise<Recipe>
}

/** Runs a training from where its folder is to its end, or to an interrupt. */
export async function runTraining(training: Training, options: TrainingOptions): Promise<void> {
  const paths = await listFeatureFiles(options.features)
  const sources = await openFiles(paths)
  try {
    const hashes: string[] = []
    for (const source of sources) hashes.push(await sampleHash(source))
    const pairs = await openPairs(sources)
    const device = await openDevice(options.device, { threads: options.threads })
    try {
      await trainOn(device, pairs, training, options, hashes)
    } finally {
      await device.destroy()
    }
  } finally {
    await closeSources(sources)
  }
}

async function trainOn(
  device: Device,
  pairs: PairFile,
  training: Training,
  options: TrainingOptions,
  hashes: readonly string[],
): Promise<void> {
  const { lr, weightDecay, batch, epochs, marginScale, validation, seed, logEvery } = options
  const settings: TrainingSettings = {
    command: training.command,
    '--lr': lr,
    '--weight-decay': weightDecay,
    '--batch': batch,
    '--epochs': epochs,
    '--margin-scale': marginScale,
    '--validation': validation,
    '--seed': seed,
    '--log-every': logEvery,
    // Devices round in their own ways.
    '--device': device.name,
    ...training.settings,
    'features with the SHA-256': hashes,
  }
  const split = splitPairs(pairs, validation, seed)
  const start = performance.now()
  const folder = await openTrainingFolder(options.out, settings, options)
  try {
    if (folder.result !== null) {
      note(`${training.command}: ${printable(options.out)} holds this training, finished; --restart begins it anew`)
      return await report(folder.result, { ms: performance.now() - start, rows_per_second: null }, options)
    }
    const done = await interruptible(training.command, (interrupt) =>
      trainIn(folder, { device, pairs, split, training, options }, interrupt),
    )
    if (done) await report(done.result, { ms: performance.now() - start, rows_per_second: done.rate }, options)
  } finally {
    await folder.close()
  }
}

interface Setup {
  readonly device: Device
  readonly pairs: PairFile
  readonly split: ReturnType<typeof splitPairs>
  readonly training: Training
  readonly options: TrainingOptions
}

/** Gives null where it was interrupted, and has told the user how to go on. */
async function trainIn(folder: TrainingFolder, setup: Setup, interrupt: Interrupt) {
  const { device, pairs, split, training, options } = setup
  const { signal } = interrupt
  const rows = largestBatch(split, options.batch)
  let position: Position | null = null
  let model: PairModel | null = null
  try {
    const prepared = await training.prepare(device, pairs, rows, signal)
    model = prepared.model
    position = await folder.begin(model)
    const begun = performance.now()
    const first = pairsDone(split.training.length, options, position.step)
    position = await train(folder, setup, { ...prepared, start: position, signal, keep: (at) => (position = at) })
    const seconds = (performance.now() - begun) / 1000
    const trained = pairsDone(split.training.length, options, position.step) - first
    const result = {
      pairs: pairs.pairs,
      training: split.training.length,
      validation: split.validation.length,
      parameters: model.parameters.reduce((sum, { value }) => sum + value.size, 0),
      steps: position.step,
      epochs: position.epochs,
      accuracy: accuracyOf(position.epochs),
    }
    await folder.finish(encodeCheckpoint(await prepared.checkpoint()), result)
    return { result, rate: trained > 0 ? trained / seconds : null }
  } catch (error) {
    if (!signal.aborted) throw error
    if (model && position) await folder.save(model, position)
    const kept = position ? `step ${position.step} is saved in ${printable(options.out)}` : 'no step was made'
    note(`${training.command}: interrupted; ${kept}; the same command goes on from there`)
    process.exitCode = interrupt.code()
    return null
  } finally {
    model?.destroy()
  }
}

/** Pairs that were trained on in a number of steps. */
function pairsDone(count: number, { batch, epochs }: TrainingOptions, steps: number): number {
  const { stepsPerEpoch } = planSteps(count, batch, epochs)
  const inEpoch = Math.min(count, stepsPerEpoch * batch)
  return Math.floor(steps / stepsPerEpoch) * inEpoch + (steps % stepsPerEpoch) * batch
}

function accuracyOf(epochs: readonly EpochResult[]): number | null {
  const last = epochs[epochs.length - 1]
  return last ? (last.validation_accuracy ?? last.accuracy) : null
}

interface Course {
  readonly states: PairStates
  readonly model: PairModel
  readonly start: Position
  readonly signal: AbortSignal
  keep(position: Position): void
}

async function train(
  folder: TrainingFolder,
  { device, split, options }: Setup,
  { states, model, start, signal, keep }: Course,
): Promise<Position> {
  const { saveEvery, batch } = options
  const progress = startProgress('steps', 'pairs')
  let saved = { step: start.step, at: performance.now() }
  try {
    return await trainPairs({
      device,
      model,
      states,
      split,
      settings: options,
      start,
      logEvery: options.logEvery,
      signal,
      onEntry: (entry) => folder.log(entry),
      async onStep(position, steps) {
        keep(position)
        await folder.flush()
        const [now, { step }] = [performance.now(), position]
        progress.update(step, steps, (step - start.step) * batch, (steps - start.step) * batch)
        if (step === steps || (step - saved.step < saveEvery.steps && now - saved.at < 1000 * saveEvery.seconds)) return
        await folder.save(model, position)
        saved = { step, at: performance.now() }
      },
    })
  } finally {
    progress.end()
  }
}

async function report(
  result: Record<string, unknown>,
  times: { readonly ms: number; readonly rows_per_second: number | null },
  { out, json }: TrainingOptions,
): Promise<void> {
  if (json) return printJson({ ...result, ...times })
  const head = ['epoch', 'loss', 'accuracy', 'validation loss', 'validation accuracy']
  const cell = (value: number | null) => (value === null ? '' : figure(value))
  const lines = (result.epochs as EpochResult[]).map((epoch) => [
    String(epoch.epoch),
    cell(epoch.loss),
    cell(epoch.accuracy),
    cell(epoch.validation_loss),
    cell(epoch.validation_accuracy),
  ])
  const { training, validation, steps, parameters } = result
  const about = `${parameters} parameters, ${steps} steps on ${training} pairs, ${validation} for validation`
  return print(`${table([head, ...lines], [0, 1, 2, 3, 4])}\n${printable(out)}: ${about}\n`)
}
