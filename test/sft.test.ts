// Supervised fine-tuning: ten steps of AdamW against PyTorch, ways that must agree, resuming, and what is refused.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { joinBytes, memoryFiles, memorySource } from '../src/files/source.ts'
import { memoryTree } from '../src/files/store.ts'
import { newAdapterConfig } from '../src/llama/adapter_config.ts'
import { type Adapter, encodeAdapter } from '../src/llama/adapter_files.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { trainSft } from '../src/train/sft.ts'
import type { SftRow } from '../src/train/sft_rows.ts'
import type { SftEntry } from '../src/train/sft_task.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles, LORA_CASES, loraCase, loraIndex } from './lora_fixture.ts'

const devices = [...(await testDevices()), await openDevice('wasm', { threads: 3 })]
const cpu = devices.find(({ kind }) => kind === 'wasm')!

async function setUp(name: string) {
  const { batch, expected } = await loraCase(name)
  const rows = batch.map(
    ({ tokens, labels }): SftRow => ({
      tokens: Uint32Array.from(tokens as ArrayLike<number>),
      labels: Int32Array.from(labels as ArrayLike<number>),
    }),
  )
  return {
    rows,
    expected,
    model: memoryFiles(name, folderFiles(`${name}/model`)),
    adapter: memoryFiles('adapter', folderFiles(`${name}/adapter`)),
  }
}

/** The settings of the fixtures: one batch of all rows, ten times. */
const { training } = loraIndex()
const SETTINGS = {
  ...{
    lr: training.lr,
    weightDecay: training.weight_decay,
    maxGradNorm: training.max_grad_norm,
    warmup: training.warmup,
  },
  ...{ batch: 5, epochs: 10, shuffle: false, maxLength: 512 },
  schedule: 'cosine',
} as const

async function run(device: Device, name: string, options: Parameters<typeof trainSft>[4] = {}) {
  const { rows, model, adapter } = await setUp(name)
  const entries: SftEntry[] = []
  const onEntry = (entry: object) => entries.push(entry as SftEntry)
  const tuned = await trainSft(device, model, rows, [], { ...SETTINGS, adapter, onEntry, ...options })
  return { entries, tuned }
}

const relative = (actual: number, expected: number) => Math.abs(actual / expected - 1)

/** All matrices of an adapter, one after the other. */
function flat({ layers }: Adapter): number[] {
  return layers.flatMap((layer) => Object.values(layer).flatMap(({ a, b }) => [...a, ...b]))
}

for (const device of devices) {
  for (const name of LORA_CASES) {
    test(`${name}: ten steps are PyTorch's on ${device.description}`, async () => {
      const { expected } = await setUp(name)
      const { entries, tuned } = await run(device, name)
      assert.is(entries.length, 10)
      for (const [i, { loss, grad_norm, learning_rate, step, epoch }] of entries.entries()) {
        assert.equal([step, epoch], [i + 1, i + 1])
        assert.ok(Math.abs(learning_rate - expected.get('rates')![i]) < 1e-15, `rate of step ${i}`)
        assert.ok(
          relative(loss, expected.get('losses')![i]) < 1e-5,
          `loss of step ${i}: ${loss}, ${expected.get('losses')![i]}`,
        )
        assert.ok(relative(grad_norm, expected.get('grad_norms')![i]) < 1e-4, `norm of step ${i}`)
      }
      for (const [l, layer] of tuned.adapter.layers.entries())
        for (const [projection, { a, b }] of Object.entries(layer)) {
          const module = /gate|up|down/.test(projection) ? 'mlp' : 'self_attn'
          const at = `final.base_model.model.model.layers.${l}.${module}.${projection}`
          for (const [part, values] of [
            ['A', a],
            ['B', b],
          ] as const) {
            const wanted = expected.get(`${at}.lora_${part}.weight`)!
            const scale = Math.max(...Array.from(wanted, Math.abs))
            for (const [i, value] of values.entries())
              assert.ok(Math.abs(value - wanted[i]) < 1e-3 * scale, `${at}.${part}[${i}]: ${value}, ${wanted[i]}`)
          }
        }
    })
  }
}

test('a step does not depend on how it is cut, but for rounding; nor on threads, to the bit', async () => {
  const whole = await run(cpu, 'untied', { maxSteps: 3, microBatch: 5 })
  const pieces = await run(cpu, 'untied', { maxSteps: 3, microBatch: 1 })
  for (const [i, { loss, grad_norm, mean_token_accuracy }] of pieces.entries.entries()) {
    assert.ok(relative(loss, whole.entries[i].loss) < 1e-6)
    assert.ok(relative(grad_norm, whole.entries[i].grad_norm) < 1e-5)
    assert.is(mean_token_accuracy, whole.entries[i].mean_token_accuracy)
  }
  const kept = await run(cpu, 'untied', { maxSteps: 3, microBatch: 2 })
  const again = await run(cpu, 'untied', { maxSteps: 3, microBatch: 2, checkpointing: true })
  assert.equal(flat(again.tuned.adapter), flat(kept.tuned.adapter), 'checkpointing')
  const others = await run(devices.at(-1)!, 'untied', { maxSteps: 3, microBatch: 2 })
  assert.equal(flat(others.tuned.adapter), flat(kept.tuned.adapter), 'three threads')
})

