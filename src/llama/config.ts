// Reads config.json of a Llama model into sizes, and makes the frequencies of its rotary embedding.
// Sources: LlamaConfig and modeling_rope_utils of Hugging Face transformers (both the `rope_scaling` spelling and the newer
// `rope_parameters`); Su et al. 2021 for rotary embeddings; the Llama 3.1 release for the llama3 scaling.
import { isObject, show } from '../files/json.ts'

// The shape letters of headers, docstrings and code: B batch, T tokens of a sequence, N rows where B and T need not be told
// apart, D hidden size, H query heads, G key/value heads, C channels per head, F feed-forward size, V vocabulary, L layers,
// O outputs of a linear map, P positions of a table, M objectives (reward attributes), K quantile levels.

/** The `llama3` scaling of low rotary frequencies. */
export interface Llama3Scaling {
  readonly factor: number
  readonly lowFreqFactor: number
  readonly highFreqFactor: number
  readonly originalMaxPosition: number
}

export interface LlamaConfig {
  /** V */
  readonly vocab: number
  /** D */
  readonly hidden: number
  /** L */
  readonly layers: number
  /** H, a multiple of kvHeads */
  readonly heads: number
  /** G */
  readonly kvHeads: number
  /** C, even; H * C need not be D */
  readonly headDim: number
  /** F */
  readonly intermediate: number
  readonly rmsNormEps: number
  readonly ropeTheta: number
  readonly ropeScaling: Llama3Scaling | null
  /** lm_head is the embedding; of no consequence for a reward model. */
  readonly tiedEmbeddings: boolean
  readonly maxPosition: number
  readonly bos: number | null
  readonly eos: readonly number[]
  readonly pad: number | null
}

// Far above every published model; they keep a hostile config from asking for absurd memory or overflowing 32-bit indices.
const SIZE_LIMIT = 2 ** 24
const LAYER_LIMIT = 4096
// The attention kernels hold one head of a query in registers and workgroup memory up to this many channels.
const HEAD_DIM_LIMIT = 256

/**
 * Checks the object of a config.json and gives its sizes; absent fields get the defaults of transformers, sizes must be
 * there. Throws `NAME: ...` on another architecture, biases, impossible or absurd sizes, unknown rope types.
 */
export function parseLlamaConfig(json: unknown, name: string): LlamaConfig {
  if (!isObject(json)) throw new Error(`${name}: must be a JSON object, got ${show(json)}`)
  checkArchitecture(json, name)
  const hidden = readSize(json, 'hidden_size', name)
  const heads = readSize(json, 'num_attention_heads', name)
  const kvHeads = json.num_key_value_heads == null ? heads : readSize(json, 'num_key_value_heads', name)
  if (heads % kvHeads !== 0) {
    throw new Error(`${name}: num_attention_heads ${heads} must be a multiple of num_key_value_heads ${kvHeads}`)
  }
  return {
    vocab: readSize(json, 'vocab_size', name),
    hidden,
    layers: readSize(json, 'num_hidden_layers', name, LAYER_LIMIT),
    heads,
    kvHeads,
    headDim: readHeadDim(json, hidden, heads, name),
    intermediate: readSize(json, 'intermediate_size', name),
    rmsNormEps: readNumber(json, 'rms_norm_eps', name, 1e-6, { above: 0, below: 1 }),
    ...readRope(json, name),
    tiedEmbeddings: readFlag(json, 'tie_word_embeddings', name),
    maxPosition: json.max_position_embeddings == null ? 2048 : readSize(json, 'max_position_embeddings', name, 2 ** 31),
    bos: readIds(json.bos_token_id, `${name}: bos_token_id`)[0] ?? null,
    eos: readIds(json.eos_token_id, `${name}: eos_token_id`),
    // Llama 1 wrote -1 where it had no padding token.
    pad: json.pad_token_id === -1 ? null : (readIds(json.pad_token_id, `${name}: pad_token_id`)[0] ?? null),
  }
}

function checkArchitecture(json: Record<string, unknown>, name: string): void {
  const { model_type: type, architectures } = json
  const first: unknown = Array.isArray(architectures) ? architectures[0] : undefined
  const isLlama = type === 'llama' || (type == null && typeof first === 'string' && first.startsWith('Llama'))
  if (!isLlama) {
    throw new Error(
      `${name}: must be a Llama model, got model_type ${show(type)} and architectures ${show(architectures)}`,
    )
  }
  for (const bias of ['attention_bias', 'mlp_bias']) {
    if (readFlag(json, bias, name)) {
      throw new Error(`${name}: ${bias} must be false, got true; linear maps with biases are not supported`)
    }
  }
  const act = json.hidden_act ?? 'silu'
  if (act !== 'silu') throw new Error(`${name}: hidden_act must be "silu", got ${show(act)}`)
  if (json.quantization_config != null) {
    throw new Error(`${name}: quantization_config is set; weights must be stored as F32, F16 or BF16`)
  }
}

