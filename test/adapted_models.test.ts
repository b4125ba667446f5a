// Adapters over loaded models: outputs of PyTorch, swaps without reloading, heads of classifiers, fingerprints, the options --adapter.
import { readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDirectory } from '../src/files/disk.ts'
import { recordsOf } from '../src/files/records.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles, memorySource } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import { newAdapterConfig } from '../src/llama/adapter_config.ts'
import { type Adapter, encodeAdapter, readAdapter } from '../src/llama/adapter_files.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { mergeAdapter } from '../src/llama/merge.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { openModelDirectory } from '../src/reward/directory.ts'
import { makeFeatures } from '../src/reward/feature_files/make.ts'
import { readFeatureRows } from '../src/reward/feature_files/rows.ts'
import { loadFeatureModel } from '../src/reward/features.ts'
import { fingerprintOf } from '../src/reward/fingerprint.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { fails } from './assert.ts'
import { lines, openWorkplace, qrm, root, WASM, type Workplace } from './command.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles, LORA_CASES, LORA_FOLDER, readArrays } from './lora_fixture.ts'
import { random } from './random.ts'

const devices = await testDevices()
const cpu = devices.find(({ kind }) => kind === 'wasm')!
const folder = (path: string) => memoryFiles(path, folderFiles(path))
const expected = await readArrays(new URL('reward/expected.safetensors', LORA_FOLDER))
/** Chosen responses, then rejected ones, and what PyTorch gives for them. */
const rows = ['chosen', 'rejected'].flatMap((side) =>
  Array.from({ length: 5 }, (_, i) => ({ input_ids: Array.from(expected.get(`${side}_${i}`)!) })),
)
const scores = expected.get('scores')!
const json = (files: Record<string, Uint8Array>, name: string) =>
  JSON.parse(new TextDecoder().decode(files[name])) as Record<string, unknown>
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

async function tensorsOf(file: Uint8Array): Promise<TensorData[]> {
  const { tensors } = await openSafetensors(memorySource('file', file))
  const all: TensorData[] = []
  for (const { name, shape, dtype } of tensors.values()) {
    assert.is(dtype, 'F32')
    all.push({ name, dtype, shape, data: await readTensorF32(tensors.get(name)!) })
  }
  return all
}

/** The reward fixture's base as a causal model: no head of its own. */
async function causalBase(): Promise<ModelFiles> {
  const files = folderFiles('reward/model')
  const tensors = (await tensorsOf(files['model.safetensors'])).filter(({ name }) => name !== 'score.weight')
  const { num_labels: _, ...config } = json(files, 'config.json')
  return memoryFiles('causal', {
    'config.json': bytes({ ...config, architectures: ['LlamaForCausalLM'] }),
    'model.safetensors': Buffer.concat(encodeSafetensors(tensors, {})),
  })
}

/** Of a model of F32 with sums of up to 64 terms: relative to the largest output. */
const LIMIT = 1e-5

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
})
test.after(async () => {
  await place.remove()
  await closeDevices()
})

for (const device of devices) {
  for (const name of LORA_CASES) {
    test(`${name}: log-probabilities under the adapter are PyTorch's on ${device.description}`, async () => {
      const found = await readArrays(new URL(`${name}/expected.safetensors`, LORA_FOLDER))
      const files = folder(`${name}/model`)
      const llama = await loadLlama(device, files, { adapter: folder(`${name}/adapter`) })
      const directory = await openModelDirectory(files)
      const output = await openOutputLayer(device, llama.config, outputInfo(directory.tensors, llama.config)!)
      const sequences = Array.from({ length: 5 }, (_, i) => Uint32Array.from(found.get(`tokens_${i}`)!))
      const before = sequences.map(({ length }) => Array.from({ length: length - 1 }, (_, t) => t))
      const states = await llama.states(sequences, before)
      const measured = await output.measure(
        states.x,
        Uint32Array.from(sequences.flatMap((own) => [...own.subarray(1)])),
      )
      const wanted = sequences.flatMap((_, i) => [...found.get(`logprobs_${i}`)!])
      for (const [i, value] of measured.logprobs.entries())
        assert.ok(Math.abs(value - wanted[i]) < 1e-4 * Math.max(1, Math.abs(wanted[i])), `${i}: ${value}, ${wanted[i]}`)
      for (const thing of [measured, states, output, llama]) thing.destroy()
      await directory.close()
    })
  }

  test(`scores of a classifier's adapter are PyTorch's, over either base, on ${device.description}`, async () => {
    for (const base of [folder('reward/model'), await causalBase()]) {
      const model = await loadRewardModel(device, base, { adapter: folder('reward/adapter') })
      assert.equal([model.attributes, model.levels, model.calibrated], [['reward'], [0.5], false])
      const found = (await model.score(rows)).map(({ score }) => score)
      for (const [i, score] of found.entries()) assert.ok(Math.abs(score - scores[i]) < 1e-5, `${score}, ${scores[i]}`)
      await model.destroy()
    }
  })
}

