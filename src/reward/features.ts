// Features: the backbone's states that heads and gate read, for any model directory with a Llama backbone, heads or not.

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { ModelFiles } from '../files/source.ts'
import { type Adapter, readAdapter } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { createLlama, type Llama } from '../llama/forward.ts'
import type { LoraLayer } from '../llama/lora.ts'
import { loadAdapter, NO_ADAPTER } from '../llama/lora_adapter.ts'
import { passTensors } from '../llama/pass_tensors.ts'
import { Slot } from '../llama/slot.ts'
import { turns } from '../llama/turns.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { type Batch, planBatches } from './batches.ts'
import { type ModelDirectory, openFor } from './directory.ts'
import { adaptedFingerprint, fingerprint } from './fingerprint.ts'
import { paddingOf } from './padding.ts'
import { type EncodedRow, encodeRow, encodeRows, type Row, type RowRules } from './rows.ts'

export interface ModelOptions {
  /**
   * Tokens computed at once; 512 on the CPU and 2048 on a GPU by default. A longer row is a batch of its own, and so are rows that
   * share a beginning and have more in all, up to twice as many (or twice those of the longest row).
   */
  readonly batchTokens?: number
  /** A LoRA adapter that the model computes under from the beginning, as PEFT or Pinball writes it. */
  readonly adapter?: ModelFiles | null
}

export interface Progress {
  /** Rows finished, of `rows`. */
  readonly done: number
  readonly rows: number
  /** Tokens finished, of `totalTokens`. */
  readonly tokens: number
  readonly totalTokens: number
}

export interface RunOptions {
  /** Called after each batch. */
  readonly onProgress?: (progress: Progress) => void
  /** Stops before the next batch and throws the signal's reason. */
  readonly signal?: AbortSignal
  /** Whether beginnings that rows have in common are computed once; default true. On a CPU the results are the same bits. */
  readonly share?: boolean
}

export interface FeatureOptions extends RunOptions {
  /** Also the states at the gate positions. */
  readonly gate?: boolean
  /** What errors call a row, counted from 0; `row 1` is the first by default. */
  readonly nameRow?: (row: number) => string
}

export interface Features {
  /** State at each row's last token after the final norm [N, D]. */
  readonly embeddings: Float32Array
  /** State at each row's gate position [N, D]; absent unless asked for. */
  readonly promptEmbeddings?: Float32Array
  /** Number of tokens of each row [N]. */
  readonly tokens: Uint32Array
}

/** What a batch gives to the one who asked: device tensors that live until the returned promise settles. */
export interface BatchStates {
  /** Which rows. */
  readonly indices: readonly number[]
  /** [B, D] */
  readonly last: Tensor
  /** [B, D], or null where no gate was asked for. */
  readonly prompt: Tensor | null
}

/** An adapter over a backbone, or none: what a call computes with. */
export interface Adapted {
  /** null: none. */
  readonly adapter: Adapter | null
  /** On the device. */
  readonly layers: readonly LoraLayer[]
  destroy(): void
}

/** The backbone of a model directory, ready to run; the common part of a feature and a reward model. */
export interface Backbone {
  readonly name: string
  readonly device: Device
  readonly config: LlamaConfig
  readonly tokenizer: Tokenizer | null
  readonly rules: RowRules
  /** Puts an adapter on the device; null: none. */
  adapt(files: ModelFiles | null): Promise<Adapted>
  /**
   * Runs encoded rows under an adapter, batch by batch, one batch at a time even where calls overlap. With `gate`, all have gate
   * positions. Rows are taken when it is their turn.
   */
  run(
    take: () => readonly EncodedRow[],
    options: RunOptions & { readonly gate: boolean; readonly adapted: Adapted },
    consume: (states: BatchStates) => Promise<void>,
  ): Promise<void>
  fingerprint(adapted: Adapted): Promise<string>
  destroy(): Promise<void>
}

