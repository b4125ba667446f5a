// The Llama forward pass over packed sequences: token ids to the hidden states after the final norm.
// Source: the Llama 3 architecture as in Hugging Face's modeling_llama (RMSNorm, rotate-half RoPE, GQA, SwiGLU).

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { readAdapter } from './adapter_files.ts'
import { type BlockRows, block, chooseBuffers, makeBuffers, projection } from './block.ts'
import { type LlamaConfig, parseLlamaConfig } from './config.ts'
import { type Embedding, openEmbedding } from './embedding.ts'
import { type LoraLayer, makeBranches } from './lora.ts'
import { type DeviceAdapter, loadAdapter, NO_ADAPTER } from './lora_adapter.ts'
import { checkGroups, checkSequences, type Packed, pack, planBlocks } from './pack.ts'
import { passTensors } from './pass_tensors.ts'
import type { PrefixGroup } from './prefix.ts'
import { attentionFactor, inverseFrequencies } from './rope.ts'
import { Slot } from './slot.ts'
import { findTensors, type LayerWeights, type LlamaTensors, loadLayer, loadVector } from './weights.ts'

/** Layers above this size in all are read from the file at every pass: 32-bit WebAssembly memory ends at 4 GiB. */
const WASM_RESIDENT_BYTES = 3 * 2 ** 30

/** Hidden states of a batch. */
export interface HiddenStates {
  /** [N, D] f32 after the final norm; the sequences follow each other without padding. */
  readonly x: Tensor
  /** Row of each sequence's first token. */
  readonly first: Uint32Array
  destroy(): void
}

/** Hidden states of chosen tokens. */
export interface ChosenStates {
  /** [R, D] f32 after the final norm; a token that several sequences share is one row. */
  readonly x: Tensor
  /** Of each sequence, the row of x of each of its positions. */
  readonly rows: readonly Uint32Array[]
  destroy(): void
}

export interface StatesOptions {
  /** Which sequences share a beginning, as `groupPrefixes` finds them; by default none. Each sequence is in one group. */
  readonly groups?: readonly PrefixGroup[]
  /** Branches of an adapter of whoever calls, in the place of the model's own. */
  readonly adapter?: readonly LoraLayer[]
  /** Sequences and groups are known to be right: tokens below `config.vocab`, at most `config.maxPosition` of them. */
  readonly checked?: boolean
}

/** A model directory that has been opened; whoever opened it closes it, after `destroy`. */
export interface OpenedModel {
  readonly name: string
  /** The object of config.json. */
  readonly config: unknown
  readonly tensors: ReadonlyMap<string, TensorInfo>
}

export interface LoadOptions {
  /** Read the layers from the file at every pass instead of keeping them; decided by the device's memory if not given. */
  readonly stream?: boolean
  /** An adapter that the model computes under from the beginning. */
  readonly adapter?: ModelFiles | null
}

export interface Llama {
  readonly config: LlamaConfig
  /**
   * Runs the model on sequences of token ids (each at least one token, at most `config.maxPosition`) and gives the states of all
   * tokens. Sequences do not see each other: the result of one does not depend on its company, to the bit.
   */
  hidden(sequences: readonly Uint32Array[]): Promise<HiddenStates>
  /**
   * The states at some positions of each sequence, counted from 0: the same as `hidden` gives there, for less work. The last
   * layer computes these rows only, and beginnings that a group shares are computed once. Throws where there are none.
   */
  states(
    sequences: readonly Uint32Array[],
    positions: readonly ArrayLike<number>[],
    options?: StatesOptions,
  ): Promise<ChosenStates>
  /**
   * Puts an adapter over the model, in the place of the one that was there; null: none. The base stays as it is loaded. Calls that
   * have begun go on with what they began with. Throws as `readAdapter` does, and then nothing has changed.
   */
  adapter(files: ModelFiles | null): Promise<void>
  destroy(): void
}

/** Loads config.json and the weights of a model directory; throws on whatever is missing, damaged or not a Llama. */
export async function loadLlama(device: Device, files: ModelFiles, options: LoadOptions = {}): Promise<Llama> {
  const { name } = files
  const text = await readText(files, 'config.json')
  if (text === null) throw new Error(`${name}: config.json is missing; give the folder of a Llama checkpoint`)
  const config = parseJsonObject(text, `${name}/config.json`)
  const tensors = await openModelTensors(files)
  try {
    const llama = await createLlama(device, { name, config, tensors }, options)
    return {
      ...llama,
      destroy() {
        llama.destroy()
        void closeTensors(tensors)
      },
    }
  } catch (error) {
    await closeTensors(tensors)
    throw error
  }
}

