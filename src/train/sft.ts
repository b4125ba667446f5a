// Supervised fine-tuning with LoRA, from rows to an adapter's files, in one call: kept in a store while it goes on.
import type { Device } from '../device/device.ts'
import { digest } from '../files/hash.ts'
import type { ModelFiles } from '../files/source.ts'
import type { StoreTree } from '../files/store.ts'
import type { WorkSettings } from '../files/work.ts'
import { newAdapterConfig } from '../llama/adapter_config.ts'
import { type Adapter, encodeAdapter, readAdapter } from '../llama/adapter_files.ts'
import { openBackbone } from '../llama/forward.ts'
import { openOutputLayer } from '../llama/output_layer.ts'
import { openModelDirectory } from '../reward/directory.ts'
import { fingerprint } from '../reward/fingerprint.ts'
import { AdapterParameters } from './adapter_parameters.ts'
import { startAdapter } from './adapter_start.ts'
import { saveCheckpoint } from './checkpoint_folders.ts'
import { EventLog } from './event_log.ts'
import type { LogEntry } from './log.ts'
import { packBestFit } from './packing.ts'
import { randomBits } from './random.ts'
import { type Decline, planSteps } from './schedule.ts'
import type { SftRow } from './sft_rows.ts'
import { type SftEntry, type SftTally, sftTask } from './sft_task.ts'
import { type Position, train } from './trainer.ts'
import { openTrainingFolder, SAVE_DEFAULT, type SaveEvery } from './training_folder.ts'

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
  /** Sequences of a step. */
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

export interface SftSettings extends AdapterTraining {
  /** Put rows together into sequences of up to `maxLength` tokens; they never see each other. */
  readonly packing: boolean
  readonly maxLength: number
}

/** Of the paper, where it says; rows and rest as TRL has them. */
export const SFT_DEFAULTS: SftSettings = {
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
  packing: false,
  maxLength: 1024,
}

export interface SftProgress {
  /** Steps done, and in all. */
  readonly step: number
  readonly steps: number
  /** Tokens so far. */
  readonly tokens: number
  readonly loss: number | null
  readonly gradNorm: number | null
}

export interface KeepOptions {
  /**
   * Where the training is kept while it goes on, and the adapter when it is done: adapter_config.json, adapter_model.safetensors,
   * log.jsonl, event file, training.json, checkpoint-N. The same call continues after a crash and gives the same bits.
   */
  readonly store?: StoreTree
  /** Begins anew, whatever the store holds of an earlier training. */
  readonly restart?: boolean
  readonly saveEvery?: SaveEvery
  /** Stops after a step, saves, and throws its reason. */
  readonly signal?: AbortSignal
  readonly onEntry?: (entry: LogEntry) => void
  readonly onProgress?: (progress: SftProgress) => void
  /** Called with the step that has been saved. */
  readonly onSave?: (step: number) => void
  /** Takes one line about each damaged state of an earlier call. */
  readonly onNote?: (line: string) => void
}

export interface SftResult {
  /** Rows that were trained on, and rows that were held out. */
  readonly rows: number
  readonly held: number
  /** What a step counts: rows, or packed sequences. */
  readonly sequences: number
  readonly steps: number
  /** Trained numbers. */
  readonly parameters: number
  readonly num_tokens: number
  /** Of the last step. */
  readonly loss: number | null
  /** After the last step; null without held-out rows. */
  readonly eval_loss: number | null
}

export interface Tuned extends SftResult {
  readonly adapter: Adapter
  /** Whether the store held all of it, and nothing was computed. */
  readonly finished: boolean
}

/** Rows by a seeded draw: those for training, and a share that is held out (one at least where the share is above 0). */
export function holdOut<T>(rows: readonly T[], share: number, seed: number): { training: T[]; held: T[] } {
  const count = share > 0 ? Math.max(1, Math.round(share * rows.length)) : 0
  const draws = rows.map((_, i) => randomBits(seed, HELD, i))
  const chosen = new Set(
    rows
      .map((_, i) => i)
      .sort((a, b) => draws[a] - draws[b] || a - b)
      .slice(0, count),
  )
  return { training: rows.filter((_, i) => !chosen.has(i)), held: rows.filter((_, i) => chosen.has(i)) }
}

// Stream of the draw of held-out rows.
const HELD = 2 ** 19

/**
 * Trains an adapter on rows of a causal model; `held` are rows for evaluation. Throws where there is nothing to learn, the model has no
 * output layer, the adapter does not fit, a loss or a gradient is not finite, a gradient of a B is zero after the first step, or the
 * store holds something else.
 */