export interface FeatureModel {
  readonly name: string
  readonly device: Device
  readonly config: LlamaConfig
  readonly tokenizer: Tokenizer | null
  /** Checks and encodes one row; what it gives is a row as well. With `gate`, throws where it has no gate position. */
  encode(row: unknown, options?: { readonly gate?: boolean }): EncodedRow
  /** Features of the rows, in their order; with `gate`, those of the gate too. */
  features(rows: readonly Row[], options?: FeatureOptions): Promise<Features>
  /**
   * Puts a LoRA adapter over the model, in the place of the one that was there; null: none. The base stays as it is loaded, and calls
   * that have begun keep the adapter that they began with. Throws where it does not fit, and then nothing has changed.
   */
  adapter(files: ModelFiles | null): Promise<void>
  /** SHA-256 over configuration, tokenizer, weights and adapter, 64 hexadecimal digits. Reads the whole model. */
  fingerprint(): Promise<string>
  /** Runs work with the adapter that the model has now: what is put over the model meanwhile does not change it. */
  pinned<T>(work: (model: FeatureModel) => Promise<T>): Promise<T>
  destroy(): Promise<void>
}

/** What of a feature model depends on its adapter, by the one in a slot. */
export function adaptedParts<A extends Adapted>(backbone: Backbone, slot: Slot<A>, model: () => FeatureModel) {
  const parts = (use: <T>(work: (adapted: Adapted) => Promise<T>) => Promise<T>) => ({
    features: (rows: readonly Row[], options?: FeatureOptions) =>
      use((adapted) => extractFeatures(backbone, adapted, rows, options)),
    fingerprint: () => use((adapted) => backbone.fingerprint(adapted)),
  })
  return {
    ...parts((work) => slot.use(work)),
    pinned: <T>(work: (model: FeatureModel) => Promise<T>): Promise<T> =>
      slot.use((adapted) => {
        const fixed: FeatureModel = {
          ...model(),
          ...parts((use) => use(adapted)),
          pinned: (more) => more(fixed),
        }
        return work(fixed)
      }),
  }
}

/** Loads what `features` needs of a model directory; heads are not looked at. Throws on whatever is missing or damaged. */
export async function loadFeatureModel(
  device: Device,
  files: ModelFiles,
  options: ModelOptions = {},
): Promise<FeatureModel> {
  return openFor(files, async (directory) => {
    const backbone = await loadBackbone(device, directory, options)
    const slot = new Slot(await backbone.adapt(null))
    const model: FeatureModel = {
      name: backbone.name,
      device,
      config: backbone.config,
      tokenizer: backbone.tokenizer,
      encode: (row, settings) => encodeRow(row, backbone.rules, settings?.gate),
      ...adaptedParts(backbone, slot, () => model),
      async adapter(own) {
        slot.set(await backbone.adapt(own))
      },
      async destroy() {
        await backbone.destroy()
        slot.close()
      },
    }
    try {
      if (options.adapter) await model.adapter(options.adapter)
      return model
    } catch (error) {
      await model.destroy()
      throw error
    }
  })
}

/** A directory of heads looks like a model, and is not one that can read text or tokens. */
function checkBackbone(tensors: ReadonlyMap<string, unknown>, name: string): void {
  const heads = tensors.has('regression_layer.weight') || tensors.has('score.weight')
  if (!heads || [...tensors.keys()].some((tensor) => tensor.startsWith('model.'))) return
  throw new Error(
    `${name}: has heads and no backbone, which rows of text or tokens need; join them by "pinball assemble", or give features`,
  )
}

