// Reads config.json of a Llama model into sizes.
// Source: LlamaConfig of Hugging Face transformers.
import { isObject, show } from '../files/json.ts'
import { readFlag, readNumber, readSize } from './config_fields.ts'
import { type Rope, readRope } from './rope.ts'

// The shape letters of headers, docstrings and code: B batch, T tokens of a sequence, N rows where B and T need not be told
// apart, D hidden size, H query heads, G key/value heads, C channels per head, F feed-forward size, V vocabulary, L layers,
// O outputs of a linear map, P positions of a table, M objectives (reward attributes), K quantile levels.

export interface LlamaConfig extends Rope {
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
  /** lm_head is the embedding; of no consequence for a reward model. */
  readonly tiedEmbeddings: boolean
  readonly maxPosition: number
  readonly bos: number | null
  readonly eos: readonly number[]
  readonly pad: number | null
}

// Far above every published model: a hostile config cannot ask for absurd memory.
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

/** Reads a token id, a list of ids or null into a list. */
function readIds(value: unknown, where: string): number[] {
  const ids = value == null ? [] : Array.isArray(value) ? value : [value]
  for (const id of ids) {
    if (!Number.isSafeInteger(id) || id < 0) throw new Error(`${where} must be token ids, got ${show(value)}`)
  }
  return ids
}
