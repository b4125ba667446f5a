// The Llama forward pass over packed sequences: token ids to the hidden states after the final norm.
// Source: the Llama 3 architecture as in Hugging Face's modeling_llama (RMSNorm, rotate-half RoPE, GQA, SwiGLU).
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { inverseFrequencies, type LlamaConfig, parseLlamaConfig } from './config.ts'
import { type Embedding, openEmbedding } from './embedding.ts'
import { linear } from './linear.ts'
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

export interface LoadOptions {
  /** Tensors of the checkpoint if they have been opened already; whoever opened them closes them, after `destroy`. */
  readonly tensors?: ReadonlyMap<string, TensorInfo>
  /** Read the layers from the file at every pass instead of keeping them; decided by the device's memory if not given. */
  readonly stream?: boolean
}

export interface Llama {
  readonly config: LlamaConfig
  /**
   * Runs the model on sequences of token ids (each at least one token, at most `config.maxPosition`). Sequences do not see each
   * other: the result of one does not depend on its company.
   */
  hidden(sequences: readonly Uint32Array[]): Promise<HiddenStates>
  destroy(): void
}

/** Loads config.json and the weights of a model directory; throws on whatever is missing, damaged or not a Llama. */
export async function loadLlama(device: Device, files: ModelFiles, options: LoadOptions = {}): Promise<Llama> {
  const text = await readText(files, 'config.json')
  if (text === null) throw new Error(`${files.name}: config.json is missing; give the folder of a Llama checkpoint`)
  const config = parseLlamaConfig(parseJsonObject(text, `${files.name}/config.json`), `${files.name}/config.json`)
  const opened = options.tensors ?? (await openModelTensors(files))
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  const destroy = (): void => {
    for (const thing of owned.splice(0)) thing.destroy()
  }
  if (!options.tensors) own({ destroy: () => void closeTensors(opened) })
  try {
    const tensors = findTensors(opened, config, files.name)
    const stream = options.stream ?? (device.kind === 'wasm' && tensors.layerBytes > WASM_RESIDENT_BYTES)
    const embedding = own(await openEmbedding(device, tensors.embedding))
    const norm = own(await loadVector(device, tensors.norm))
    const layers = await openLayers(device, tensors, stream, own)
    return {
      config,
      hidden: (sequences) => hidden(device, config, { embedding, norm, layers }, sequences),
      destroy,
    }
  } catch (error) {
    destroy()
    throw error
  }
}

/** Gives the weights of layer `l`; asked for in order, l + 1 right after layer l has been recorded. */
type Layers = (layer: number) => Promise<LayerWeights>

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

/** Packs the sequences and checks them; throws with the sequence's number. */
function pack(config: LlamaConfig, sequences: readonly Uint32Array[]) {
  const rows = sequences.reduce((sum, sequence) => sum + sequence.length, 0)
  const tokens = new Uint32Array(rows)
  const position = new Uint32Array(rows)
  const start = new Uint32Array(rows)
  const first = new Uint32Array(sequences.length)
  let row = 0
  let longest = 0
  sequences.forEach((sequence, s) => {
    if (sequence.length === 0) throw new RangeError(`llama: sequence ${s} has no tokens`)
    if (sequence.length > config.maxPosition)
      throw new RangeError(
        `llama: sequence ${s} has ${sequence.length} tokens, the model takes ${config.maxPosition}; shorten it`,
      )
    first[s] = row
    longest = Math.max(longest, sequence.length)
    sequence.forEach((token, t) => {
      if (token >= config.vocab)
        throw new RangeError(
          `llama: sequence ${s} has token ${token} at ${t}, the vocabulary ends at ${config.vocab - 1}`,
        )
      tokens[row] = token
      position[row] = t
      start[row] = first[s]!
      row++
    })
  })
  return { rows, tokens, position, start, first, longest }
}

/** RoPE's tables [P, C / 2] for positions 0 to P - 1, made in f64: a software GPU's own sine is good to 2e-4 only. */
function ropeTables(config: LlamaConfig, positions: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = inverseFrequencies(config)
  const half = frequencies.length
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let p = 0; p < positions; p++) {
    for (let e = 0; e < half; e++) {
      const angle = p * frequencies[e]!
      cos[p * half + e] = Math.cos(angle)
      sin[p * half + e] = Math.sin(angle)
    }
  }
  return { cos, sin }
}

async function hidden(
  device: Device,
  config: LlamaConfig,
  { embedding, norm, layers }: Parts,
  sequences: readonly Uint32Array[],
): Promise<HiddenStates> {
  const { hidden: D, heads: H, kvHeads: G, headDim: C, intermediate: F, rmsNormEps: eps } = config
  const { rows: N, tokens, position, start, first, longest } = pack(config, sequences)
  if (N === 0) throw new RangeError('llama: no sequences were given')
  const arena: Tensor[] = []
  const make = (label: string, ...shape: number[]): Tensor => {
    const tensor = device.tensor(shape, { label })
    arena.push(tensor)
    return tensor
  }
  const index = (label: string, data: Uint32Array): Tensor => {
    const tensor = device.tensor([N], { label, dtype: 'u32', data })
    arena.push(tensor)
    return tensor
  }
  const out = device.tensor([N, D], { label: 'hidden states' })
  try {
    const E = C / 2
    const tables = ropeTables(config, longest)
    const cos = make('cos', longest, E)
    const sin = make('sin', longest, E)
    cos.write(tables.cos)
    sin.write(tables.sin)
    const [where, from] = [index('position', position), index('first', start)]

    const x = make('x', N, D)
    const h = make('normed', N, D)
    const rstd = make('rstd', N)
    const q = make('q', N, H * C)
    const k = make('k', N, G * C)
    const v = make('v', N, G * C)
    const mixed = make('mixed', N, H * C)
    const lse = make('lse', N, H)
    const delta = make('delta', N, D)
    const gate = make('gate', N, F)
    const up = make('up', N, F)
    const act = make('act', N, F)

    await embedding.rows(tokens, x)
    let weights = await layers(0)
    for (let layer = 0; layer < config.layers; layer++) {
      device.run('rms_norm', { x, weight: weights.input_layernorm, y: h, rstd }, { eps })
      linear(device, h, weights.q_proj, q)
      linear(device, h, weights.k_proj, k)
      linear(device, h, weights.v_proj, v)
      device.run('rope', { x: q.view([N, H, 2, E]), cos, sin, position: where })
      device.run('rope', { x: k.view([N, G, 2, E]), cos, sin, position: where })
      device.run(
        'attention',
        {
          q: q.view([N, H, C]),
          k: k.view([N, G, C]),
          v: v.view([N, G, C]),
          first: from,
          y: mixed.view([N, H, C]),
          lse,
        },
        { scale: 1 / Math.sqrt(C) },
      )
      linear(device, mixed, weights.o_proj, delta)
      device.run('add', { x, y: delta })

      device.run('rms_norm', { x, weight: weights.post_attention_layernorm, y: h, rstd }, { eps })
      linear(device, h, weights.gate_proj, gate)
      linear(device, h, weights.up_proj, up)
      device.run('swiglu', { gate, up, y: act })
      linear(device, act, weights.down_proj, delta)
      device.run('add', { x, y: delta })
      if (layer + 1 < config.layers) weights = await layers(layer + 1)
    }
    device.run('rms_norm', { x, weight: norm, y: out, rstd }, { eps })
    return { x: out, first, destroy: () => out.destroy() }
  } catch (error) {
    out.destroy()
    throw error
  } finally {
    for (const tensor of arena) tensor.destroy()
  }
}
