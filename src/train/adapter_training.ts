// What all trainings of adapters have in common: settings, the base, the folder that keeps them, progress, and the files at the end.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Store, StoreTree } from '../files/store.ts'
import type { WorkSettings } from '../files/work.ts'
import { type Adapter, encodeAdapter, hashAdapter, readAdapter } from '../llama/adapter_files.ts'
import { type LlamaConfig, parseLlamaConfig } from '../llama/config.ts'
import { type Backbone, openBackbone } from '../llama/forward.ts'
import { type ModelDirectory, openModelDirectory } from '../reward/directory.ts'
import type { CheckpointFile } from '../reward/encode.ts'
import { fingerprint } from '../reward/fingerprint.ts'
import { AdapterParameters } from './adapter_parameters.ts'
import { keepCheckpoints, saveCheckpoint } from './checkpoint_folders.ts'
import { EventLog } from './event_log.ts'
import type { LogEntry } from './log.ts'
import type { RolloutProgress } from './rloo/collect.ts'
import type { Decline } from './schedule.ts'
import { type MicroBatch, type Place, type Position, type Task, train } from './trainer.ts'
import { openTrainingFolder, type ResumeOptions } from './training_folder.ts'

/** How a new adapter begins. */
export interface AdapterSettings {
  readonly rank: number
  readonly alpha: number
  /** Names of projections, or "all-linear". */
  readonly targets: readonly string[] | 'all-linear'
  /** From 0 to below 1. */
  readonly dropout: number
}

/** Settings that all trainings of adapters share. */
export interface AdapterTraining extends AdapterSettings {
  /** An adapter to go on with; the settings of a new one are not used then. */
  readonly adapter: ModelFiles | null
  readonly lr: number
  readonly schedule: Decline
  /** Steps if 1 or more, a share of all steps below 1. */
  readonly warmup: number
  readonly weightDecay: number
  /** 0: no clipping. */
  readonly maxGradNorm: number
  /** Sequences of a step, or pairs. */
  readonly batch: number
  /** Sequences that are computed at once; null: as many as fit 1,024 tokens on a CPU, 4,096 on a GPU. */
  readonly microBatch: number | null
  readonly epochs: number
  readonly maxSteps: number | null
  readonly shuffle: boolean
  readonly seed: number
  readonly checkpointing: boolean
  /** Steps between two evaluations; 0: after the last step only. */
  readonly evalSteps: number
  /** Steps between two folders checkpoint-N; 0: none. */
  readonly saveSteps: number
}

/** Of the paper, where it says; the rest as TRL has it. */
export const ADAPTER_DEFAULTS: AdapterTraining = {
  adapter: null,
  rank: 32,
  alpha: 64,
  targets: 'all-linear',
  dropout: 0,
  lr: 3e-4,
  schedule: 'cosine',
  warmup: 0,
  weightDecay: 0,
  maxGradNorm: 1,
  batch: 1024,
  microBatch: null,
  epochs: 1,
  maxSteps: null,
  shuffle: true,
  seed: 0,
  checkpointing: false,
  evalSteps: 0,
  saveSteps: 0,
}

export interface AdapterProgress {
  /** Steps done, and in all. */
  readonly step: number
  readonly steps: number
  /** Steps done with the part of the one that is being made. */
  readonly done: number
  /** Tokens so far, those of the step that is being made included. */
  readonly tokens: number
  /** Of the last step. */
  readonly loss: number | null
  readonly gradNorm: number | null
  /** Where a policy draws what it learns from. */
  readonly policy?: {
    /** Of the last step. */
    readonly reward: number | null
    readonly klSeq: number | null
    /** How far the completions of this step, or of an evaluation, are drawn; null where they are not being drawn. */
    readonly drawn: RolloutProgress | null
  }
}

export interface KeepOptions extends ResumeOptions {
  /**
   * Where the training is kept while it goes on, and the adapter when it is done: adapter_config.json, adapter_model.safetensors,
   * log.jsonl, event file, training.json, checkpoint-N. The same call continues after a crash and gives the same bits.
   */
  readonly store?: StoreTree
  /** What else training.json is to say, such as names of files; nothing depends on it. */
  readonly record?: WorkSettings
  /** Stops, saves the last step, and throws its reason. */
  readonly signal?: AbortSignal
  readonly onEntry?: (entry: LogEntry) => void
  /** Called after each micro-batch. */
  readonly onProgress?: (progress: AdapterProgress) => void
  /** Called with the step that has been saved. */
  readonly onSave?: (step: number) => void
}

