// Adapters against PEFT: which modules are adapted, files byte for byte, and what is refused.
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { memoryFiles, memorySource } from '../src/files/source.ts'
import {
  type AdapterConfig,
  adapterConfigText,
  newAdapterConfig,
  parseAdapterConfig,
} from '../src/llama/adapter_config.ts'
import { type Adapter, encodeAdapter, readAdapter } from '../src/llama/adapter_files.ts'
import { PROJECTIONS, planAdapter } from '../src/llama/adapter_plan.ts'
import { type LlamaConfig, parseLlamaConfig } from '../src/llama/config.ts'
import { moduleOf } from '../src/llama/weights.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { fails } from './assert.ts'
import { LORA_FOLDER } from './lora_fixture.ts'

const CASES = ['untied', 'tied', 'odd', 'q8_0', 'reward']

const bytesOf = (path: string) => new Uint8Array(readFileSync(new URL(path, LORA_FOLDER)))
const jsonOf = (path: string) => JSON.parse(Buffer.from(bytesOf(path)).toString()) as Record<string, unknown>
const sizesOf = (name: string): LlamaConfig => parseLlamaConfig(jsonOf(`${name}/model/config.json`), name)
const config = (changes: Record<string, unknown> = {}): AdapterConfig =>
  parseAdapterConfig({ peft_type: 'LORA', r: 4, target_modules: ['q_proj'], ...changes }, 'a.json')

/** The files of a fixture's adapter with another configuration or other tensors. */
async function changed(
  name: string,
  changes: Record<string, unknown>,
  edit: (tensors: TensorData[]) => TensorData[] = (tensors) => tensors,
) {
  const { tensors } = await openSafetensors(memorySource('m', bytesOf(`${name}/adapter/adapter_model.safetensors`)))
  const all: TensorData[] = []
  for (const info of tensors.values())
    all.push({ name: info.name, dtype: 'F32', shape: info.shape, data: await readTensorF32(info) })
  const text = JSON.stringify({ ...jsonOf(`${name}/adapter/adapter_config.json`), ...changes })
  return memoryFiles('a', {
    'adapter_config.json': new TextEncoder().encode(text),
    'adapter_model.safetensors': Buffer.concat(encodeSafetensors(edit(all))),
  })
}

interface Planned {
  readonly class: string
  readonly config: Record<string, unknown>
  readonly modules: Record<string, [number, number] | 'saved'> | null
}

test('the same modules are adapted, with the same rank and scaling, as by PEFT', () => {
  const cases = JSON.parse(readFileSync(new URL('./fixtures/adapter_plans.json', import.meta.url), 'utf8')) as Planned[]
  assert.ok(cases.length > 80)
  const sizes = { ...sizesOf('untied'), layers: 12 }
  for (const entry of cases) {
    const what = `${entry.class} ${JSON.stringify(entry.config)}`
    const prefix = entry.class === 'LlamaModel' ? '' : 'model.'
    const plan = () => planAdapter(parseAdapterConfig({ peft_type: 'LORA', ...entry.config }, 'a.json'), sizes, prefix)
    // PEFT can adapt the output layer; it is refused here.
    if (entry.modules === null || 'lm_head' in entry.modules) {
      assert.throws(plan, /^a\.json: /, what)
      continue
    }
    const { layers, score } = plan()
    const found: Record<string, unknown> = score === 'required' ? { score: 'saved' } : {}
    for (const [layer, projections] of layers.entries())
      for (const name of PROJECTIONS) {
        const one = projections[name]
        if (one) found[`${prefix}layers.${layer}.${moduleOf(name)}`] = [one.rank, one.scaling]
      }
    const sorted = (modules: object) => Object.fromEntries(Object.entries(modules).sort())
    assert.equal(sorted(found), sorted(entry.modules), what)
  }
})

test('what was read is written as PEFT wrote it, byte for byte', async () => {
  for (const name of CASES) {
    const files = memoryFiles(`${name}/adapter`, {
      'adapter_config.json': bytesOf(`${name}/adapter/adapter_config.json`),
      'adapter_model.safetensors': bytesOf(`${name}/adapter/adapter_model.safetensors`),
    })
    const adapter = await readAdapter(files, sizesOf(name))
    assert.is(adapter.score !== null, name === 'reward')
    for (const { file, chunks } of encodeAdapter(adapter, sizesOf(name)))
      assert.ok(Buffer.concat(chunks).equals(bytesOf(`${name}/adapter/${file}`)), `${name} ${file}`)
  }
})

