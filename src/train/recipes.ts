// Whole trainings, from pairs and heads to a checkpoint, in one call: kept in a store while they go on, where one is given.
import type { Device } from '../device/device.ts'
import type { Store } from '../files/store.ts'
import type { WorkSettings } from '../files/work.ts'
import { type Checkpoint, readCheckpoint } from '../reward/checkpoint.ts'
import { encodeCheckpoint } from '../reward/encode.ts'
import { type Fitted, fittedTo, pairKeysOf } from '../reward/fitted.ts'
import { type HeadsFile, headsHash } from '../reward/heads_file.ts'
import type { PairFile } from '../reward/pair_file.ts'
import { ScoreModel } from './bradley_terry.ts'
import { gateCheckpoint, scoreCheckpoint } from './checkpoints.ts'
import { GATE_DEFAULTS, GateModel, type GateSettings } from './gating.ts'
import { largestBatch, planPairs, type Split, splitPairs } from './pair_batches.ts'
import type { EpochResult, PairEntry, PairTally } from './pair_log.ts'
import { gateStates, scoreStates } from './pair_rewards.ts'
import { PAIR_DEFAULTS, type PairModel, type PairSettings, type PairStates, trainPairs } from './pair_task.ts'
import type { Plan } from './schedule.ts'
import type { Position } from './trainer.ts'
import { openTrainingFolder, type ResumeOptions } from './training_folder.ts'

/** How far a training is. */
export interface TrainProgress {
  /** Steps done, and in all. */
  readonly step: number
  readonly steps: number
  /** Pairs trained on, each as often as it was used, and in all. */
  readonly pairs: number
  readonly allPairs: number
}

export interface TrainOptions extends ResumeOptions {
  /**
   * Where the training is kept while it goes on, and its model when it is done: config.json, pinball.json, model.safetensors,
   * log.jsonl, training.json. The same call then goes on after a crash and gives the same bits; another training in the store, or
   * anything else, is an error. Without a store nothing is kept.
   */
  readonly store?: Store
  /** Steps between two lines of the log; default 10. */
  readonly logEvery?: number
  /** Stops after a step, saves, and throws its reason. */
  readonly signal?: AbortSignal
  /** Called with each line of the log. */
  readonly onEntry?: (entry: PairEntry) => void
  /** Called when training begins or goes on, and after each step. */
  readonly onProgress?: (progress: TrainProgress) => void
  /** Called with the step that has been saved. */
  readonly onSave?: (step: number) => void
}

export interface GateOptions extends TrainOptions {
  /** Called while all features go through the heads, once, before the first step. */
  readonly onRewards?: (done: number, pairs: number) => void
}

/** What a training has come to, as training.json says. */
export interface TrainingResult {
  readonly pairs: number
  /** Pairs for training and for validation. */
  readonly training: number
  readonly validation: number
  /** Trained numbers. */
  readonly parameters: number
  readonly steps: number
  readonly epochs: readonly EpochResult[]
  /** Of the last epoch: on the validation pairs, or where there are none on those for training, as it was while they were used. */
  readonly accuracy: number | null
}

export interface Trained extends TrainingResult {
  /** Without a backbone; `encodeCheckpoint` makes its files, with one or without. */
  readonly checkpoint: Checkpoint
  /** Whether the store held all of it, and nothing was computed. */
  readonly finished: boolean
}

/**
 * Trains a gate over frozen heads on pairs by the Bradley-Terry loss of the mixture's expectation, with the settings of the paper
 * where none are given. Quantile heads get a gate of QRM, point heads one of ArmoRM. Throws where pairs and heads do not go
 * together, the split leaves too few pairs, a feature is not finite, the loss is not, or the store holds something else.
 */
export async function trainGate(
  device: Device,
  pairs: PairFile,
  heads: HeadsFile,
  options: Partial<PairSettings & Omit<GateSettings, 'norm'>> & GateOptions = {},
): Promise<Trained> {
  if (heads.attributes.length === 1) {
    throw new Error(
      `${heads.name}: has one attribute, so that a gate has nothing to choose from; such heads are a model without a gate: "pinball fit --out DIR" writes one, and "pinball assemble", "calibrate" and "eval" take the file`,
    )
  }
  const norm = heads.levels === null ? 'none' : 'batch'
  const settings = { ...PAIR_DEFAULTS, ...GATE_DEFAULTS, ...options, norm } as const
  const { hidden, layers, temperature, logitScale, onRewards, signal } = settings
  return trainInStore(device, pairs, settings, {
    command: 'gate',
    settings: async () => ({
      '--hidden': hidden,
      '--layers': layers,
      '--temperature': temperature,
      '--logit-scale': logitScale,
      'heads with the SHA-256': await headsHash(heads),
    }),
    async prepare(rows) {
      const states = await gateStates(device, pairs, heads, { onProgress: onRewards, signal })
      const model = new GateModel(device, pairs.columns, heads.attributes.length, rows * states.sides, settings)
      return { states, model, checkpoint: async () => gateCheckpoint(heads, await model.weights()) }
    },
  })
}

