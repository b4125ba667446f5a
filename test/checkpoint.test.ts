// The QRM checkpoint and its manifest: what is read, what is refused and with which words, and that writing reads back.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors, openModelTensors, readTensor, type TensorData } from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles } from '../src/files/source.ts'
import { type Checkpoint, readCheckpoint } from '../src/reward/checkpoint.ts'
import { encodeCheckpoint } from '../src/reward/encode.ts'
import { fingerprint } from '../src/reward/fingerprint.ts'
import { parseManifest } from '../src/reward/manifest.ts'
import { fails } from './assert.ts'
import { type Files, joined, json, qrmConfig, qrmFiles, qrmTensors } from './qrm.ts'

interface Changes {
  config?(config: Record<string, unknown>): void
  tensors?(tensors: Map<string, TensorData>): void
  manifest?: unknown
}

/** The directory "m" of a small model, changed. */
function changed({ config, tensors, manifest = {} }: Changes): ModelFiles {
  const sizes = qrmConfig()
  config?.(sizes)
  const data = qrmTensors(1)
  tensors?.(data)
  return memoryFiles('m', {
    'config.json': json(sizes),
    'pinball.json': json(manifest),
    'model.safetensors': joined(encodeSafetensors([...data.values()])),
  })
}

/** All files that `encodeCheckpoint` writes. */
async function written(...args: Parameters<typeof encodeCheckpoint>): Promise<Files> {
  const files: Files = {}
  for await (const { file, chunks } of encodeCheckpoint(...args)) files[file] = joined(chunks)
  return files
}

const CASES = [
  {},
  { depth: 0, bias: true, transform: false },
  { objectives: 19, quantiles: 19, dtype: 'BF16' },
  { dtype: 'F16', tied: true, manifest: { mixture: 'mean', bos: 'none', lambda: 0, attributes: ['a', 'b', 'c'] } },
] as const

test('reads every part', async () => {
  const { config, manifest, regression, transform, gate } = await readCheckpoint(memoryFiles('m', qrmFiles(1)))
  const tensors = qrmTensors(1)
  const data = (name: string) => tensors.get(name)!.data
  assert.equal(config, qrmConfig())
  assert.equal(manifest, {
    attributes: ['objective_0', 'objective_1', 'objective_2'],
    levels: [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6],
    bos: 'template',
    gatePattern: [57, 55, 1, 56, 2],
    mixture: 'sum',
    lambda: 1,
    weights: null,
    rewards: null,
  })
  assert.equal(regression, { weight: data('regression_layer.weight'), bias: null })
  assert.equal(transform, data('reward_transform_matrix'))
  assert.equal([gate!.temperature, gate!.logitScale, gate!.hidden.length], [10, 1, 3])
  for (const [i, { weight, norm }] of gate!.hidden.entries()) {
    const at = `gating.layers.${3 * i + 2}`
    assert.equal(weight, data(`gating.layers.${3 * i}.weight`))
    assert.equal(norm, {
      weight: data(`${at}.weight`),
      bias: data(`${at}.bias`),
      mean: data(`${at}.running_mean`),
      variance: data(`${at}.running_var`),
    })
  }
  assert.equal([gate!.weight, gate!.bias], [data('gating.layers.9.weight'), data('gating.layers.9.bias')])
})

test('what is written reads back, heads alone, with a backbone, and in shards', async () => {
  for (const [seed, spec] of CASES.entries()) {
    const original = memoryFiles('original', qrmFiles(seed, spec))
    const checkpoint = await readCheckpoint(original)
    const tensors = await openModelTensors(original)
    for (const [backbone, shardBytes] of [[undefined], [tensors], [tensors, 5000], [tensors, 1]] as const) {
      const files = await written(checkpoint, backbone, shardBytes)
      const copy = memoryFiles('copy', files)
      const again = await readCheckpoint(copy)
      assert.equal({ ...again, config: null }, { ...checkpoint, config: null })
      assert.equal(again.config, checkpoint.config)
      const copied = await openModelTensors(copy)
      const shards = Object.keys(files).filter((file) => file.endsWith('.safetensors'))
      const sharded = shardBytes !== undefined
      assert.is('model.safetensors.index.json' in files, sharded)
      if (sharded) assert.ok(shards.length > 2 && shards.every((file) => /^model-\d{5}-of-\d{5}\./.test(file)))
      else assert.equal(shards, ['model.safetensors'])
      for (const [name, info] of tensors) {
        if (!name.startsWith('model.')) continue
        assert.is(copied.has(name), backbone !== undefined)
        if (!backbone) continue
        const { dtype, shape } = copied.get(name)!
        assert.equal([dtype, shape], [info.dtype, info.shape])
        assert.equal(await readTensor(copied.get(name)!), await readTensor(info))
      }
      assert.not.ok(copied.has('lm_head.weight'))
    }
  }
})