/** The adapter with B = 0 and no head. */
function emptied({ config, layers, ...rest }: Adapter): Adapter {
  const zero = layers.map((layer) =>
    Object.fromEntries(Object.entries(layer).map(([key, map]) => [key, { ...map, b: new Float32Array(map.b.length) }])),
  )
  const plain = { ...config.json, task_type: 'CAUSAL_LM', modules_to_save: null }
  return { ...rest, config: { ...config, task: 'CAUSAL_LM', saved: [], json: plain }, layers: zero, score: null }
}

const encoded = (adapter: Adapter, config: Parameters<typeof encodeAdapter>[1]) =>
  memoryFiles(
    'made',
    Object.fromEntries(encodeAdapter(adapter, config).map(({ file, chunks }) => [file, Buffer.concat(chunks)])),
  )

test('adapters are swapped without reloading; one with B = 0 is the base, to the bit', async () => {
  for (const device of devices) {
    const plain = await loadRewardModel(device, folder('reward/model'))
    const { config } = plain
    const scoresOf = async () => (await plain.score(rows)).map(({ score }) => score)
    const base = await scoresOf()
    const adapter = folder('reward/adapter')
    const nothing = encoded(emptied(await readAdapter(adapter, config)), config)
    await plain.adapter(nothing)
    assert.equal(await scoresOf(), base, device.name)
    await plain.adapter(adapter)
    const adapted = await scoresOf()
    for (const [i, score] of adapted.entries()) assert.ok(Math.abs(score - scores[i]) < 1e-5)
    // A call keeps the adapter that it began with, over several batches.
    const small = await loadRewardModel(device, folder('reward/model'), { batchTokens: 8, adapter })
    const going = small.score(rows)
    await small.adapter(null)
    const after = small.score(rows)
    assert.equal(
      (await going).map(({ score }) => score),
      adapted,
    )
    assert.equal(
      (await after).map(({ score }) => score),
      base,
    )
    await fails(() => small.adapter(folder('odd/adapter')), /must be \[2, 32\]|missing|not asked for/)
    assert.equal(
      (await small.score(rows)).map(({ score }) => score),
      base,
      'nothing has changed',
    )
    for (const model of [plain, small]) await model.destroy()
    await fails(() => small.score(rows), /has been destroyed/)
  }
})

test('nothing is left on the device of adapters that were replaced', async () => {
  const model = await loadFeatureModel(cpu, folder('untied/model'))
  const before = cpu.statistics().tensors
  for (let i = 0; i < 3; i++) await model.adapter(folder('untied/adapter'))
  await model.adapter(null)
  assert.is(cpu.statistics().tensors, before)
  await model.adapter(folder('untied/adapter'))
  await model.destroy()
})

test('features under the adapter are those of the merged model, within rounding', async () => {
  for (const name of ['untied', 'odd', 'q8_0', 'reward']) {
    const [base, adapter] = [folder(`${name}/model`), folder(`${name}/adapter`)]
    const merged = memoryStore('merged')
    await mergeAdapter(base, adapter, merged)
    const states = async (files: ModelFiles, own: ModelFiles | null) => {
      const model = await loadFeatureModel(cpu, files, { adapter: own })
      const { embeddings } = await model.features(
        rows.map((row) => ({ input_ids: row.input_ids.map((id) => id % 131) })),
      )
      await model.destroy()
      return embeddings
    }
    const [mine, theirs, without] = [await states(base, adapter), await states(merged, null), await states(base, null)]
    const scale = Math.max(...mine.map(Math.abs))
    const off = (other: Float32Array) => Math.max(...mine.map((value, i) => Math.abs(value - other[i])))
    assert.ok(off(theirs) < LIMIT * scale, `${name}: ${off(theirs)}`)
    assert.ok(off(without) > 0.05 * scale, 'the adapter does something')
  }
})