/** Trains a linear head on pairs by the Bradley-Terry loss. Throws as `trainGate` does. */
export async function trainBradleyTerry(
  device: Device,
  pairs: PairFile,
  options: Partial<PairSettings> & TrainOptions = {},
): Promise<Trained> {
  const settings = { ...PAIR_DEFAULTS, ...options }
  return trainInStore(device, pairs, settings, {
    command: 'bradley-terry',
    settings: async () => ({}),
    async prepare(rows) {
      const states = scoreStates(pairs)
      const model = new ScoreModel(device, pairs.columns, rows * states.sides, settings)
      return { states, model, checkpoint: async () => scoreCheckpoint(await model.weights()) }
    },
  })
}

/** What one training on pairs has that others have not. */
interface Recipe {
  readonly command: string
  /** What its bits depend on beside pairs and the common settings. */
  settings(): Promise<WorkSettings>
  /** Makes a model for batches of up to `rows` pairs. */
  prepare(rows: number): Promise<{
    readonly states: PairStates
    readonly model: PairModel
    checkpoint(): Promise<Checkpoint>
  }>
}

async function trainInStore(
  device: Device,
  pairs: PairFile,
  settings: PairSettings & TrainOptions,
  recipe: Recipe,
): Promise<Trained> {
  const split = splitPairs(pairs, settings.validation, settings.seed)
  const folder = settings.store ? await openFolder(settings.store, device, pairs, settings, recipe) : null
  try {
    if (settings.store && folder?.result) {
      const result = folder.result as unknown as TrainingResult
      return { ...result, checkpoint: await readCheckpoint(settings.store), finished: true }
    }
    const { states, model, checkpoint } = await recipe.prepare(largestBatch(split, settings.batch))
    try {
      const plan = planPairs(split, settings.batch, settings.epochs)
      const progress = ({ step }: Position<PairTally>) => settings.onProgress?.(progressOf(plan, step))
      const position = await trainPairs({
        ...{ device, model, states, split, settings, keeper: folder },
        ...{ logEvery: settings.logEvery, signal: settings.signal, onEntry: settings.onEntry },
        onBegin: progress,
        onStep: progress,
        onSave: ({ step }) => settings.onSave?.(step),
      })
      const made = await checkpoint()
      const trained = { ...made, fitted: await withPairs(made.fitted, pairs) }
      const result = describe(pairs, split, model, position)
      await folder?.finish(encodeCheckpoint(trained), { ...result })
      return { ...result, checkpoint: trained, finished: false }
    } finally {
      model.destroy()
    }
  } finally {
    await folder?.close()
  }
}

const BATCH = 256

/** What a checkpoint was fitted to, with the pairs that it was trained on. */
async function withPairs(fitted: Fitted | null | undefined, pairs: PairFile): Promise<Fitted> {
  const keys: bigint[] = []
  for (let first = 0; first < pairs.pairs; first += BATCH) {
    const rows = Array.from({ length: Math.min(BATCH, pairs.pairs - first) }, (_, i) => first + i)
    keys.push(...pairKeysOf(await pairs.readSides(rows), pairs.columns))
  }
  return { ...(fitted ?? (await fittedTo([], null))), pairs: BigInt64Array.from(new Set(keys)).sort() }
}

async function openFolder(
  store: Store,
  device: Device,
  pairs: PairFile,
  options: PairSettings & TrainOptions,
  recipe: Recipe,
) {
  const { lr, weightDecay, batch, epochs, marginScale, validation, seed, logEvery = 10 } = options
  const { restart, saveEvery, onNote } = options
  const settings = {
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
    ...(await recipe.settings()),
    'features with the SHA-256': await pairs.hashes(),
  }
  return openTrainingFolder(store, { command: recipe.command, settings, restart, saveEvery, onNote })
}

/** Pairs that were trained on in a number of steps. */
function pairsDone({ rows, batch, stepsPerEpoch }: Plan, steps: number): number {
  const inEpoch = Math.min(rows, stepsPerEpoch * batch)
  return Math.floor(steps / stepsPerEpoch) * inEpoch + (steps % stepsPerEpoch) * batch
}

function progressOf(plan: Plan, step: number): TrainProgress {
  const { steps } = plan
  return { step, steps, pairs: pairsDone(plan, step), allPairs: pairsDone(plan, steps) }
}

function describe(
  { pairs }: PairFile,
  { training, validation }: Split,
  model: PairModel,
  { step, tally: { epochs } }: Position<PairTally>,
): TrainingResult {
  const last = epochs[epochs.length - 1]
  return {
    pairs,
    training: training.length,
    validation: validation.length,
    parameters: model.parameters.reduce((sum, { value }) => sum + value.size, 0),
    steps: step,
    epochs,
    accuracy: last ? (last.validation_accuracy ?? last.accuracy) : null,
  }
}
