// Small random causal models for tests of decoding: on a device, and as a float64 reference that computes whole sequences.
import type { Device } from '../src/device/device.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { encodeSafetensors, openModelTensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { memoryFiles } from '../src/files/source.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { type Backbone, openBackbone } from '../src/llama/forward.ts'
import type { LoraLayer } from '../src/llama/lora.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import type { LayerWeights, ProjectionName } from '../src/llama/weights.ts'
import { moduleOf, shapesOf } from '../src/llama/weights.ts'
import { random } from './random.ts'
import { readShape, llama as reference } from './reference/llama.ts'
import { storages } from './reference/storage.ts'

export interface CausalSpec {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly hidden: number
  /** F, the longest sum of the linear maps. */
  readonly intermediate: number
  readonly layers: number
  readonly vocab: number
  readonly tied: boolean
  /** How linear maps are stored on the device; q8_0 is made there from the bf16 file's numbers. */
  readonly storage: 'f32' | 'f16' | 'bf16' | 'q8_0'
  /** Rank of an adapter on all seven maps; 0: none. */
  readonly rank: number
  readonly maxPosition: number
}

export const BASE: CausalSpec = {
  heads: 8,
  kvHeads: 1,
  headDim: 8,
  hidden: 32,
  intermediate: 64,
  layers: 2,
  vocab: 97,
  tied: false,
  storage: 'bf16',
  rank: 0,
  maxPosition: 256,
}

const DTYPE = { f32: 'F32', f16: 'F16', bf16: 'BF16', q8_0: 'F32' } as const

/** A model as its directory and as numbers. */
export async function causalModel(seed: number, changes: Partial<CausalSpec> = {}) {
  const spec = { ...BASE, ...changes }
  const { heads, kvHeads, headDim, hidden, intermediate, layers, vocab, tied, storage, rank } = spec
  const json = {
    model_type: 'llama',
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: spec.maxPosition,
    tie_word_embeddings: tied,
  }
  const config = parseLlamaConfig(json, 'test')
  const numbers = random(seed)
  const tensors: TensorData[] = []
  const put = (name: string, shape: number[], values: Float32Array<ArrayBuffer>, dtype = storage) => {
    // The numbers of a q8_0 matrix go through the file as F32, rounded to q8_0 already.
    const parts = storages[dtype].encode(values)
    const data = dtype === 'q8_0' ? Float32Array.from(storages.q8_0.decode(parts)) : parts['']!
    tensors.push({ name: `${name}.weight`, dtype: DTYPE[dtype], shape, data: data as Float32Array })
  }
  const matrix = (name: string, [O, I]: number[], dtype = storage) =>
    put(name, [O, I], numbers.normal(O * I, { deviation: 1 / Math.sqrt(I) }), dtype)
  put('model.embed_tokens', [vocab, hidden], numbers.normal(vocab * hidden), storage === 'q8_0' ? 'bf16' : storage)
  if (!tied) matrix('lm_head', [vocab, hidden], storage === 'q8_0' ? 'bf16' : storage)
  put('model.norm', [hidden], numbers.uniform(hidden, 0.5, 1.5), 'f32')
  const adapter: Record<string, { a: Float32Array<ArrayBuffer>; b: Float32Array<ArrayBuffer> }>[] = []
  for (let layer = 0; layer < layers; layer++) {
    const own: (typeof adapter)[number] = {}
    for (const [name, shape] of Object.entries(shapesOf(config))) {
      const module = `model.layers.${layer}.${moduleOf(name as keyof LayerWeights)}`
      if (shape.length === 1) put(module, shape, numbers.uniform(shape[0], 0.5, 1.5), 'f32')
      else {
        matrix(module, shape)
        if (rank > 0)
          own[name] = {
            a: numbers.normal(rank * shape[1], { deviation: 1 / Math.sqrt(shape[1]) }),
            // Transposed, as a device has it.
            b: numbers.normal(rank * shape[0], { deviation: 0.5 / Math.sqrt(rank) }),
          }
      }
    }
    adapter.push(own)
  }
  const bytes = new Uint8Array(await new Blob(encodeSafetensors(tensors) as BlobPart[]).arrayBuffer())
  const files = memoryFiles('causal', {
    'config.json': new TextEncoder().encode(JSON.stringify(json)),
    'model.safetensors': bytes,
  })

  const weights = new Map<string, Float32Array>()
  for (const [name, info] of await openModelTensors(files)) weights.set(name, await readTensorF32(info))
  const head = weights.get('lm_head.weight') ?? weights.get('model.embed_tokens.weight')!
  for (const [layer, own] of adapter.entries())
    for (const [name, { a, b }] of Object.entries(own)) {
      const key = `model.layers.${layer}.${moduleOf(name as ProjectionName)}.weight`
      weights.set(key, merged(weights.get(key)!, a, b, rank) as unknown as Float32Array)
    }

  return {
    spec,
    config,
    files,
    /** Logits [T, V] of a whole sequence in float64. */
    logits(tokens: ArrayLike<number>): Float64Array {
      const states = reference(readShape(json), weights, tokens)
      const T = tokens.length
      const all = new Float64Array(T * vocab)
      for (let t = 0; t < T; t++)
        for (let v = 0; v < vocab; v++)
          for (let d = 0; d < hidden; d++) all[t * vocab + v] += states[t * hidden + d] * head[v * hidden + d]
      return all
    },
    /** Puts the model on a device. */
    async open(device: Device, options: { stream?: boolean } = {}) {
      const opened = { name: 'causal', config: json as unknown, tensors: await openModelTensors(files) }
      const backbone = await openBackbone(device, opened, options)
      const output = await openOutputLayer(device, config, outputInfo(opened.tensors, config)!)
      const owned: Tensor[] = []
      const make = (shape: number[], data: Float32Array<ArrayBuffer>): Tensor => {
        const tensor = device.tensor(shape, { data })
        owned.push(tensor)
        return tensor
      }
      const branches: LoraLayer[] =
        rank === 0
          ? []
          : adapter.map((own) =>
              Object.fromEntries(
                Object.entries(own).map(([name, { a, b }]) => {
                  const [O, I] = shapesOf(config)[name as ProjectionName]
                  return [name, { a: make([rank, I], a), b: make([rank, O], b), scaling: SCALING }]
                }),
              ),
            )
      const model = storage === 'q8_0' ? await quantised(device, backbone, owned) : backbone
      return {
        device,
        model,
        output,
        adapter: branches,
        destroy() {
          backbone.destroy()
          output.destroy()
          for (const tensor of owned.splice(0)) tensor.destroy()
        },
      }
    },
  }
}