test('the fingerprint does not depend on how tensors are laid out in files', async () => {
  const original = memoryFiles('original', qrmFiles(1))
  const checkpoint: Checkpoint = await readCheckpoint(original)
  const tensors = await openModelTensors(original)
  const prints: string[] = []
  for (const shardBytes of [undefined, 3000]) {
    const copy = memoryFiles('copy', await written(checkpoint, tensors, shardBytes))
    prints.push(await fingerprint(copy, await openModelTensors(copy)))
  }
  assert.is(prints[0], prints[1])
  // Of nothing, the hash of the first line: what sha256sum says.
  const first = 'fd8cdaebcafc567b9fe982787e6a50f306756cffbe15e1efc0d2f60a370b4ed1'
  assert.is(await fingerprint(memoryFiles('empty', {}), new Map()), first)
})

test('lm_head and batch counters are passed over', async () => {
  const files = changed({
    tensors: (tensors) => {
      tensors.delete('gating.layers.5.num_batches_tracked')
      assert.ok(tensors.has('lm_head.weight'))
    },
  })
  assert.is((await readCheckpoint(files)).gate!.hidden.length, 3)
})

test('defaults of config.json are those of the published class', async () => {
  const files = changed({
    config: (config) => {
      delete config.gating_temperature
      config.gating_hidden_dim = 16
      delete config.gating_n_hidden
    },
  })
  const { gate } = await readCheckpoint(files)
  assert.equal([gate!.temperature, gate!.hidden.length], [10, 3])
  await fails(
    () => readCheckpoint(changed({ config: (config) => delete config.gating_hidden_dim })),
    'm/model.safetensors: tensor "gating.layers.0.weight" must be [1024, 24], got [16, 24]',
  )
})

test('refuses tensors that are missing, unexpected, mis-shaped, or of another type', async () => {
  const failing = (tensors: (tensors: Map<string, TensorData>) => void, message: string) =>
    fails(() => readCheckpoint(changed({ tensors })), message)
  const put = (name: string, shape: number[], data: ArrayBufferView, dtype: TensorData['dtype'] = 'F32') => {
    return (tensors: Map<string, TensorData>) => tensors.set(name, { name, dtype, shape, data })
  }
  await failing(
    (tensors) => tensors.delete('regression_layer.weight'),
    'm: missing head tensor "regression_layer.weight"; a QRM checkpoint has all of them',
  )
  await failing((tensors) => {
    for (const name of tensors.keys()) if (name.startsWith('gating.')) tensors.delete(name)
  }, 'm: missing head tensors "gating.logit_scale", "gating.layers.0.weight", "gating.layers.2.weight", "gating.layers.2.bias" and 14 more; a QRM checkpoint has all of them')
  await failing(
    put('score.weight', [1, 24], new Float32Array(24)),
    'm: unexpected tensor "score.weight"; no part of a QRM checkpoint',
  )
  await failing(
    put('gating.layers.0.bias', [16], new Float32Array(16)),
    'm: unexpected tensor "gating.layers.0.bias"; no part of a QRM checkpoint',
  )
  await failing(put('a\nb', [1], new Float32Array(1)), 'm: unexpected tensor "a\\nb"; no part of a QRM checkpoint')
  await failing(
    put('regression_layer.weight', [14, 24], new Float32Array(14 * 24)),
    'm/model.safetensors: tensor "regression_layer.weight" must be [15, 24], got [14, 24]',
  )
  await failing(
    put('regression_layer.bias', [15, 1], new Float32Array(15)),
    'm/model.safetensors: tensor "regression_layer.bias" must be [15], got [15, 1]',
  )
  await failing(
    put('gating.logit_scale', [], new Float32Array(1)),
    'm/model.safetensors: tensor "gating.logit_scale" must be [1], got []',
  )
  await failing(
    put('reward_transform_matrix', [3, 3], new Int32Array(9), 'I32'),
    'm/model.safetensors: tensor "reward_transform_matrix" must hold floats, got I32',
  )
  await failing(
    put('gating.layers.2.running_mean', [16], new Float32Array(16).fill(Number.NaN, 5, 6)),
    'm/model.safetensors: tensor "gating.layers.2.running_mean" must be finite, got NaN at element 5',
  )
  await failing(
    put('gating.logit_scale', [1], Uint16Array.of(0xff80), 'BF16'),
    'm/model.safetensors: tensor "gating.logit_scale" must be finite, got -Infinity at element 0',
  )
  await failing(
    put('gating.layers.8.running_var', [16], new Float32Array(16).fill(-0.5, 15)),
    'm/model.safetensors: tensor "gating.layers.8.running_var" must not be negative, got -0.5 at element 15',
  )
})

