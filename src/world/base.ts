// The base of the small world: a Llama of 80,000 weights drawn from a seed, with the world's own vocabulary of whole words.
//
// It knows nothing. As a backbone it still tells a reward model what it needs: attention with small queries and keys takes the mean over
// all tokens before it, so the last state holds, linearly but for the norm, how often each word occurs. As a policy it is where
// fine-tuning begins.
import { uniform } from '../data/random.ts'
import { encodeSafetensors, type TensorData } from '../files/safetensors.ts'
import { joinBytes, type ModelFiles, memoryFiles } from '../files/source.ts'
import { type LlamaConfig, parseLlamaConfig } from '../llama/config.ts'
import { shapesOf } from '../llama/weights.ts'
import { ADJECTIVES, END, idOf, SPECIAL, VOCABULARY } from './words.ts'

export const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: VOCABULARY.length,
  hidden_size: 96,
  intermediate_size: 192,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 6,
  head_dim: 16,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  bos_token_id: idOf(SPECIAL.bos),
  eos_token_id: END,
  torch_dtype: 'float32',
}

const CHAT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] | trim + '<end>' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"

/** What the gate of a reward model would read: the end of the prompt. The world's reward model has one attribute and no gate. */
const MANIFEST = { gate_pattern: [END, idOf(SPECIAL.assistant)] }

const TOKENIZER = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: Object.values(SPECIAL).map((content) => ({
    id: idOf(content),
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: null,
  pre_tokenizer: { type: 'WhitespaceSplit' },
  post_processor: null,
  // Whole words alone: nothing of the vocabulary continues a word.
  decoder: { type: 'WordPiece', prefix: '##', cleanup: false },
  model: {
    type: 'WordPiece',
    unk_token: SPECIAL.unknown,
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 32,
    vocab: Object.fromEntries(VOCABULARY.map((word, id) => [word, id])),
  },
}

const TOKENIZER_CONFIG = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  bos_token: SPECIAL.bos,
  eos_token: SPECIAL.end,
  unk_token: SPECIAL.unknown,
  chat_template: CHAT_TEMPLATE,
  clean_up_tokenization_spaces: false,
  model_max_length: CONFIG.max_position_embeddings,
}

// Streams of the weights; each tensor has one.
const WEIGHTS = 16

/** The model directory of the base, in memory; the same bits for the same seed on every machine. */
export function makeBase(seed: number): ModelFiles {
  const config = parseLlamaConfig(CONFIG, 'world/config.json')
  const tensors: TensorData[] = []
  const add = (name: string, shape: readonly number[], deviation: number) => {
    const size = shape.reduce((product, count) => product * count)
    const data = uniform(seed, WEIGHTS + tensors.length, size, Math.sqrt(3) * deviation)
    tensors.push({ name, dtype: 'F32', shape: [...shape], data })
  }
  const ones = (name: string) => {
    const shape = [config.hidden]
    tensors.push({ name, dtype: 'F32', shape, data: new Float32Array(config.hidden).fill(1) })
  }
  const { input_layernorm: _, post_attention_layernorm: __, ...maps } = shapesOf(config)
  add('model.embed_tokens.weight', [config.vocab, config.hidden], 1)
  for (let layer = 0; layer < config.layers; layer++) {
    const path = `model.layers.${layer}`
    for (const [name, shape] of Object.entries(maps)) {
      const module = /^(gate|up|down)/.test(name) ? 'mlp' : 'self_attn'
      add(`${path}.${module}.${name}.weight`, shape, SCALE[name as keyof typeof SCALE] / Math.sqrt(shape[1]))
    }
    ones(`${path}.input_layernorm.weight`)
    ones(`${path}.post_attention_layernorm.weight`)
  }
  ones('model.norm.weight')
  add('lm_head.weight', [config.vocab, config.hidden], 3 / Math.sqrt(config.hidden))
  attendToAdjectives(tensors, config)
  const json = (value: unknown) => new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`)
  return memoryFiles('world', {
    'config.json': json(CONFIG),
    'pinball.json': json(MANIFEST),
    'tokenizer.json': json(TOKENIZER),
    'tokenizer_config.json': json(TOKENIZER_CONFIG),
    'model.safetensors': joinBytes(encodeSafetensors(tensors)),
  })
}

/** Deviations of the maps, by the root of their inputs: queries and keys small, so that attention begins as a mean. */
export const SCALE = { q_proj: 0.1, k_proj: 0.1, v_proj: 1.5, o_proj: 1.5, gate_proj: 1, up_proj: 1, down_proj: 1 }

const GAZE = 2
/** Channels of embeddings: one that adjectives have, one that all words have. */
const [ADJECTIVE, ANY] = [0, 1]

/** Half of the heads of the first layer look at adjectives alone. */
function attendToAdjectives(
  tensors: readonly TensorData[],
  { hidden: D, heads: H, kvHeads: G, headDim: C }: LlamaConfig,
) {
  const take = (name: string) => tensors.find((tensor) => tensor.name === name)!.data as Float32Array
  const embedding = take('model.embed_tokens.weight')
  for (const [id, word] of VOCABULARY.entries()) {
    embedding[id * D + ADJECTIVE] = ADJECTIVES.some((adjective) => adjective.word === word) ? GAZE : 0
    embedding[id * D + ANY] = GAZE
  }
  // The channel that positions turn least.
  const still = C / 2 - 1
  const [query, key] = [take('model.layers.0.self_attn.q_proj.weight'), take('model.layers.0.self_attn.k_proj.weight')]
  for (let head = 0; head < H / 2; head++) query[(head * C + still) * D + ANY] = GAZE
  for (let head = 0; head < G / 2; head++) key[(head * C + still) * D + ADJECTIVE] = GAZE * GAZE
}