test('a calibration does not hold under an adapter, and the gate reads adapted states', async () => {
  const files = await openDirectory(`${root}/models/nano`)
  const model = await loadRewardModel(cpu, files)
  const plain = await loadRewardModel(cpu, files, { calibration: false })
  assert.is(model.calibrated, true)
  const config = newAdapterConfig({ task: 'CAUSAL_LM', rank: 2, alpha: 4, targets: ['q_proj'] })
  const row = [{ prompt: 'How was it?', response: 'A delight.' }]
  await model.adapter(encoded(startAdapter(config, model.config, 1), model.config))
  assert.is(model.calibrated, false)
  assert.equal(await model.score(row), await plain.score(row), 'B = 0')
  await model.adapter(null)
  assert.is(model.calibrated, true)
  for (const one of [model, plain]) await one.destroy()
})

test('adapters that cannot score are refused, with the model, the adapter and what is there', async () => {
  const files = folderFiles('reward/adapter')
  const tensors = await tensorsOf(files['adapter_model.safetensors'])
  const two = tensors.map((one) =>
    one.name.endsWith('score.weight') ? { ...one, shape: [2, 32], data: new Float32Array(64) } : one,
  )
  const wide = memoryFiles('wide', { ...files, 'adapter_model.safetensors': Buffer.concat(encodeSafetensors(two, {})) })
  await fails(
    () => loadRewardModel(cpu, folder('reward/model'), { adapter: wide }),
    /score head of 2 labels; a reward model has one/,
  )
  await fails(
    () => loadRewardModel(cpu, folder('untied/model'), { adapter: folder('untied/adapter') }),
    /num_objectives is missing/,
  )
  // Quantile heads, and a score head beside them.
  const heads = await openDirectory(qrm)
  const config = parseLlamaConfig(JSON.parse(readFileSync(`${qrm}/config.json`, 'utf8')), 'config.json')
  const score = newAdapterConfig({ task: 'SEQ_CLS', rank: 2, alpha: 4, targets: ['q_proj'] })
  await fails(
    () => loadRewardModel(cpu, heads, { adapter: encoded(startAdapter(score, config, 1), config) }),
    /has heads of its own \("[^"]+"\), which the score head of made.* cannot stand beside/,
  )
  const model = await loadRewardModel(cpu, await causalBase(), { adapter: folder('reward/adapter') })
  await fails(() => model.adapter(null), /num_objectives is missing/)
  assert.is((await model.score(rows)).length, rows.length)
  await model.destroy()
})

test('a file of features is made under the adapter that the model has when it begins', async () => {
  const model = await loadFeatureModel(cpu, folder('untied/model'), { adapter: folder('untied/adapter') })
  const draw = random(4)
  // Two chunks, one after the other.
  const many = Array.from({ length: 1100 }, () => ({ input_ids: [...draw.integers(3, 0, 131)], kind: 1 }))
  const read = await readFeatureRows(recordsOf(many), { labels: ['kind'] })
  const make = async (change: boolean) => {
    const store = memoryStore('out')
    let changed: Promise<void> | null = null
    const { manifest } = await makeFeatures(model, read, {
      ...{ store, file: 'f.safetensors' },
      onProgress({ done }) {
        if (change && done > 0) changed ??= model.adapter(null)
      },
    })
    assert.is(changed !== null, change)
    await changed
    const source = (await store.open('f.safetensors'))!
    return { fingerprint: manifest.fingerprint, bytes: await source.read(0, source.byteLength) }
  }
  const straight = await make(false)
  assert.equal(await make(true), straight)
  // And then it is off.
  const plain = await make(false)
  assert.is.not(plain.fingerprint, straight.fingerprint)
  assert.is.not(Buffer.compare(plain.bytes, straight.bytes), 0)
  await model.destroy()
})