/** As `loadLlama`, from a directory that is open. */
export async function createLlama(device: Device, opened: OpenedModel, options: LoadOptions = {}): Promise<Llama> {
  const model = await openBackbone(device, opened, options)
  const { config } = model
  const slot = new Slot<DeviceAdapter>(NO_ADAPTER)
  const llama: Llama = {
    config,
    async hidden(sequences) {
      checkSequences(config, sequences)
      const packed = pack(sequences, alone(sequences))
      const x = await slot.use(({ layers }) => forward(device, model, packed, null, layers))
      const first = Uint32Array.from(sequences, (_, s) => packed.rowOf(s, 0))
      return { x, first, destroy: () => x.destroy() }
    },
    async states(sequences, positions, { groups = alone(sequences), checked = false, adapter } = {}) {
      if (!checked) {
        checkSequences(config, sequences)
        checkGroups(sequences, groups)
      }
      const packed = pack(sequences, groups)
      const rows = sequences.map(({ length }, s) =>
        Uint32Array.from(positions[s] ?? [], (t) => {
          if (Number.isInteger(t) && t >= 0 && t < length) return packed.rowOf(s, t)
          throw new RangeError(`llama: sequence ${s} has ${length} tokens, none at position ${t}`)
        }),
      )
      const chosen = Uint32Array.from(new Set(rows.flatMap((own) => [...own]))).sort()
      if (chosen.length === 0) throw new RangeError('llama: no positions were given')
      const place = new Map(Array.from(chosen, (row, i) => [row, i]))
      const x = await slot.use(({ layers }) => forward(device, model, packed, chosen, adapter ?? layers))
      return { x, rows: rows.map((own) => own.map((row) => place.get(row)!)), destroy: () => x.destroy() }
    },
    async adapter(files) {
      slot.set(files ? loadAdapter(device, await readAdapter(files, config), config) : NO_ADAPTER)
    },
    destroy() {
      slot.close()
      model.destroy()
    },
  }
  try {
    if (options.adapter) await llama.adapter(options.adapter)
    return llama
  } catch (error) {
    llama.destroy()
    throw error
  }
}

/** A backbone on a device: what a forward pass needs of it, whoever makes that pass. */
export interface Backbone extends Parts {
  readonly config: LlamaConfig
  /** Whether the weights stay on the device; else each layer is read when it is asked for, in the place of another. */
  readonly resident: boolean
  readonly tensors: LlamaTensors
  destroy(): void
}

/** Puts the weights of a directory that is open on a device. */
export async function openBackbone(device: Device, opened: OpenedModel, options: LoadOptions = {}): Promise<Backbone> {
  const config = parseLlamaConfig(opened.config, `${opened.name}/config.json`)
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  const destroy = (): void => {
    for (const thing of owned.splice(0)) thing.destroy()
  }
  try {
    const tensors = findTensors(opened.tensors, config, opened.name)
    const stream = options.stream ?? (device.kind === 'wasm' && tensors.layerBytes > WASM_RESIDENT_BYTES)
    const embedding = own(await openEmbedding(device, tensors.embedding))
    const norm = own(await loadVector(device, tensors.norm))
    const layers = await openLayers(device, tensors, stream, own)
    return { config, resident: !stream, tensors, embedding, norm, layers, destroy }
  } catch (error) {
    destroy()
    throw error
  }
}

/** Every sequence by itself. */
export const alone = (sequences: readonly unknown[]): PrefixGroup[] =>
  sequences.map((_, s) => ({ members: [s], common: 0 }))

/** Gives the weights of layer `l`; asked for in order, l + 1 right after layer l has been recorded. */
export type Layers = (layer: number) => Promise<LayerWeights>

async function openLayers(
  device: Device,
  { layers }: LlamaTensors,
  stream: boolean,
  own: (thing: { destroy(): void }) => unknown,
): Promise<Layers> {
  const release = (weights: LayerWeights | undefined): void => {
    for (const tensor of Object.values(weights ?? {})) tensor.destroy()
  }
  if (!stream) {
    const loaded: LayerWeights[] = []
    own({ destroy: () => loaded.forEach(release) })
    for (const infos of layers) loaded.push(await loadLayer(device, infos))
    return async (layer) => loaded[layer]!
  }
  // Two sets of tensors: one layer computes while the next is read.
  const sets: (LayerWeights | undefined)[] = [undefined, undefined]
  own({ destroy: () => sets.forEach(release) })
  return async (layer) => {
    const weights = await loadLayer(device, layers[layer]!, sets[layer % 2])
    sets[layer % 2] = weights
    // The layer before has been computing meanwhile; letting it finish bounds what waits to be written.
    await device.done()
    return weights
  }
}