/** Loads backbone and tokenizer of a model directory, which stays open until the backbone has been destroyed. */
export async function loadBackbone(
  device: Device,
  directory: ModelDirectory,
  options: ModelOptions = {},
): Promise<Backbone> {
  const batchTokens = options.batchTokens ?? (device.kind === 'wasm' ? 512 : 2048)
  if (!Number.isSafeInteger(batchTokens) || batchTokens < 1) {
    throw new Error(`batchTokens must be a whole number of at least 1, got ${batchTokens}`)
  }
  const { files, manifest, tensors } = directory
  const tokenizer = await loadTokenizer(files)
  checkBackbone(tensors, files.name)
  const llama = await createLlama(device, directory)
  const { vocab, maxPosition } = llama.config
  const { bos, gatePattern } = manifest
  let destroyed = false
  /** Batches of overlapping calls take turns. */
  const takeTurn = turns()
  return {
    name: files.name,
    device,
    config: llama.config,
    tokenizer,
    rules: {
      name: files.name,
      tokenizer,
      bos,
      gatePattern,
      vocab,
      maxPosition,
      padding: paddingOf(llama.config, tokenizer, gatePattern),
    },
    async adapt(own) {
      if (own === null) return { adapter: null, ...NO_ADAPTER }
      const adapter = await readAdapter(own, llama.config)
      return { adapter, ...loadAdapter(device, adapter, llama.config) }
    },
    async run(take, { gate, adapted, onProgress, signal, share = true }, consume) {
      let rows: readonly EncodedRow[] = []
      let batches: readonly Batch[] = []
      const progress = { done: 0, rows: 0, tokens: 0, totalTokens: 0 }
      for (let b = 0; b === 0 || b < batches.length; b++) {
        await takeTurn(async () => {
          if (b === 0) {
            rows = take()
            const sequences = rows.map((row) => row.input_ids)
            batches = planBatches(sequences, batchTokens, share)
            progress.rows = rows.length
            progress.totalTokens = sequences.reduce((sum, { length }) => sum + length, 0)
          }
          signal?.throwIfAborted()
          if (destroyed) throw new Error(`${files.name}: the model has been destroyed`)
          const batch = batches[b]
          if (batch) await runBatch(device, llama, adapted, rows, gate, batch, consume)
        })
        for (const i of batches[b]?.indices ?? []) {
          progress.done++
          progress.tokens += rows[i]!.input_ids.length
        }
        if (batches[b]) onProgress?.({ ...progress })
      }
    },
    fingerprint: async ({ adapter }) => adaptedFingerprint(await fingerprint(files, tensors), adapter),
    destroy: () =>
      takeTurn(async () => {
        if (destroyed) return
        destroyed = true
        llama.destroy()
      }),
  }
}

async function runBatch(
  device: Device,
  llama: Llama,
  { layers: adapter }: Adapted,
  rows: readonly EncodedRow[],
  gate: boolean,
  { indices, groups }: Batch,
  consume: (states: BatchStates) => Promise<void>,
): Promise<void> {
  const own = indices.map((i) => rows[i])
  const positions = own.map(({ input_ids: ids, gate_position: at }) => [ids.length - 1, ...(gate ? [at!] : [])])
  const sequences = own.map((row) => row.input_ids)
  const states = await llama.states(sequences, positions, { groups, checked: true, adapter })
  const { make, index, destroy } = passTensors(device)
  const gather = (label: string, which: number): Tensor => {
    const wanted = Uint32Array.from(states.rows, (of) => of[which])
    const rows = index(`${label} positions`, wanted, own.length)
    const y = make(`${label} states`, own.length, llama.config.hidden)
    device.run('gather_rows', { x: states.x, rows, y })
    return y
  }
  try {
    await consume({ indices, last: gather('last token', 0), prompt: gate ? gather('gate', 1) : null })
  } finally {
    states.destroy()
    destroy()
  }
}

/** Features of rows by a loaded backbone under an adapter; see `FeatureModel`. */
export async function extractFeatures(
  backbone: Backbone,
  adapted: Adapted,
  rows: readonly Row[],
  { gate = false, nameRow, ...options }: FeatureOptions = {},
): Promise<Features> {
  const encoded = encodeRows(rows, backbone.rules, gate)
  const width = backbone.config.hidden
  const embeddings = new Float32Array(rows.length * width)
  const promptEmbeddings = gate ? new Float32Array(rows.length * width) : undefined
  await backbone.run(
    () => encoded,
    { gate, adapted, ...options },
    async ({ indices, last, prompt }) => {
      const [states, promptStates] = await Promise.all([last.readF32(), prompt?.readF32()])
      scatter(states, indices, embeddings, nameRow)
      if (promptStates && promptEmbeddings) scatter(promptStates, indices, promptEmbeddings, nameRow)
    },
  )
  const tokens = Uint32Array.from(encoded, (row) => row.input_ids.length)
  return { embeddings, ...(promptEmbeddings && { promptEmbeddings }), tokens }
}

function scatter(
  states: Float32Array,
  indices: readonly number[],
  target: Float32Array,
  nameRow?: (row: number) => string,
): void {
  const width = states.length / indices.length
  for (const [b, row] of indices.entries()) {
    const state = states.subarray(b * width, (b + 1) * width)
    checkRow(state, row, 'features', nameRow)
    target.set(state, row * width)
  }
}

/** Throws where a row's result is not finite, which is never the row's fault. */
export function checkRow(
  values: Float32Array,
  row: number,
  what: string,
  nameRow = (row: number) => `row ${row + 1}`,
): void {
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return
  throw new Error(
    `${nameRow(row)}: ${what} must be finite, got ${values[bad]} at ${bad}; the model's weights hold NaN or overflow`,
  )
}