test('refuses impossible counts', async () => {
  const failing = (key: string, value: unknown, message: string) =>
    fails(() => readCheckpoint(changed({ config: (config) => (config[key] = value) })), `m/config.json: ${message}`)
  for (const [value, shown] of [
    [0, '0'],
    [-3, '-3'],
    [1.5, '1.5'],
    [1e9, '1000000000'],
    ['19', '"19"'],
  ] as const) {
    await failing('num_objectives', value, `num_objectives must be a whole number from 1 to 1024, got ${shown}`)
    await failing('num_quantiles', value, `num_quantiles must be a whole number from 1 to 1024, got ${shown}`)
  }
  await failing('num_quantiles', null, 'num_quantiles is missing; scoring needs a QRM model directory')
  await failing('gating_n_hidden', 17, 'gating_n_hidden must be a whole number from 0 to 16, got 17')
  await failing('gating_hidden_dim', 0, 'gating_hidden_dim must be a whole number from 1 to 65536, got 0')
  for (const value of [0, -1, '5']) {
    const shown = JSON.stringify(value)
    await failing('gating_temperature', value, `gating_temperature must be a number above 0, got ${shown}`)
  }
  await fails(() => readCheckpoint(memoryFiles('m', {})), 'm/config.json: is missing; a model directory needs it')
})

test('refuses manifests with unknown keys and impossible values', async () => {
  const failing = (manifest: unknown, message: string) =>
    fails(() => readCheckpoint(changed({ manifest })), `m/pinball.json: ${message}`)
  await failing(
    { lamda: 1 },
    'unknown key "lamda"; the keys are attributes, levels, bos, gate_pattern, mixture, lambda, weights, rewards',
  )
  await failing({ attributes: ['a', 'b'] }, 'attributes must be as many as num_objectives of config.json, 3, got 2')
  await failing({ levels: [0.5] }, 'levels must be as many as num_quantiles of config.json, 5, got 1')
  await failing({ attributes: ['a', 'b', 'a'] }, 'attributes must differ, got "a" twice')
  await failing({ attributes: ['a', ''] }, 'attributes must be names without control characters, got ""')
  await failing({ attributes: {} }, 'attributes must be a list of names, got {}')
  await failing({ levels: [0.1, 0.1] }, 'levels: must increase, got 0.1 after 0.1')
  await failing({ levels: [0.1, 1] }, 'levels: must be between 0 and 1, got 1')
  await failing({ levels: ['0.1'] }, 'levels must be numbers, got "0.1"')
  await failing({ levels: [] }, 'levels must be a list of numbers, got []')
  await failing({ bos: 'two' }, 'bos must be one of template, none, one, got "two"')
  await failing({ mixture: null }, 'mixture must be one of sum, mean, got null')
  await failing({ lambda: '1' }, 'lambda must be a number, got "1"')
  await failing({ lambda: -1 }, 'lambda must be a finite number of at least 0, got -1')
  await failing({ gate_pattern: [] }, 'gate_pattern must be a list of token ids, got []')
  await failing({ gate_pattern: [1.5] }, 'gate_pattern must be token ids, got 1.5')
  await failing([], 'must be a JSON object, got []')
  assert.equal(parseManifest({}, 'x').gatePattern, [128009, 128006, 78191, 128007, 271])
})

test.run()