interface Parts {
  readonly embedding: Embedding
  readonly norm: Tensor
  readonly layers: Layers
}

/** RoPE's tables [P, C / 2] for positions 0 to P - 1, made in f64: a software GPU's own sine is good to 2e-4 only. */
export function ropeTables(config: LlamaConfig, positions: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = inverseFrequencies(config)
  const factor = attentionFactor(config)
  const half = frequencies.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let p = 0; p < positions; p++) {
    for (let e = 0; e < half; e++) {
      const angle = p * frequencies[e]!
      cos[p * half + e] = factor * Math.cos(angle)
      sin[p * half + e] = factor * Math.sin(angle)
    }
  }
  return { cos, sin }
}

/** Where a pass leaves keys and values: a cache [M, 2 G C] for each layer, and which of its rows are those of the pass [N]. */
export interface Kept {
  readonly layers: readonly Tensor[]
  readonly rows: Uint32Array<ArrayBuffer>
}

/**
 * Runs sequences, which must be right, and gives the states [S, D] of their last tokens. The rows of the cache are those of the
 * sequences' tokens, one sequence after the other.
 */
export function prefill(
  device: Device,
  model: Backbone,
  sequences: readonly Uint32Array[],
  kept: Kept,
  adapter: readonly LoraLayer[],
): Promise<Tensor> {
  const packed = pack(sequences, alone(sequences))
  const last = Uint32Array.from(sequences, ({ length }, s) => packed.rowOf(s, length - 1))
  return forward(device, model, packed, last, adapter, kept)
}

/** States [Q, D] after the final norm of the rows `chosen`, in ascending order, or of all. */
async function forward(
  device: Device,
  { config, embedding, norm, layers }: Backbone,
  packed: Packed,
  chosen: Uint32Array<ArrayBuffer> | null,
  adapter: readonly LoraLayer[],
  kept: Kept | null = null,
): Promise<Tensor> {
  const { rows: N, tokens, position, longest } = packed
  const Q = chosen?.length ?? N
  const { make, index, destroy } = passTensors(device)
  const plan = (rows: Uint32Array): Tensor => {
    const blocks = planBlocks(packed, rows, config.heads)
    return index('plan', blocks, blocks.length / 6, 6)
  }
  const out = device.tensor([Q, config.hidden], { label: 'hidden states' })
  try {
    const tables = ropeTables(config, longest)
    const cos = make('cos', longest, config.headDim / 2)
    const sin = make('sin', longest, config.headDim / 2)
    cos.write(tables.cos)
    sin.write(tables.sin)
    const where = index('position', position, N)
    const all: BlockRows = {
      cos,
      sin,
      position: where,
      chosenPosition: where,
      chosen: null,
      plan: plan(position.map((_, row) => row)),
    }
    const buffers = makeBuffers(config, N, make)
    const branches = makeBranches(adapter, config, N, make, { backward: false, dropout: null })
    const project = (layer: number, own: LayerWeights) => projection(device, own, branches[layer])
    const places = kept && index('rows of the cache', kept.rows, N)
    const cacheOf = (layer: number) =>
      kept && places ? { cache: { kv: kept.layers[layer]!, rows: places, decode: false } } : {}
    await embedding.rows(tokens, buffers.x)
    const last = config.layers - 1
    let weights = await layers(0)
    for (let layer = 0; layer < last; layer++) {
      block(device, config, weights, project(layer, weights), { ...all, ...cacheOf(layer) }, buffers)
      weights = await layers(layer + 1)
    }
    // Of the last layer only the rows that are asked for go on behind keys and values.
    const few = chosen !== null && Q < N
    const ends = few ? chooseBuffers(buffers, Q, make) : buffers
    const rows = few
      ? {
          ...all,
          chosenPosition: index(
            'chosen position',
            chosen.map((row) => position[row]!),
            Q,
          ),
          chosen: index('chosen', chosen, Q),
          plan: plan(chosen),
        }
      : all
    block(device, config, weights, project(last, weights), { ...rows, ...cacheOf(last) }, ends)
    device.run('rms_norm', { x: ends.y, weight: norm, y: out, rstd: ends.middleRstd }, { eps: config.rmsNormEps })
    return out
  } catch (error) {
    out.destroy()
    throw error
  } finally {
    destroy()
  }
}