test('tensors go to their places', async () => {
  const path = 'tied/adapter/'
  const files = memoryFiles('a', {
    'adapter_config.json': bytesOf(`${path}adapter_config.json`),
    'adapter_model.safetensors': bytesOf(`${path}adapter_model.safetensors`),
  })
  const { layers } = await readAdapter(files, sizesOf('tied'))
  assert.equal(
    layers.map((layer) => Object.keys(layer)),
    [
      ['q_proj', 'v_proj'],
      ['q_proj', 'v_proj'],
    ],
  )
  const { tensors } = await openSafetensors(memorySource('m', bytesOf(`${path}adapter_model.safetensors`)))
  const of = (part: string) =>
    readTensorF32(tensors.get(`base_model.model.model.layers.1.self_attn.q_proj.lora_${part}.weight`)!)
  assert.equal(layers[1].q_proj!.a, await of('A'))
  assert.equal(layers[1].q_proj!.b, await of('B'))
  assert.is(layers[1].q_proj!.rank, 5)
  assert.is(layers[1].q_proj!.scaling, 6 / Math.sqrt(5))
  assert.is(layers[0].v_proj!.scaling, 2 / Math.sqrt(3))
})

test('half precision is widened exactly, and an adapter of LlamaModel is the same adapter', async () => {
  const name = 'untied'
  const plain = await readAdapter(await changed(name, {}), sizesOf(name))
  // PEFT notes a task or, without one, the class of the base.
  const mapping = { base_model_class: 'LlamaModel', parent_library: 'transformers.models.llama.modeling_llama' }
  for (const noted of [{ task_type: 'FEATURE_EXTRACTION' }, { task_type: null, auto_mapping: mapping }]) {
    const bare = await changed(name, noted, (tensors) =>
      tensors.map((one) => ({ ...one, name: one.name.replace('base_model.model.model.', 'base_model.model.') })),
    )
    const found = await readAdapter(bare, sizesOf(name))
    assert.equal(found.layers, plain.layers)
    // It is written over the causal model, so that its tensors are found there.
    const [text, tensors] = encodeAdapter(found, sizesOf(name))
    const written = JSON.parse(Buffer.concat(text.chunks).toString())
    assert.equal([written.task_type, written.auto_mapping], ['CAUSAL_LM', null])
    assert.ok(Buffer.concat(tensors.chunks).equals(bytesOf(`${name}/adapter/adapter_model.safetensors`)))
  }
  const half = await changed(name, {}, (tensors) =>
    tensors.map((one) => ({ ...one, dtype: 'BF16', data: Uint16Array.from(one.data as Float32Array, () => 0x3fa0) })),
  )
  const { layers } = await readAdapter(half, sizesOf(name))
  assert.ok(layers[0].q_proj!.a.every((value) => value === 1.25))
})

test('settings that change nothing are accepted', () => {
  for (const changes of [
    { some_new_key: null, other: false, empty: '', list: [], object: { inner: null }, none: 'none', zero: 0 },
    { bias: 'all', fan_in_fan_out: true, ensure_weight_tying: true, runtime_config: { ephemeral_gpu_offload: true } },
    { init_lora_weights: 'gaussian', eva_config: { rho: 2 }, loftq_config: { loftq_bits: 4 }, corda_config: { x: 1 } },
    { auto_mapping: { base_model_class: 'LlamaForCausalLM' }, base_model_name_or_path: 'x', revision: 'main' },
    { megatron_core: 'megatron.core', qalora_group_size: 32, inference_mode: false, peft_version: '9' },
    { modules_to_save: ['classifier', 'score'], task_type: 'CAUSAL_LM' },
  ])
    assert.is(planAdapter(config(changes), sizesOf('untied')).layers.length, 2, JSON.stringify(changes))
})

