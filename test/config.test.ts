// config.json of Llama models: sizes, spellings, refusals; rotary frequencies against transformers.
import { readFile } from 'node:fs/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { show } from '../src/files/json.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { ropeTables } from '../src/llama/forward.ts'
import { attentionFactor, inverseFrequencies } from '../src/llama/rope.ts'
import { close, fails } from './assert.ts'

const LLAMA3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
}

/** The published config of QRM-Llama3.1-8B, in the fields that matter here. */
const QRM = {
  architectures: ['LlamaForRewardModelWithGating'],
  attention_bias: false,
  bos_token_id: 128000,
  eos_token_id: [128001, 128008, 128009],
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  pad_token_id: 128256,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: LLAMA3,
  rope_theta: 500000,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  vocab_size: 128257,
}

const parse = (changes: Record<string, unknown> = {}) => parseLlamaConfig({ ...QRM, ...changes }, 'dir/config.json')

test('QRM-Llama3.1-8B', () => {
  assert.equal(parse(), {
    vocab: 128257,
    hidden: 4096,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    headDim: 128,
    intermediate: 14336,
    rmsNormEps: 1e-5,
    ropeTheta: 500000,
    ropeScaling: { type: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPosition: 8192 },
    tiedEmbeddings: false,
    maxPosition: 131072,
    bos: 128000,
    eos: [128001, 128008, 128009],
    pad: 128256,
  })
})

test('other spellings mean the same', () => {
  const newer = { rope_scaling: null, rope_theta: undefined, rope_parameters: { ...LLAMA3, rope_theta: 500000 } }
  assert.equal(parse(newer), parse())
  assert.equal(parse({ rope_parameters: { ...LLAMA3, rope_theta: 500000 } }), parse(), 'both, agreeing')
  assert.equal(parse({ rope_scaling: { ...LLAMA3, rope_type: undefined, type: 'llama3' } }), parse())
  assert.equal(parse({ head_dim: 128 }), parse())
  assert.equal(parse({ model_type: undefined }), parse())
  assert.is(parse({ rope_scaling: null }).ropeScaling, null)
  assert.is(parse({ rope_scaling: { type: 'default' } }).ropeScaling, null)
})

test('defaults of transformers', () => {
  const { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, model_type } = QRM
  const sizes = { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, model_type }
  const config = parseLlamaConfig(sizes, 'c')
  assert.is(config.kvHeads, 32)
  assert.is(config.rmsNormEps, 1e-6)
  assert.is(config.ropeTheta, 10000)
  assert.is(config.maxPosition, 2048)
  assert.equal([config.bos, config.eos, config.pad], [null, [], null])
})

test('what may be given in more than one way', () => {
  assert.equal(parse({ eos_token_id: 5 }).eos, [5])
  assert.is(parse({ pad_token_id: -1 }).pad, null)
  assert.is(parse({ tie_word_embeddings: true }).tiedEmbeddings, true)
  const wide = parse({ head_dim: 64, num_attention_heads: 40, num_key_value_heads: 5 })
  assert.equal([wide.headDim, wide.heads, wide.kvHeads], [64, 40, 5])
  assert.is(parse({ pretraining_tp: 2 }).hidden, 4096)
})