test('packed rows do not see each other: loss, gradient and accuracy are those of rows by themselves', async () => {
  for (const device of devices) {
    const apart = await run(device, 'untied', { maxSteps: 2, packing: false, maxLength: 70 })
    const packed = await run(device, 'untied', { maxSteps: 2, packing: true, maxLength: 70 })
    assert.equal([apart.tuned.sequences, packed.tuned.sequences], [5, 2])
    for (const [i, entry] of packed.entries.entries()) {
      const { loss, grad_norm, num_tokens, mean_token_accuracy } = apart.entries[i]
      assert.ok(relative(entry.loss, loss) < 1e-6, `${entry.loss}, ${loss}`)
      assert.ok(relative(entry.grad_norm, grad_norm) < 1e-5)
      assert.equal([entry.num_tokens, entry.mean_token_accuracy], [num_tokens, mean_token_accuracy])
    }
  }
})

test('an interrupt in the middle of a step saves the step before it', async () => {
  const { rows, model } = await setUp('untied')
  const store = memoryTree('middle')
  const options = { ...SETTINGS, rank: 2, alpha: 4, microBatch: 1, batch: 5, epochs: 3, store }
  const controller = new AbortController()
  const seen: number[] = []
  const saved: number[] = []
  await fails(
    () =>
      trainSft(cpu, model, rows, [], {
        ...options,
        signal: controller.signal,
        onSave: (step) => saved.push(step),
        onProgress({ step, done, steps, tokens }) {
          seen.push(done)
          assert.is(steps, 3)
          assert.ok(done >= step && tokens > 0 === done > 0)
          if (done > 1.2) controller.abort(new Error('enough'))
        },
      }),
    /enough/,
  )
  assert.equal(saved, [1])
  assert.ok(seen.some((done) => done > 0 && done < 1) && seen.at(-1)! < 2)
  const resumed = await trainSft(cpu, model, rows, [], options)
  const straight = await trainSft(cpu, model, rows, [], { ...options, store: memoryTree('straight') })
  assert.equal(flat(resumed.adapter), flat(straight.adapter))
})

test('a training that is cut goes on with the same bits', async () => {
  const { rows, model } = await setUp('untied')
  const options = {
    ...SETTINGS,
    rank: 2,
    alpha: 4,
    batch: 2,
    epochs: 3,
    shuffle: true,
    seed: 3,
    saveSteps: 2,
    saveEvery: { steps: 1, seconds: Infinity },
  }
  const through = memoryTree('through')
  const straight = await trainSft(cpu, model, rows, rows.slice(0, 1), { ...options, evalSteps: 2, store: through })
  const store = memoryTree('cut')
  for (let cut = 1; ; cut++) {
    const controller = new AbortController()
    const onProgress = ({ step }: { step: number }) => step >= 2 * cut && controller.abort(new Error('cut'))
    const call = trainSft(cpu, model, rows, rows.slice(0, 1), {
      ...options,
      evalSteps: 2,
      store,
      onProgress,
      signal: controller.signal,
    })
    const tuned = await call.catch((error: Error) => assert.is(error.message, 'cut') as never)
    if (!tuned) continue
    assert.ok(cut > 2, 'it was cut')
    assert.equal(flat(tuned.adapter), flat(straight.adapter))
    break
  }
  const names = (await store.list()).filter((name) => !name.includes('tfevents'))
  assert.equal(names, ['adapter_config.json', 'adapter_model.safetensors', 'log.jsonl', 'training.json'])
  for (const name of names) {
    const [a, b] = await Promise.all([store, through].map(async (from) => (await from.open(name))!))
    assert.equal(await a.read(0, a.byteLength), await b.read(0, b.byteLength), name)
  }
  assert.equal(await store.folders(), ['checkpoint-4', 'checkpoint-6', 'checkpoint-8'])
  const done = await trainSft(cpu, model, rows, rows.slice(0, 1), { ...options, evalSteps: 2, store })
  assert.is(done.finished, true)
  await fails(
    () => trainSft(cpu, model, rows, rows.slice(0, 1), { ...options, evalSteps: 2, lr: 1, store }),
    /training\.json: holds a training with --lr 0\.01, now it is 1/,
  )
})