test('settings that change the mathematics are refused by name', () => {
  for (const [changes, message] of [
    [{ use_dora: true }, /^a\.json: use_dora is set \(DoRA\), got true; this is not supported$/],
    [{ layer_replication: [[0, 2]] }, /layer_replication is set \(replicated layers\)/],
    [{ lora_bias: true }, /lora_bias is set/],
    [{ target_parameters: ['x'] }, /target_parameters is set/],
    [{ alora_invocation_tokens: [1] }, /aLoRA/],
    [{ trainable_token_indices: [1] }, /trainable_token_indices/],
    [{ kasa_config: { a: 1 } }, /kasa_config/],
    [{ megatron_config: { a: 1 } }, /megatron_config/],
    [{ use_bdlora: { nblocks: 1 } }, /use_bdlora/],
    [{ use_qalora: true }, /use_qalora/],
    [{ brand_new: 1 }, /^a\.json: unknown key "brand_new" with the value 1; it may change what is computed$/],
    [{ brand_new: { inner: [true] } }, /unknown key "brand_new"/],
    [{ init_lora_weights: 'pissa' }, /init_lora_weights must be .*, got "pissa"; .*base's weights/],
    [{ init_lora_weights: 'pissa_niter_4' }, /pissa_niter_4/],
    [{ init_lora_weights: 'olora' }, /olora/],
    [{ init_lora_weights: 'loftq' }, /loftq/],
    [{ init_lora_weights: 'lora_ga' }, /lora_ga/],
    [{ init_lora_weights: 'corda' }, /corda/],
    [{ bias: 'some' }, /bias must be/],
    [{ peft_type: 'IA3' }, /peft_type must be "LORA", got "IA3"/],
    [{ task_type: 'TOKEN_CLS' }, /task_type must be/],
    [{ r: 0 }, /r must be a whole number from 1 to 65536, got 0/],
    [{ rank_pattern: { q_proj: 1.5 } }, /rank_pattern "q_proj" must be a whole number/],
    [{ lora_alpha: '16' }, /lora_alpha must be a number, got "16"/],
    [{ lora_dropout: 1 }, /lora_dropout must be a number from 0 to below 1, got 1/],
    [{ use_rslora: 'yes' }, /use_rslora must be true or false/],
    [{ target_modules: [1] }, /target_modules must be a text, a list of texts or null/],
    [{ layers_to_transform: [-1] }, /layers_to_transform must be numbers of layers/],
    [
      { modules_to_save: ['lm_head'], task_type: 'CAUSAL_LM' },
      /modules_to_save "lm_head" names lm_head; only a "score" head/,
    ],
    [{ modules_to_save: ['embed_tokens'] }, /names model\.embed_tokens/],
    [{ modules_to_save: ['k_proj'] }, /names model\.layers\.0\.self_attn\.k_proj/],
    [{ target_modules: ['q_proj', 'embed_tokens'] }, /names model\.embed_tokens; only q_proj, .* can be adapted/],
    [{ target_modules: '.*(a+)+\\1' }, /target_modules: the regular expression .* refers back/],
    [{ rank_pattern: { '(q': 2 } }, /rank_pattern "\(q": the regular expression/],
  ] as const)
    assert.throws(
      () => planAdapter(config(changes), sizesOf('untied')),
      (error: Error) => message.test(error.message),
      JSON.stringify(changes),
    )
})

test('missing, unexpected and damaged tensors are refused by name', async () => {
  const name = 'untied'
  const at = (layer: number, rest: string) => `base_model.model.model.layers.${layer}.self_attn.${rest}`
  const extra = (tensor: string) => (tensors: TensorData[]) => [
    ...tensors,
    { name: tensor, dtype: 'F32', shape: [1], data: new Float32Array(1) } as TensorData,
  ]
  const first = (edit: (one: TensorData) => Partial<TensorData>) => (tensors: TensorData[]) =>
    tensors.map((one) => (one.name === at(0, 'q_proj.lora_A.weight') ? { ...one, ...edit(one) } : one))
  const where = 'a/adapter_model.safetensors'
  for (const [edit, message, changes] of [
    [
      (all: TensorData[]) => all.filter((one) => one.name !== at(1, 'k_proj.lora_B.weight')),
      `${where}: tensor "${at(1, 'k_proj.lora_B.weight')}" is missing; adapter_config.json and the base ask for 28 tensors`,
    ],
    [
      (all: TensorData[]) => all.filter((one) => !one.name.includes('q_proj')),
      /tensors .*q_proj.* and 1 more are missing/,
    ],
    [extra(at(2, 'q_proj.lora_A.weight')), /tensor .*layers\.2\.self_attn\.q_proj\.lora_A\.weight" is not asked for/],
    [extra('base_model.model.score.weight'), /score\.weight" is not asked for/],
    [extra(at(0, 'q_proj.lora_magnitude_vector')), /DoRA is not supported/],
    [extra(at(0, 'q_proj.bias')), /biases that were trained are not supported/],
    [extra('base_model.model.lm_head.weight'), /embedding and output layer/],
    [(all: TensorData[]) => all, /tensors .* are not asked for by adapter_config.json/, { target_modules: ['q_proj'] }],
    [(all: TensorData[]) => all, /must be \[8, 32\] by adapter_config\.json and the base, got \[4, 32\]/, { r: 8 }],
    [first(({ shape }) => ({ shape: [...shape].reverse() })), /must be \[4, 32\].* got \[32, 4\]/],
    [
      first(({ data }) => ({ data: (data as Float32Array).map((value, i) => (i === 7 ? Number.NaN : value)) })),
      /must be finite, got NaN at element 7/,
    ],
    [
      first(({ data }) => ({ dtype: 'I32', data: new Int32Array((data as Float32Array).length) })),
      /must be F32, BF16 or F16, got I32/,
    ],
    [
      (all: TensorData[]) => all.map((one) => ({ ...one, name: one.name.replace('base_model.', '') })),
      /names must begin with base_model\.model\.model\.layers\./,
    ],
    [extra('base_model.model.layers.0.self_attn.q_proj.lora_A.weight'), /an adapter is of one model/],
  ] as const)
    await fails(async () => readAdapter(await changed(name, changes ?? {}, edit), sizesOf(name)), message)
  const reward = await changed('reward', {}, (all) => all.filter((one) => !one.name.includes('score')))
  await fails(() => readAdapter(reward, sizesOf('reward')), /score\.weight" is missing/)
  await fails(() => readAdapter(memoryFiles('a', {}), sizesOf(name)), /^a\/adapter_config\.json: is missing/)
  const text = { 'adapter_config.json': bytesOf(`${name}/adapter/adapter_config.json`) }
  await fails(() => readAdapter(memoryFiles('a', text), sizesOf(name)), /^a\/adapter_model\.safetensors: is missing/)
})

test('a head may come with an adapter of no task', async () => {
  const files = await changed('reward', { task_type: null, modules_to_save: ['score'] })
  assert.ok((await readAdapter(files, sizesOf('reward'))).score)
  const without = await changed('untied', { task_type: null, modules_to_save: ['score'] })
  assert.is((await readAdapter(without, sizesOf('untied'))).score, null)
})

test('a new configuration is written as PEFT writes one', () => {
  const path = (name: string) => Buffer.from(bytesOf(`${name}/adapter/adapter_config.json`)).toString()
  const targets = (name: string) => jsonOf(`${name}/adapter/adapter_config.json`).target_modules as string[]
  const made = newAdapterConfig({ task: 'CAUSAL_LM', rank: 4, alpha: 8, targets: targets('untied') })
  assert.is(adapterConfigText(made), path('untied'))
  const reward = newAdapterConfig({ task: 'SEQ_CLS', rank: 4, alpha: 8, targets: targets('reward') })
  assert.is(adapterConfigText(reward), path('reward'))
  const all = JSON.parse(adapterConfigText(newAdapterConfig({ task: null, rank: 1, alpha: 2, targets: 'all-linear' })))
  assert.equal(all.target_modules, [...PROJECTIONS], 'the names, as PEFT writes them')
  // Numbers and texts as Python's json writes them.
  const odd = newAdapterConfig({
    task: null,
    rank: 1,
    alpha: 2.5e-7,
    targets: 'all-linear',
    dropout: 0.00001,
    base: 'é\u007f',
  })
  const text = adapterConfigText(odd)
  for (const part of [
    '"lora_alpha": 2.5e-07,',
    '"lora_dropout": 1e-05,',
    '"base_model_name_or_path": "\\u00e9\\u007f",',
    '"task_type": null,',
  ])
    assert.ok(text.includes(part), part)
  assert.match(
    adapterConfigText(config({ lora_dropout: 0.05, lora_alpha: 1e22 })),
    /"lora_alpha": 1e\+22,\n {2}"lora_bias": false,\n {2}"lora_dropout": 0\.05,/,
  )
  assert.not.match(adapterConfigText(config({ runtime_config: { x: 1 } })), /runtime_config/)
  assert.throws(() => newAdapterConfig({ task: null, rank: 0, alpha: 1, targets: [] }), /r must be a whole number/)
})

test('an adapter begins with B = 0, A within its bounds, and the same numbers for one seed', () => {
  const base = { ...sizesOf('untied'), hidden: 256, intermediate: 512, heads: 4, kvHeads: 2, headDim: 64, layers: 3 }
  const made = newAdapterConfig({ task: 'SEQ_CLS', rank: 16, alpha: 32, targets: 'all-linear' })
  const adapter = startAdapter(made, base, 7)
  for (const layer of adapter.layers)
    for (const name of PROJECTIONS) {
      const { a, b, rank, scaling } = layer[name]!
      const bound = 1 / Math.sqrt(a.length / rank)
      assert.is(scaling, 2)
      assert.ok(b.every((value) => value === 0))
      assert.ok(a.every((value) => Math.abs(value) <= bound))
      // A uniform number has the variance bound^2 / 3; the mean of n squares strays by 0.9 / sqrt(n) of it.
      const variance = a.reduce((sum, value) => sum + value * value, 0) / a.length
      assert.ok(Math.abs(variance / (bound ** 2 / 3) - 1) < (5 * 0.9) / Math.sqrt(a.length), `${name} ${variance}`)
    }
  assert.equal(startAdapter(made, base, 7), adapter)
  assert.not.equal(startAdapter(made, base, 8).layers[0].q_proj!.a, adapter.layers[0].q_proj!.a)
  assert.not.equal(adapter.layers[0].q_proj!.a, adapter.layers[1].q_proj!.a)
  assert.not.equal(adapter.layers[0].gate_proj!.a, adapter.layers[0].up_proj!.a)
  const less = startAdapter(newAdapterConfig({ task: null, rank: 16, alpha: 32, targets: ['up_proj'] }), base, 7)
  assert.equal(less.layers[2].up_proj, adapter.layers[2].up_proj, 'a projection does not depend on the others')
  const squares = adapter.score!.weight.reduce((sum, value) => sum + value * value, 0)
  assert.ok(Math.abs(squares * (257 / 256) - 1) < 5 * Math.sqrt(2 / 256), String(squares))
})

test('an adapter whose tensors do not fit its configuration is not written', async () => {
  const base = sizesOf('untied')
  const made = newAdapterConfig({ task: 'CAUSAL_LM', rank: 4, alpha: 8, targets: ['q_proj'] })
  const adapter = startAdapter(made, base, 1)
  const other = newAdapterConfig({ task: 'CAUSAL_LM', rank: 4, alpha: 9, targets: ['q_proj'] })
  assert.throws(
    () => encodeAdapter({ ...adapter, config: other }, base),
    /layer 0 q_proj has rank 4 and scaling 2, but its adapter_config\.json gives it rank 4 and scaling 2\.25/,
  )
  assert.throws(() => encodeAdapter({ ...adapter, layers: [] }, base), /has nothing, but/)
  const headed: Adapter = { ...adapter, score: { labels: 1, weight: new Float32Array(32) } }
  assert.throws(() => encodeAdapter(headed, base), /has a score head/)
  // PEFT sorts patterns when it writes them: here "q_proj" would come after "layers.0..." and another rank would be first.
  const patterns = config({ rank_pattern: { q_proj: 2, 'layers.0.self_attn.q_proj': 3 } })
  assert.throws(() => encodeAdapter(startAdapter(patterns, base, 1), base), /layer 0 q_proj has rank 2/)
})

test.run()
