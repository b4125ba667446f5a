// Random QRM model directories in memory, and what the float64 reference makes of a row.
import {
  encodeSafetensors,
  openModelTensors,
  readTensorF32,
  type TensorData,
  type TensorInfo,
} from '../src/files/safetensors.ts'
import { type ModelFiles, readText } from '../src/files/source.ts'
import { random } from './random.ts'
import { llama, readShape } from './reference/llama.ts'
import * as reference from './reference/reward.ts'

export interface QrmSpec {
  readonly hidden: number
  readonly layers: number
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  readonly tied: boolean
  readonly objectives: number
  readonly quantiles: number
  readonly depth: number
  readonly width: number
  readonly transform: boolean
  readonly bias: boolean
  readonly dtype: 'F32' | 'F16' | 'BF16'
  readonly temperature: number
  readonly logitScale: number
  readonly manifest: Record<string, unknown>
}

export const VOCAB = 60
export const PATTERN = [57, 55, 1, 56, 2]

const BASE: QrmSpec = {
  hidden: 24,
  layers: 1,
  heads: 4,
  kvHeads: 2,
  headDim: 6,
  tied: false,
  objectives: 3,
  quantiles: 5,
  depth: 3,
  width: 16,
  transform: true,
  bias: false,
  dtype: 'F32',
  temperature: 10,
  logitScale: 1,
  manifest: {},
}

export type Files = Record<string, Uint8Array>

export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

/** Joins the chunks of `encodeSafetensors`. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((bytes, chunk) => bytes + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

/** The config.json of a random model. */
export function qrmConfig(changes: Partial<QrmSpec> = {}): Record<string, unknown> {
  const spec = { ...BASE, ...changes }
  return {
    architectures: ['LlamaForRewardModelWithGating'],
    model_type: 'llama',
    vocab_size: VOCAB,
    hidden_size: spec.hidden,
    intermediate_size: 40,
    num_hidden_layers: spec.layers,
    num_attention_heads: spec.heads,
    num_key_value_heads: spec.kvHeads,
    head_dim: spec.headDim,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 256,
    tie_word_embeddings: spec.tied,
    num_objectives: spec.objectives,
    num_quantiles: spec.quantiles,
    gating_temperature: spec.temperature,
    gating_hidden_dim: spec.width,
    gating_n_hidden: spec.depth,
  }
}

/** The tensors of a random model, by name. */
export function qrmTensors(seed: number, changes: Partial<QrmSpec> = {}): Map<string, TensorData> {
  const spec = { ...BASE, ...changes }
  const { hidden, heads, kvHeads, headDim, width, objectives, quantiles, depth, dtype } = spec
  const source = random(seed)
  const tensors = new Map<string, TensorData>()
  const put = (name: string, shape: number[], values: Float32Array<ArrayBuffer>) => {
    tensors.set(name, { name, dtype, shape, data: stored(values, dtype) })
  }
  const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1)
  const matrix = (name: string, outputs: number, inputs: number, gain = 1) => {
    put(name, [outputs, inputs], source.normal(outputs * inputs, { deviation: gain / Math.sqrt(inputs) }))
  }
  const between = (name: string, shape: number[], low: number, high: number) => {
    put(name, shape, source.uniform(count(shape), low, high))
  }
  put('model.embed_tokens.weight', [VOCAB, hidden], source.normal(VOCAB * hidden))
  for (let layer = 0; layer < spec.layers; layer++) {
    const at = `model.layers.${layer}`
    between(`${at}.input_layernorm.weight`, [hidden], 0.5, 1.5)
    matrix(`${at}.self_attn.q_proj.weight`, heads * headDim, hidden)
    matrix(`${at}.self_attn.k_proj.weight`, kvHeads * headDim, hidden)
    matrix(`${at}.self_attn.v_proj.weight`, kvHeads * headDim, hidden)
    matrix(`${at}.self_attn.o_proj.weight`, hidden, heads * headDim)
    between(`${at}.post_attention_layernorm.weight`, [hidden], 0.5, 1.5)
    matrix(`${at}.mlp.gate_proj.weight`, 40, hidden)
    matrix(`${at}.mlp.up_proj.weight`, 40, hidden)
    matrix(`${at}.mlp.down_proj.weight`, hidden, 40)
  }
  between('model.norm.weight', [hidden], 0.5, 1.5)
  if (!spec.tied) matrix('lm_head.weight', VOCAB, hidden)
  matrix('regression_layer.weight', objectives * quantiles, hidden, 0.3)
  if (spec.bias) between('regression_layer.bias', [objectives * quantiles], -1, 1)
  if (spec.transform) between('reward_transform_matrix', [objectives, objectives], -0.5, 1)
  put('gating.logit_scale', [1], Float32Array.of(spec.logitScale))
  for (let i = 0; i < depth; i++) {
    matrix(`gating.layers.${3 * i}.weight`, width, i === 0 ? hidden : width, 1.4)
    const norm = `gating.layers.${3 * i + 2}`
    between(`${norm}.weight`, [width], 0.5, 1.5)
    between(`${norm}.bias`, [width], -0.5, 0.5)
    between(`${norm}.running_mean`, [width], 0, 1)
    between(`${norm}.running_var`, [width], 0.1, 2)
    const counter = `${norm}.num_batches_tracked`
    tensors.set(counter, { name: counter, dtype: 'I64', shape: [], data: BigInt64Array.of(7n) })
  }
  matrix(`gating.layers.${3 * depth}.weight`, objectives, depth === 0 ? hidden : width, spec.temperature)
  between(`gating.layers.${3 * depth}.bias`, [objectives], -1, 1)
  return tensors
}