test('what cannot be trained is refused', async () => {
  const { rows, model } = await setUp('untied')
  await fails(() => trainSft(cpu, model, [], []), /there are no rows/)
  const { 'model.safetensors': _, ...headless } = folderFiles('reward/model')
  await fails(
    () =>
      trainSft(
        cpu,
        memoryFiles('m', { ...headless, 'model.safetensors': folderFiles('reward/model')['model.safetensors'] }),
        rows,
      ),
    /lm_head\.weight is missing/,
  )
  await fails(
    () => trainSft(cpu, model, rows, [], { ...SETTINGS, batch: 5, lr: 1e6, rank: 2, warmup: 0 }),
    /must be finite/,
  )
  // A first token attends to nothing but itself: what its query and key get is rounding.
  const short = [3, 5, 7].map((id): SftRow => ({ tokens: Uint32Array.of(id, 9), labels: Int32Array.of(-100, 9) }))
  const train = (some: SftRow[], options: object = {}) =>
    trainSft(cpu, model, some, [], { ...SETTINGS, rank: 2, ...options })
  await fails(
    () => train(short),
    /the gradient of layers\.0\.self_attn\.q_proj\.lora_B is zero after the first step; .*: only first tokens of rows/,
  )
  assert.is((await train(short, { targets: ['v_proj', 'up_proj'], maxSteps: 1 })).steps, 1)
  const longer = { tokens: Uint32Array.of(4, 6, 8), labels: Int32Array.of(-100, -100, 8) }
  assert.is((await train([...short, longer], { maxSteps: 1 })).steps, 1)
})

test('an adapter that could not be written is refused before anything is trained', async () => {
  const { rows, model } = await setUp('untied')
  const sizes = parseLlamaConfig(JSON.parse(new TextDecoder().decode(folderFiles('untied/model')['config.json'])), 'm')
  const recipe = newAdapterConfig({ task: 'CAUSAL_LM', rank: 2, alpha: 4, targets: ['q_proj'], dropout: 0 })
  const [config, weights] = encodeAdapter(startAdapter(recipe, sizes, 0), sizes).map(({ chunks }) => joinBytes(chunks))
  const { tensors } = await openSafetensors(memorySource('m', weights))
  const own: TensorData[] = []
  for (const info of tensors.values()) {
    const name = info.name.replace('base_model.model.model.', 'base_model.model.')
    own.push({ name, dtype: 'F32', shape: info.shape, data: await readTensorF32(info) })
  }
  /** An adapter over LlamaModel, whose modules are named by a regular expression for whole paths. */
  const bare = (targets: string) => {
    const json = { ...JSON.parse(new TextDecoder().decode(config)), task_type: 'FEATURE_EXTRACTION' }
    return memoryFiles('bare', {
      'adapter_config.json': new TextEncoder().encode(JSON.stringify({ ...json, target_modules: targets })),
      'adapter_model.safetensors': joinBytes(encodeSafetensors(own)),
    })
  }
  const store = memoryTree('out')
  const train = (targets: string) =>
    trainSft(cpu, model, rows, [], { ...SETTINGS, maxSteps: 1, adapter: bare(targets), store })
  await fails(
    () => train('layers\\.\\d+\\.self_attn\\.q_proj'),
    /target_modules .* names no projection .*; it is written for a causal model, where the paths of modules begin with "model\."/,
  )
  assert.equal(await store.list(), [])
  assert.is((await train('.*layers\\.\\d+\\.self_attn\\.q_proj')).steps, 1)
})

test('an interrupt in an evaluation saves its step, and the evaluation is made anew', async () => {
  const { rows, model } = await setUp('untied')
  const options = { ...SETTINGS, rank: 2, alpha: 4, batch: 2, epochs: 1, evalSteps: 1 }
  const straight = memoryTree('straight')
  await trainSft(cpu, model, rows, rows, { ...options, store: straight })
  const store = memoryTree('cut')
  const controller = new AbortController()
  const saved: number[] = []
  const entries: object[] = []
  const stopped = trainSft(cpu, model, rows, rows, {
    ...{ ...options, store, signal: controller.signal, onSave: (step: number) => saved.push(step) },
    onEntry(entry) {
      entries.push(entry)
      if ('loss' in entry && (entry as SftEntry).step === 2) controller.abort(new Error('enough'))
    },
  })
  await fails(() => stopped, /enough/)
  assert.equal([saved, entries.length], [[2], 3])
  await trainSft(cpu, model, rows, rows, { ...options, store })
  for (const name of await straight.list()) {
    const [a, b] = await Promise.all([store, straight].map(async (from) => (await from.open(name))!))
    // Events have times.
    if (name.includes('tfevents')) assert.is(a.byteLength, b.byteLength)
    else assert.equal(await a.read(0, a.byteLength), await b.read(0, b.byteLength), name)
  }
})

test('devices close', async () => {
  await devices.at(-1)!.destroy()
  await closeDevices()
})

test.run()