/** A micro-batch that knows how many tokens it has. */
export interface TokenBatch extends MicroBatch {
  /** Tokens that go through the model, prompts included. */
  readonly tokens: number
}

/** What every tally counts. */
export interface TokenTally {
  /** Tokens that went through the model, prompts included. */
  readonly tokens: number
}

/** The base of a training, on a device. */
export interface TrainingBase {
  readonly model: Backbone
  readonly directory: ModelDirectory
  readonly adapter: AdapterParameters
  /** Ties something to the training: it is destroyed with it. */
  own<T extends { destroy(): void }>(thing: T): T
}

/** A training of an adapter: what differs between one kind and another. */
export interface AdapterJob<Batch extends TokenBatch, Sums, Tally extends TokenTally, Result extends object> {
  /** The command, as `sft`; a folder of another one is refused. */
  readonly command: string
  readonly settings: AdapterTraining & KeepOptions
  /** What the bits depend on beside the shared settings and the base, by what an error calls it: options, hashes of rows. */
  readonly kept: WorkSettings
  readonly steps: number
  /** Checks the base and gives the adapter that training begins with; nothing is on the device yet. */
  begin(config: LlamaConfig, directory: ModelDirectory): Promise<Adapter> | Adapter
  task(base: TrainingBase): Promise<Task<Batch, Sums, Tally>>
  /** What was reached; JSON, and part of training.json. */
  result(position: Position<Tally>, parameters: number): Result
  /** Called when training begins or goes on, and after each step, before its state may be saved. */
  begun?(position: Position<Tally>): Promise<void>
  stepped?(position: Position<Tally>): Promise<void>
  /** Writes what was trained; by default the adapter as PEFT does. */
  write?(adapter: Adapter, base: TrainingBase, out: Store): Promise<void>
  /** Called when training has ended, before anything is freed. */
  finished?(): Promise<void>
  /** Whether what it writes holds no adapter: a finished training gives none then. */
  readonly merged?: boolean
  /** Files of a checkpoint-N beside those of the adapter. */
  extraFiles?(): Promise<readonly CheckpointFile[]>
}

export interface TunedAdapter {
  /** null where the store held it, and not as an adapter. */
  readonly adapter: Adapter | null
  /** Whether the store held all of it, and nothing was computed. */
  readonly finished: boolean
}

/** Checkpoints that are kept. */
const KEPT = 3
const SECONDS = 60

/**
 * Runs a training of an adapter to its end. Throws where the adapter does not fit, a loss or a gradient is not finite, a gradient of a
 * B is zero after the first step, or the store holds something else.
 */
export async function trainAdapter<Batch extends TokenBatch, Sums, Tally extends TokenTally, Result extends object>(
  device: Device,
  files: ModelFiles,
  job: AdapterJob<Batch, Sums, Tally, Result>,
): Promise<Result & TunedAdapter> {
  const { command, settings, steps } = job
  const { store, signal, saveSteps, saveEvery } = settings
  const directory = await openModelDirectory(files)
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  try {
    const config = parseLlamaConfig(directory.config, `${directory.name}/config.json`)
    const start = await job.begin(config, directory)
    checkWritable(start, config)
    const folder = store
      ? await openTrainingFolder(store, {
          command,
          settings: {
            ...sharedSettings(settings),
            ...job.kept,
            // Devices round in their own ways.
            '--device': device.name,
            'a model with the fingerprint': await fingerprint(files, directory.tensors),
            'an adapter with the SHA-256': settings.adapter && (await hashAdapter(start)),
          },
          record: {
            ...settings.record,
            '--checkpointing': settings.checkpointing,
            '--save-steps': saveSteps,
          },
          restart: settings.restart,
          saveEvery: saveEvery ?? { steps: saveSteps || Infinity, seconds: SECONDS },
          onNote: settings.onNote,
        })
      : null
    try {
      if (store && folder?.result) {
        const adapter = job.merged ? null : await readAdapter(store, config)
        return { ...(folder.result as Result), adapter, finished: true }
      }
      const model = own(await openBackbone(device, directory))
      const adapter = own(new AdapterParameters(device, start, config))
      const base = { model, directory, adapter, own }
      const events = store ? new EventLog(store) : null
      const meter = new Meter<Tally>(steps, settings)
      const task = await job.task(base)
      const position = await train({
        device,
        task,
        settings: {
          ...{ lr: settings.lr, schedule: settings.schedule, warmup: settings.warmup, steps },
          ...{ weightDecay: settings.weightDecay, maxGradNorm: settings.maxGradNorm, evaluateEvery: 1 },
        },
        keeper: folder,
        signal,
        onEntry(entry) {
          meter.see(entry)
          events?.add(entry)
          settings.onEntry?.(entry)
        },
        async onBegin(position) {
          meter.at(position)
          // Those of a training that this one replaces.
          if (store && position.step === 0) await keepCheckpoints(store, 0)
          await job.begun?.(position)
        },
        onBatch: (batch, place) => meter.add(batch, place),
        async onStep(position) {
          meter.at(position)
          await events?.flush(position.step)
          await job.stepped?.(position)
          if (!store || saveSteps === 0 || position.step % saveSteps !== 0) return
          const whole = [...encodeAdapter(await adapter.read(), config), ...((await job.extraFiles?.()) ?? [])]
          await saveCheckpoint(store, position.step, whole, { keep: KEPT })
        },
        onSave: ({ step }) => settings.onSave?.(step),
      })
      const trained = await adapter.read()
      const parameters = task.parameters.reduce((sum, { value }) => sum + value.size, 0)
      const result = job.result(position, parameters)
      const write = job.write ?? writeAdapter
      await job.finished?.()
      await folder?.finish((out) => write(trained, base, out), { ...(result as Record<string, unknown>) })
      return { ...result, adapter: trained, finished: false }
    } finally {
      await folder?.close()
    }
  } finally {
    for (const thing of owned.reverse()) thing.destroy()
    await directory.close()
  }
}