const refused: [string, Record<string, unknown>, string][] = [
  [
    'architecture',
    { model_type: 'qwen2' },
    'must be a Llama model, got model_type "qwen2" and architectures ["LlamaForRewardModelWithGating"]',
  ],
  [
    'no architecture',
    { model_type: undefined, architectures: undefined },
    'must be a Llama model, got model_type nothing and architectures nothing',
  ],
  [
    'attention bias',
    { attention_bias: true },
    'attention_bias must be false, got true; linear maps with biases are not supported',
  ],
  ['mlp bias', { mlp_bias: true }, 'mlp_bias must be false, got true; linear maps with biases are not supported'],
  ['odd bias', { mlp_bias: 'no' }, 'mlp_bias must be true or false, got "no"'],
  ['activation', { hidden_act: 'gelu' }, 'hidden_act must be "silu", got "gelu"'],
  [
    'quantised',
    { quantization_config: { bits: 4 } },
    'quantization_config is set; weights must be stored as F32, F16 or BF16',
  ],
  ['missing size', { hidden_size: undefined }, 'hidden_size is missing'],
  ['null size', { vocab_size: null }, 'vocab_size is missing'],
  ['zero layers', { num_hidden_layers: 0 }, 'num_hidden_layers must be a whole number of at least 1, got 0'],
  ['negative', { intermediate_size: -3 }, 'intermediate_size must be a whole number of at least 1, got -3'],
  ['fraction', { hidden_size: 4096.5 }, 'hidden_size must be a whole number of at least 1, got 4096.5'],
  ['text', { hidden_size: '4096' }, 'hidden_size must be a whole number of at least 1, got "4096"'],
  ['absurd size', { vocab_size: 1e12 }, 'vocab_size 1000000000000 is above the limit of 16777216'],
  ['absurd layers', { num_hidden_layers: 1e6 }, 'num_hidden_layers 1000000 is above the limit of 4096'],
  ['key heads', { num_key_value_heads: 5 }, 'num_attention_heads 32 must be a multiple of num_key_value_heads 5'],
  [
    'more key heads',
    { num_key_value_heads: 64 },
    'num_attention_heads 32 must be a multiple of num_key_value_heads 64',
  ],
  ['zero key heads', { num_key_value_heads: 0 }, 'num_key_value_heads must be a whole number of at least 1, got 0'],
  [
    'heads',
    { num_attention_heads: 24, num_key_value_heads: 8 },
    'without head_dim, hidden_size 4096 must be a multiple of num_attention_heads 24',
  ],
  ['odd head_dim', { head_dim: 65 }, 'head_dim must be even for rotary embeddings, got 65'],
  ['odd implied head_dim', { hidden_size: 32 * 33 }, 'head_dim must be even for rotary embeddings, got 33'],
  ['large head_dim', { head_dim: 512 }, 'head_dim 512 is above the limit of 256'],
  ['eps', { rms_norm_eps: 0 }, 'rms_norm_eps must be a number above 0 and below 1, got 0'],
  ['theta', { rope_theta: -1 }, 'rope_theta must be a number above 0, got -1'],
  ['tied', { tie_word_embeddings: 1 }, 'tie_word_embeddings must be true or false, got 1'],
  ['eos', { eos_token_id: [1, -2] }, 'eos_token_id must be token ids, got [1,-2]'],
  ['rope list', { rope_scaling: [] }, 'rope_scaling: must be an object, got []'],
  [
    'rope type',
    { rope_scaling: { type: 'longrope', factor: 2 } },
    'rope_scaling: rope_type must be one of default, linear, dynamic, yarn, llama3, got "longrope"',
  ],
  [
    'newer rope type',
    { rope_scaling: null, rope_parameters: { rope_type: 1 } },
    'rope_parameters: rope_type must be one of default, linear, dynamic, yarn, llama3, got 1',
  ],
  ['linear', { rope_scaling: { type: 'linear' } }, 'rope_scaling: factor is missing'],
  [
    'dynamic',
    { rope_scaling: { type: 'dynamic', factor: '2' } },
    'rope_scaling: factor must be a number above 0, got "2"',
  ],
  [
    'yarn',
    { rope_scaling: { type: 'yarn', beta_fast: 0.5 } },
    'rope_scaling: beta_fast must be a number above 1, got 0.5',
  ],
  ['no factor', { rope_scaling: { ...LLAMA3, factor: undefined } }, 'rope_scaling: factor is missing'],
  ['factor', { rope_scaling: { ...LLAMA3, factor: 0 } }, 'rope_scaling: factor must be a number above 0, got 0'],
  [
    'bands',
    { rope_scaling: { ...LLAMA3, high_freq_factor: 1 } },
    'rope_scaling: high_freq_factor must be a number above 1, got 1',
  ],
  [
    'original',
    { rope_scaling: { ...LLAMA3, original_max_position_embeddings: null } },
    'rope_scaling: original_max_position_embeddings is missing',
  ],
  ['partial', { partial_rotary_factor: 0.5 }, 'rope_scaling: partial_rotary_factor must be 1, got 0.5'],
]
for (const [name, changes, message] of refused) {
  test(`refused: ${name}`, () => fails(() => parse(changes), `dir/config.json: ${message}`))
}

test('two rope spellings that differ are refused', async () => {
  await fails(
    () => parse({ rope_parameters: { rope_type: 'default' } }),
    /^dir\/config.json: rope_scaling and rope_parameters differ/,
  )
  await fails(() => parseLlamaConfig([], 'c'), 'c: must be a JSON object, got []')
})

test('rotary frequencies are those of transformers', async () => {
  // transformers computes them in float32; ours are float64, so the difference is theirs: a few roundings.
  const cases = JSON.parse(await readFile(new URL('fixtures/rope.json', import.meta.url), 'utf8'))
  assert.is(cases.length, 11)
  for (const { headDim, ropeTheta, rope_scaling, frequencies, longest, factor } of cases) {
    const sizes = { head_dim: headDim, ...(longest && { max_position_embeddings: longest }) }
    const { ropeScaling } = parse({ rope_scaling, rope_theta: ropeTheta, ...sizes })
    const ours = inverseFrequencies({ headDim, ropeTheta, ropeScaling })
    assert.ok(Math.abs(attentionFactor({ ropeTheta, ropeScaling }) - (factor ?? 1)) < 1e-15, show(rope_scaling))
    assert.is(ours.length, headDim / 2)
    const ratios = ours.map((frequency, e) => frequency / frequencies[e])
    close(ratios, new Float64Array(headDim / 2).fill(1), 8 * 2 ** -24, `C ${headDim}, theta ${ropeTheta}`)
  }
})

test('tables hold the cosine and sine of position times frequency, times the factor of yarn', () => {
  const scaling = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 }
  const config = parse({ rope_scaling: scaling, rope_theta: 100, head_dim: 8, max_position_embeddings: 64 })
  const frequencies = inverseFrequencies(config)
  const { cos, sin } = ropeTables(config, 3)
  const factor = 0.1 * Math.log(4) + 1
  for (const p of [0, 1, 2])
    for (const [e, frequency] of frequencies.entries()) {
      assert.is(cos[p * 4 + e], Math.fround(factor * Math.cos(p * frequency)))
      assert.is(sin[p * 4 + e], Math.fround(factor * Math.sin(p * frequency)))
    }
})

test.run()