test('the fingerprint is of model and adapter, loaded or not', async () => {
  const [base, adapter] = [folder('untied/model'), folder('untied/adapter')]
  const model = await loadFeatureModel(cpu, base, { adapter })
  const own = await model.fingerprint()
  assert.is(own, await fingerprintOf(base, adapter))
  assert.match(own, /^[0-9a-f]{64}$/)
  await model.adapter(null)
  const plain = await model.fingerprint()
  assert.is(plain, await fingerprintOf(base, null))
  assert.is.not(own, plain)
  // One number of one matrix.
  const files = folderFiles('untied/adapter')
  const tensors = await tensorsOf(files['adapter_model.safetensors'])
  ;(tensors[0].data as Float32Array)[0] += 1
  const other = Buffer.concat(encodeSafetensors(tensors, {}))
  await model.adapter(memoryFiles('other', { ...files, 'adapter_model.safetensors': other }))
  assert.is.not(await model.fingerprint(), own)
  await model.destroy()
})

test('--adapter: score, features and eval', async () => {
  const at = (part: string) => new URL(`reward/${part}`, LORA_FOLDER).pathname
  const both = ['--model', at('model'), '--adapter', at('adapter'), ...WASM]
  await place.file('rows.jsonl', lines(...rows))
  const { out, err } = await place.pinball(['score', ...both, '--input', 'rows.jsonl', '--json'])
  const found = JSON.parse(out || '{}')
  assert.is(err, '')
  assert.is(found.adapter, at('adapter'))
  for (const [i, { score }] of found.results.entries()) assert.ok(Math.abs(score - scores[i]) < 1e-5)

  const features = (...more: string[]) =>
    place.pinball([
      'features',
      '--model',
      at('model'),
      ...WASM,
      '--input',
      'rows.jsonl',
      '--out',
      'f.safetensors',
      '--json',
      ...more,
    ])
  const first = JSON.parse((await features('--adapter', at('adapter'))).out)
  assert.ok(first.skipped === 0)
  assert.match((await features('--adapter', at('adapter'))).err, /f\.safetensors is there, made of the same/)
  const plain = await features()
  assert.not.match(plain.err, /is there/, 'features under an adapter are none of the base')
  assert.match((await features()).err, /is there/)

  // The embedded model under an adapter that says something, against itself without it.
  const nano = `${root}/models/nano`
  const base = parseLlamaConfig(JSON.parse(readFileSync(`${nano}/config.json`, 'utf8')), 'config.json')
  const started = startAdapter(newAdapterConfig({ task: 'CAUSAL_LM', rank: 2, alpha: 4, targets: ['v_proj'] }), base, 1)
  for (const layer of started.layers) layer.v_proj!.b.fill(0.05)
  await mkdir(join(place.folder, 'own'))
  for (const { file, chunks } of encodeAdapter(started, base))
    await writeFile(join(place.folder, 'own', file), Buffer.concat(chunks))
  const pair = { prompt: 'How was it?', chosen: 'A delight.', rejected: 'Dull.' }
  await place.file('pairs.jsonl', lines(pair, { ...pair, chosen: 'Good.' }))
  const evaluation = ['eval', '--suite', 'pairs', '--data', 'pairs.jsonl', ...WASM, '--json']
  const compared = await place.pinball([...evaluation, '--adapter', 'own', '--compare', nano, '--outputs', 'with'])
  const document = JSON.parse(compared.out)
  assert.is(document.adapter, 'own')
  assert.is(document.comparison.rows, 2)
  await place.pinball([...evaluation, '--outputs', 'without'])
  const outputs = (name: string) => readFileSync(join(place.folder, name), 'utf8')
  assert.is.not(outputs('with'), outputs('without'))
  await place.refused(
    ['eval', '--suite', 'pairs', '--features', 'f.safetensors', '--adapter', at('adapter'), ...WASM],
    /^pinball: --adapter: goes with --data only/,
    2,
  )
  await place.refused(
    ['score', '--model', at('model'), '--adapter', 'nowhere', ...WASM, '--input', 'rows.jsonl'],
    'nowhere: no such directory',
  )
  await place.refused(
    ['features', '--adapter', '.', '--input', 'rows.jsonl', '--out', 'rows.jsonl'],
    /^pinball: --out: must not be what/,
    2,
  )
})

test.run()