/** Throws where an adapter could be trained and not be written: its patterns may name modules by paths that a causal model has not. */
function checkWritable(start: Adapter, config: LlamaConfig): void {
  try {
    encodeAdapter(start, config)
  } catch (error) {
    throw new Error(
      `${(error as Error).message}; it is written for a causal model, where the paths of modules begin with "model.", and could not be written so`,
    )
  }
}

/** Tokens of a micro-batch where nobody says how many sequences it has. */
export const passTokens = ({ kind }: Device): number => (kind === 'wasm' ? 1024 : 4096)

/** Says how far a training has come, after every micro-batch. */
class Meter<Tally extends TokenTally> {
  readonly #steps: number
  readonly #onProgress: KeepOptions['onProgress']
  #position: { readonly step: number; readonly tokens: number } = { step: 0, tokens: 0 }
  /** Of the step that is being made. */
  #part = { weight: 0, tokens: 0 }
  #last: { readonly loss?: number; readonly grad_norm?: number } = {}

  constructor(steps: number, { onProgress }: KeepOptions) {
    this.#steps = steps
    this.#onProgress = onProgress
  }

  /** Takes a line of the log. */
  see(entry: LogEntry): void {
    if ('loss' in entry) this.#last = entry as { readonly loss: number }
  }

  /** A step is done, or training begins. */
  at({ step, tally }: Position<Tally>): void {
    this.#position = { step, tokens: tally.tokens }
    this.#report(step, tally.tokens)
  }

  /** A micro-batch is done. */
  add({ weight, tokens }: TokenBatch, { index, total }: Place): void {
    if (index === 0) this.#part = { weight: 0, tokens: 0 }
    this.#part = { weight: this.#part.weight + weight, tokens: this.#part.tokens + tokens }
    const { step, tokens: before } = this.#position
    this.#report(step + this.#part.weight / total, before + this.#part.tokens)
  }

  #report(done: number, tokens: number): void {
    const { loss = null, grad_norm: gradNorm = null } = this.#last
    this.#onProgress?.({ step: this.#position.step, steps: this.#steps, done, tokens, loss, gradNorm })
  }
}

/** Writes an adapter as PEFT does. */
export async function writeAdapter(adapter: Adapter, { model }: TrainingBase, out: Store): Promise<void> {
  for (const { file, chunks } of encodeAdapter(adapter, model.config)) await out.write(file, chunks)
}

/** The shared settings that the bits depend on, by what an error calls them. */
function sharedSettings(settings: AdapterTraining): WorkSettings {
  const fresh = settings.adapter === null
  return {
    ...(fresh && { '--rank': settings.rank, '--alpha': settings.alpha, '--targets': settings.targets }),
    ...(fresh && { '--dropout': settings.dropout }),
    '--lr': settings.lr,
    '--schedule': settings.schedule,
    '--warmup': settings.warmup,
    '--weight-decay': settings.weightDecay,
    '--max-grad-norm': settings.maxGradNorm,
    '--batch': settings.batch,
    '--micro-batch': settings.microBatch,
    '--epochs': settings.epochs,
    '--max-steps': settings.maxSteps,
    '--no-shuffle': !settings.shuffle,
    '--seed': settings.seed,
    '--eval-steps': settings.evalSteps,
  }
}