export const SCALING = 0.5

/** W + scaling B A, with B transposed [r, O]. */
function merged(weight: Float32Array, a: Float32Array, b: Float32Array, rank: number): Float64Array {
  const I = a.length / rank
  const O = b.length / rank
  const sum = Float64Array.from(weight)
  for (let r = 0; r < rank; r++)
    for (let o = 0; o < O; o++) for (let i = 0; i < I; i++) sum[o * I + i] += SCALING * b[r * O + o] * a[r * I + i]
  return sum
}

/** The model with its linear maps as q8_0: their numbers are those of the file, which were rounded to it. */
async function quantised(device: Device, backbone: Backbone, owned: Tensor[]): Promise<Backbone> {
  const layers: LayerWeights[] = []
  for (let layer = 0; layer < backbone.config.layers; layer++) {
    const own: Record<string, unknown> = {}
    for (const [name, tensor] of Object.entries(await backbone.layers(layer))) {
      if (tensor.shape.length === 1) own[name] = tensor
      else {
        const { '': data, _scale: scale } = storages.q8_0.encode((await tensor.readF32()) as Float32Array<ArrayBuffer>)
        const [O, I] = tensor.shape as [number, number]
        const values = device.tensor([O, I], { dtype: 'i8', data: data! })
        const scales = device.tensor([O, I / 32], { dtype: 'f16', data: scale! })
        owned.push(values, scales)
        own[name] = { storage: 'q8_0', values, scales }
      }
    }
    layers.push(own as unknown as LayerWeights)
  }
  return { ...backbone, layers: async (layer) => layers[layer]! }
}
