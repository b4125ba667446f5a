// Whole trainings, from pairs and heads to a checkpoint: what the commands save step by step, in one call.
import type { Device } from '../device/device.ts'
import type { Checkpoint } from '../reward/checkpoint.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import type { PairFile } from '../reward/pair_file.ts'
import { ScoreModel } from './bradley_terry.ts'
import { gateCheckpoint, scoreCheckpoint } from './checkpoints.ts'
import { GATE_DEFAULTS, GateModel, type GateSettings } from './gating.ts'
import type { EpochResult, LogEntry } from './log.ts'
import { largestBatch, splitPairs } from './pair_batches.ts'
import { gateStates, type RewardOptions, scoreStates } from './pair_rewards.ts'
import { PAIR_DEFAULTS, type PairModel, type PairSettings, type PairStates, trainPairs } from './pair_training.ts'

/** A training that is ready to begin. */
export interface Recipe {
  readonly states: PairStates
  /** To be destroyed by whoever asked. */
  readonly model: PairModel
  /** The model as it is, without a backbone. */
  checkpoint(): Promise<Checkpoint>
}

/** A gate over frozen heads, for batches of up to `rows` pairs. Reads the features once, for the rewards. */
export async function gateRecipe(
  device: Device,
  pairs: PairFile,
  heads: HeadsFile,
  { rows, ...settings }: GateSettings & RewardOptions & { readonly rows: number },
): Promise<Recipe> {
  const states = await gateStates(device, pairs, heads, settings)
  const model = new GateModel(device, pairs.columns, heads.attributes.length, rows * states.sides, settings)
  return { states, model, checkpoint: async () => gateCheckpoint(heads, await model.weights()) }
}

/** A Bradley-Terry head, for batches of up to `rows` pairs. */
export function scoreRecipe(
  device: Device,
  pairs: PairFile,
  { rows, seed }: { readonly rows: number; readonly seed: number },
): Recipe {
  const states = scoreStates(pairs)
  const model = new ScoreModel(device, pairs.columns, rows * states.sides, { seed })
  return { states, model, checkpoint: async () => scoreCheckpoint(await model.weights()) }
}

export interface TrainHooks {
  /** Called with each line of the log. */
  readonly onEntry?: (entry: LogEntry) => void
  /** Stops after a step, and throws its reason. */
  readonly signal?: AbortSignal
}

export interface Trained {
  /** Without a backbone; `encodeCheckpoint` makes its files, with one or without. */
  readonly checkpoint: Checkpoint
  readonly epochs: readonly EpochResult[]
}

/**
 * Trains a gate over frozen heads on pairs by the Bradley-Terry loss of the mixture's expectation, with the settings of the paper
 * where none are given. Quantile heads get a gate of QRM, point heads one of ArmoRM. Throws where pairs and heads do not go
 * together, the split leaves too few pairs, a feature is not finite, or the loss is not.
 */
export async function trainGate(
  device: Device,
  pairs: PairFile,
  heads: HeadsFile,
  options: Partial<PairSettings & Omit<GateSettings, 'norm'>> & TrainHooks = {},
): Promise<Trained> {
  const norm = heads.levels === null ? 'none' : 'batch'
  const settings = { ...PAIR_DEFAULTS, ...GATE_DEFAULTS, ...options, norm } as const
  return run(device, pairs, settings, (rows) => gateRecipe(device, pairs, heads, { ...settings, rows }))
}

/** Trains a linear head on pairs by the Bradley-Terry loss. Throws as `trainGate` does. */
export async function trainBradleyTerry(
  device: Device,
  pairs: PairFile,
  options: Partial<PairSettings> & TrainHooks = {},
): Promise<Trained> {
  const settings = { ...PAIR_DEFAULTS, ...options }
  return run(device, pairs, settings, async (rows) => scoreRecipe(device, pairs, { ...settings, rows }))
}

async function run(
  device: Device,
  pairs: PairFile,
  settings: PairSettings & TrainHooks,
  prepare: (rows: number) => Promise<Recipe>,
): Promise<Trained> {
  const split = splitPairs(pairs, settings.validation, settings.seed)
  const { states, model, checkpoint } = await prepare(largestBatch(split, settings.batch))
  try {
    const { onEntry, signal } = settings
    const { epochs } = await trainPairs({ device, model, states, split, settings, onEntry, signal })
    return { checkpoint: await checkpoint(), epochs }
  } finally {
    model.destroy()
  }
}