/** A random model directory: config.json, pinball.json and model.safetensors. */
export function qrmFiles(seed: number, changes: Partial<QrmSpec> = {}): Files {
  return {
    'config.json': json(qrmConfig(changes)),
    'pinball.json': json({ gate_pattern: PATTERN, ...changes.manifest }),
    'model.safetensors': joined(encodeSafetensors([...qrmTensors(seed, changes).values()])),
  }
}

/** A row of `length` random tokens below the special ones, with the gate's pattern at `position` where that is not null. */
export function randomTokens(seed: number, length: number, position: number | null): number[] {
  const tokens = Array.from(random(seed).integers(length, 0, 50))
  if (position !== null) tokens.splice(position, PATTERN.length, ...PATTERN)
  return tokens.slice(0, length)
}

/** Rounds float32 values to a dtype: bfloat16 towards zero, binary16 to nearest (values below 2^-14 become zero). */
function stored(values: Float32Array<ArrayBuffer>, dtype: QrmSpec['dtype']): Float32Array | Uint16Array {
  if (dtype === 'F32') return values
  if (dtype === 'BF16') return Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16)
  return Uint16Array.from(values, (value) => {
    const size = Math.abs(value)
    if (size < 2 ** -14) return 0
    const exponent = Math.floor(Math.log2(size))
    const bits = (exponent + 14) * 1024 + Math.round((size / 2 ** exponent) * 1024)
    return value < 0 ? bits | 0x8000 : bits
  })
}

/** A tokenizer of single characters with the special tokens and the template of Llama 3. */
export function characterTokenizer(): Files {
  const characters = ' abcdefghijklmnopqrstuvwxyz\n.?'
  const special = ['<|begin_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>']
  const vocab = Object.fromEntries([...characters].map((character, id) => [character, id]))
  const header = "'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'"
  return {
    'tokenizer.json': json({
      version: '1.0',
      added_tokens: special.map((content, i) => ({
        id: characters.length + i,
        content,
        special: true,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      })),
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      model: { type: 'BPE', vocab, merges: [], unk_token: '?', fuse_unk: false, byte_fallback: false },
    }),
    'tokenizer_config.json': json({
      bos_token: special[0],
      eos_token: special[3],
      chat_template: `{{ bos_token }}{% for message in messages %}{{ ${header} + message.content + '<|eot_id|>' }}{% endfor %}`,
    }),
  }
}

/** What the reference gives for one row. */
export interface Expected {
  readonly hidden: Float64Array
  readonly promptHidden: Float64Array
  readonly attributes: number[][]
  readonly gate: number[]
  readonly quantiles: number[]
  readonly score: number
}

/** The reference of a model directory: a function of a row's tokens and its gate's position. */
export async function openRewardReference(
  files: ModelFiles,
): Promise<(tokens: readonly number[], position: number) => Expected> {
  const config = JSON.parse((await readText(files, 'config.json'))!) as Record<string, number>
  const manifest = JSON.parse((await readText(files, 'pinball.json')) ?? '{}') as { mixture?: string }
  const shape = readShape(config)
  const weights = await widen(await openModelTensors(files))
  const K = config.num_quantiles
  const M = config.num_objectives
  const depth = config.gating_n_hidden
  const gate: reference.ReferenceGate = {
    hidden: Array.from({ length: depth }, (_, i) => ({
      weight: weights.get(`gating.layers.${3 * i}.weight`)!,
      scale: weights.get(`gating.layers.${3 * i + 2}.weight`)!,
      shift: weights.get(`gating.layers.${3 * i + 2}.bias`)!,
      mean: weights.get(`gating.layers.${3 * i + 2}.running_mean`)!,
      variance: weights.get(`gating.layers.${3 * i + 2}.running_var`)!,
    })),
    weight: weights.get(`gating.layers.${3 * depth}.weight`)!,
    bias: weights.get(`gating.layers.${3 * depth}.bias`)!,
    temperature: config.gating_temperature ?? 10,
    logitScale: weights.get('gating.logit_scale')![0],
  }
  return (tokens, position) => {
    const states = llama(shape, weights, tokens)
    const D = config.hidden_size
    const hidden = states.slice((tokens.length - 1) * D)
    const promptHidden = states.slice(position * D, (position + 1) * D)
    const flat = reference.linear(hidden, weights.get('regression_layer.weight')!, weights.get('regression_layer.bias'))
    const raw = Array.from({ length: M }, (_, j) => flat.slice(j * K, (j + 1) * K))
    const transform = weights.get('reward_transform_matrix')
    const attributes = transform ? reference.debias(raw, transform) : raw
    const g = reference.gate(promptHidden, gate)
    return {
      hidden,
      promptHidden,
      attributes,
      gate: g,
      quantiles: reference.mixture(attributes, g, manifest.mixture === 'mean'),
      score: g.reduce((sum, weight, j) => sum + weight * reference.average(attributes[j]), 0),
    }
  }
}

async function widen(tensors: Map<string, TensorInfo>): Promise<Map<string, Float32Array>> {
  const wide = new Map<string, Float32Array>()
  for (const [name, info] of tensors) {
    if (info.dtype !== 'I64') wide.set(name, await readTensorF32(info))
  }
  return wide
}