export async function trainSft(
  device: Device,
  files: ModelFiles,
  rows: readonly SftRow[],
  held: readonly SftRow[] = [],
  options: Partial<SftSettings> & KeepOptions = {},
): Promise<Tuned> {
  const settings = { ...SFT_DEFAULTS, ...options }
  const { store, signal, packing, maxLength, batch, epochs, maxSteps, saveSteps } = settings
  if (rows.length === 0) throw new Error('training: there are no rows to train on')
  const sequences = packing
    ? packBestFit(
        rows.map(({ tokens }) => tokens.length),
        maxLength,
      )
    : rows.map((_, row) => [row])
  const plan = planSteps(sequences.length, batch, epochs, { maxSteps: maxSteps ?? Infinity })
  const directory = await openModelDirectory(files)
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  try {
    const model = own(await openBackbone(device, directory))
    const info =
      directory.tensors.get('lm_head.weight') ?? (model.config.tiedEmbeddings ? model.tensors.embedding : undefined)
    if (info === undefined)
      throw new Error(`${files.name}: lm_head.weight is missing; fine-tuning needs a causal model`)
    const start = settings.adapter
      ? await readAdapter(settings.adapter, model.config)
      : newAdapter(model.config, settings)
    if (start.score)
      throw new Error(`${start.name}: is an adapter of a classifier; supervised fine-tuning needs a causal one`)
    const kept = await keptSettings(settings, {
      '--device': device.name,
      'a model with the fingerprint': await fingerprint(files, directory.tensors),
      'an adapter with the SHA-256': settings.adapter && (await adapterHash(start, model.config)),
      'rows with the SHA-256': await rowsHash(rows),
      'held-out rows with the SHA-256': await rowsHash(held),
    })
    const folder = store
      ? await openTrainingFolder(store, {
          command: 'sft',
          settings: kept,
          restart: settings.restart,
          saveEvery: settings.saveEvery ?? SAVE_DEFAULT,
          onNote: settings.onNote,
        })
      : null
    try {
      if (store && folder?.result) {
        const result = folder.result as unknown as SftResult
        return { ...result, adapter: await readAdapter(store, model.config), finished: true }
      }
      const output = own(await openOutputLayer(device, model.config, info))
      const adapter = own(new AdapterParameters(device, start, model.config))
      const task = sftTask(
        device,
        model,
        output,
        adapter,
        { rows, sequences, plan, held },
        {
          ...settings,
          dropout: start.config.dropout,
          tokens: device.kind === 'wasm' ? 1024 : 4096,
        },
      )
      const events = store ? new EventLog(store) : null
      let last: Partial<SftEntry> = {}
      const report = ({ step, tally }: Position<SftTally>) =>
        settings.onProgress?.({
          ...{ step, steps: plan.steps, tokens: tally.tokens, loss: last.loss ?? null },
          gradNorm: last.grad_norm ?? null,
        })
      const position = await train({
        device,
        task,
        settings: {
          ...{ lr: settings.lr, schedule: settings.schedule, warmup: settings.warmup, steps: plan.steps },
          ...{ weightDecay: settings.weightDecay, maxGradNorm: settings.maxGradNorm, evaluateEvery: 1 },
        },
        keeper: folder,
        signal,
        onEntry(entry) {
          if ('loss' in entry) last = entry as SftEntry
          events?.add(entry)
          settings.onEntry?.(entry)
        },
        onBegin: report,
        async onStep(position) {
          report(position)
          await events?.flush(position.step)
          if (store && saveSteps > 0 && position.step % saveSteps === 0)
            await saveCheckpoint(store, position.step, encodeAdapter(await adapter.read(), model.config), {
              keep: KEPT,
            })
        },
        onSave: ({ step }) => settings.onSave?.(step),
      })
      const trained = await adapter.read()
      const result: SftResult = {
        ...{ rows: rows.length, held: held.length, sequences: sequences.length, steps: position.step },
        parameters: adapter.parameters.reduce((sum, { value }) => sum + value.size, 0),
        ...{ num_tokens: position.tally.tokens, loss: position.tally.loss, eval_loss: position.tally.evalLoss },
      }
      await folder?.finish(each(encodeAdapter(trained, model.config)), { ...result })
      return { ...result, adapter: trained, finished: false }
    } finally {
      await folder?.close()
    }
  } finally {
    for (const thing of owned.reverse()) thing.destroy()
    await directory.close()
  }
}

/** Checkpoints that are kept. */
const KEPT = 3

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items
}

function newAdapter(config: Parameters<typeof startAdapter>[1], { rank, alpha, targets, dropout, seed }: SftSettings) {
  return startAdapter(newAdapterConfig({ task: 'CAUSAL_LM', rank, alpha, targets, dropout }), config, seed)
}

/** Everything that the bits depend on, by what an error calls it. */
async function keptSettings(settings: SftSettings, read: WorkSettings): Promise<WorkSettings> {
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
    '--max-length': settings.maxLength,
    '--packing': settings.packing,
    '--no-shuffle': !settings.shuffle,
    '--seed': settings.seed,
    '--eval-steps': settings.evalSteps,
    // Devices round in their own ways.
    ...read,
  }
}

async function adapterHash(adapter: Adapter, config: Parameters<typeof encodeAdapter>[1]): Promise<string> {
  const hashes: string[] = []
  for (const { chunks } of encodeAdapter(adapter, config))
    for (const chunk of chunks) hashes.push(await digest(new Uint8Array(chunk)))
  return digest(new TextEncoder().encode(hashes.join(' ')))
}

/** SHA-256 over tokens and labels of rows, each with its length. */
async function rowsHash(rows: readonly SftRow[]): Promise<string> {
  const hashes: string[] = []
  for (const { tokens, labels } of rows) {
    const words = new Int32Array(1 + 2 * tokens.length)
    words[0] = tokens.length
    words.set(tokens, 1)
    words.set(labels, 1 + tokens.length)
    hashes.push(await digest(new Uint8Array(words.buffer)))
  }
  return digest(new TextEncoder().encode(hashes.join(' ')))
}