function readHeadDim(json: Record<string, unknown>, hidden: number, heads: number, name: string): number {
  if (json.head_dim == null && hidden % heads !== 0) {
    throw new Error(
      `${name}: without head_dim, hidden_size ${hidden} must be a multiple of num_attention_heads ${heads}`,
    )
  }
  const headDim = json.head_dim == null ? hidden / heads : readSize(json, 'head_dim', name)
  if (headDim % 2 !== 0) throw new Error(`${name}: head_dim must be even for rotary embeddings, got ${headDim}`)
  if (headDim > HEAD_DIM_LIMIT) throw new Error(`${name}: head_dim ${headDim} is above the limit of ${HEAD_DIM_LIMIT}`)
  return headDim
}

/** Reads a required count; a null counts as missing, as in transformers. */
function readSize(json: Record<string, unknown>, key: string, where: string, limit = SIZE_LIMIT): number {
  const value = json[key]
  if (value == null) throw new Error(`${where}: ${key} is missing`)
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw new Error(`${where}: ${key} must be a whole number of at least 1, got ${show(value)}`)
  }
  if (value > limit) throw new Error(`${where}: ${key} ${value} is above the limit of ${limit}`)
  return value
}

function readNumber(
  json: Record<string, unknown>,
  key: string,
  where: string,
  fallback: number | null,
  { above, below = Infinity }: { above: number; below?: number },
): number {
  const value = json[key] ?? fallback
  if (value === null) throw new Error(`${where}: ${key} is missing`)
  if (typeof value !== 'number' || !(value > above && value < below)) {
    const range = below === Infinity ? `above ${above}` : `above ${above} and below ${below}`
    throw new Error(`${where}: ${key} must be a number ${range}, got ${show(value)}`)
  }
  return value
}

function readFlag(json: Record<string, unknown>, key: string, where: string): boolean {
  const value = json[key] ?? false
  if (typeof value !== 'boolean') throw new Error(`${where}: ${key} must be true or false, got ${show(value)}`)
  return value
}

type Rope = Pick<LlamaConfig, 'ropeTheta' | 'ropeScaling'>

function readRope(json: Record<string, unknown>, name: string): Rope {
  const older = readRopeFrom('rope_scaling', json, name)
  if (json.rope_parameters == null) return older
  const newer = readRopeFrom('rope_parameters', json, name)
  if (json.rope_scaling != null && show(older) !== show(newer)) {
    throw new Error(`${name}: rope_scaling and rope_parameters differ: ${show(older)} and ${show(newer)}`)
  }
  return newer
}

function readRopeFrom(key: 'rope_scaling' | 'rope_parameters', json: Record<string, unknown>, name: string): Rope {
  const where = `${name}: ${key}`
  const given = json[key] ?? {}
  if (!isObject(given)) throw new Error(`${where}: must be an object, got ${show(given)}`)
  const type = given.rope_type ?? given.type ?? 'default'
  if (type !== 'default' && type !== 'llama3') {
    throw new Error(`${where}: rope_type must be "default" or "llama3", got ${show(type)}`)
  }
  const partial = given.partial_rotary_factor ?? json.partial_rotary_factor ?? 1
  if (partial !== 1) throw new Error(`${where}: partial_rotary_factor must be 1, got ${show(partial)}`)
  const theta = given.rope_theta ?? json.rope_theta
  const ropeTheta = readNumber({ rope_theta: theta }, 'rope_theta', name, 10000, { above: 0 })
  if (type === 'default') return { ropeTheta, ropeScaling: null }
  const factor = readNumber(given, 'factor', where, null, { above: 0 })
  const lowFreqFactor = readNumber(given, 'low_freq_factor', where, null, { above: 0 })
  const highFreqFactor = readNumber(given, 'high_freq_factor', where, null, { above: lowFreqFactor })
  const originalMaxPosition = readSize(given, 'original_max_position_embeddings', where, 2 ** 31)
  return { ropeTheta, ropeScaling: { factor, lowFreqFactor, highFreqFactor, originalMaxPosition } }
}

/** Reads a token id, a list of ids or null into a list. */
function readIds(value: unknown, where: string): number[] {
  const ids = value == null ? [] : Array.isArray(value) ? value : [value]
  for (const id of ids) {
    if (!Number.isSafeInteger(id) || id < 0) throw new Error(`${where} must be token ids, got ${show(value)}`)
  }
  return ids
}

/**
 * The angles per position of the rotary embedding, radians, float64 [C / 2]:
 *   f[e] = theta^(-2 e / C)
 * With llama3 scaling, frequencies whose wavelength 2 pi / f is above originalMaxPosition / lowFreqFactor are divided by
 * factor, those below originalMaxPosition / highFreqFactor are kept, and those between are blended linearly in
 * s = (originalMaxPosition / wavelength - low) / (high - low):  f' = (1 - s) f / factor + s f.
 */
export function inverseFrequencies(config: Pick<LlamaConfig, 'headDim' | 'ropeTheta' | 'ropeScaling'>): Float64Array {
  const { headDim, ropeTheta, ropeScaling } = config
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, e) => ropeTheta ** ((-2 * e) / headDim))
  if (ropeScaling === null) return frequencies
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPosition } = ropeScaling
  return frequencies.map((frequency) => {
    const turns = (originalMaxPosition * frequency) / (2 * Math.PI) // originalMaxPosition / wavelength
    if (turns < lowFreqFactor) return frequency / factor
    if (turns > highFreqFactor) return frequency
    const share = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return ((1 - share) * frequency) / factor + share * frequency
  })
}
