// Fine-tuning of reward models: ten steps of AdamW against PyTorch, ways that must agree, resuming, files, and what is refused.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { memoryFiles } from '../src/files/source.ts'
import { memoryTree, type StoreTree } from '../src/files/store.ts'
import type { Adapter } from '../src/llama/adapter_files.ts'
import { mergeAdapter } from '../src/llama/merge.ts'
import { assemble } from '../src/reward/assemble.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { startScore } from '../src/train/adapter_start.ts'
import { type TunedQuantiles, trainQuantileModel } from '../src/train/quantile_model.ts'
import { trainRewardModel } from '../src/train/reward_model.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles } from './lora_fixture.ts'
import { random } from './random.ts'
import { rated, rewardCase, SETTINGS } from './reward_fixture.ts'

const devices = [...(await testDevices()), await openDevice('wasm', { threads: 3 })]
const cpu = devices.find(({ kind }) => kind === 'wasm')!
const model = memoryFiles('reward', folderFiles('reward/model'))
const adapter = memoryFiles('adapter', folderFiles('reward/adapter'))
/** A causal model of the same sizes, without a score head. */
const causal = memoryFiles('untied', folderFiles('untied/model'))

interface Entry {
  readonly step: number
  readonly epoch: number
  readonly loss: number
  readonly accuracy: number
  readonly margin: number
  readonly mean_reward: number
  readonly min_reward: number
  readonly max_reward: number
  readonly grad_norm: number
  readonly learning_rate: number
  readonly num_tokens: number
}

async function run(device: Device, options: Parameters<typeof trainRewardModel>[4] = {}) {
  const { pairs } = await rewardCase()
  const entries: Entry[] = []
  const onEntry = (entry: object) => 'loss' in entry && entries.push(entry as Entry)
  const tuned = await trainRewardModel(device, model, pairs, [], { ...SETTINGS, adapter, onEntry, ...options })
  return { entries, tuned }
}

const relative = (actual: number, expected: number) => Math.abs(actual / expected - 1)

/** All numbers of an adapter, one after the other. */
function flat({ layers, score }: Adapter): number[] {
  return [
    ...layers.flatMap((layer) => Object.values(layer).flatMap(({ a, b }) => [...a, ...b])),
    ...(score?.weight ?? []),
  ]
}

for (const device of devices) {
  test(`ten steps are PyTorch's on ${device.description}`, async () => {
    const { expected, pairs } = await rewardCase()
    const { entries, tuned } = await run(device)
    assert.is(entries.length, 10)
    const scores = Array.from(expected.get('scores')!)
    const [first] = entries
    const half = pairs.length
    const differences = pairs.map((_, i) => scores[i] - scores[half + i])
    const mean = (values: ArrayLike<number>) =>
      Array.from(values).reduce((sum, value) => sum + value, 0) / values.length
    assert.is(first.accuracy, differences.filter((value) => value > 0).length / half)
    for (const [found, wanted] of [
      [first.margin, mean(differences)],
      [first.mean_reward, mean(scores)],
      [first.min_reward, Math.min(...scores)],
      [first.max_reward, Math.max(...scores)],
    ])
      assert.ok(Math.abs(found - wanted) < 1e-5, `${found}, ${wanted}`)
    const tokens = pairs.reduce((sum, { chosen, rejected }) => sum + chosen.length + rejected.length, 0)
    for (const [i, { loss, grad_norm, learning_rate, step, epoch, num_tokens }] of entries.entries()) {
      assert.equal([step, epoch, num_tokens], [i + 1, i + 1, (i + 1) * tokens])
      assert.ok(Math.abs(learning_rate - expected.get('rates')![i]) < 1e-15, `rate of step ${i}`)
      const wanted = expected.get('losses')![i]
      assert.ok(relative(loss, wanted) < 1e-5, `loss of step ${i}: ${loss}, ${wanted}`)
      assert.ok(relative(grad_norm, expected.get('grad_norms')![i]) < 1e-4, `norm of step ${i}`)
    }
    const { layers, score } = tuned.adapter!
    const near = (name: string, values: Float32Array) => {
      const wanted = expected.get(`final.base_model.model.${name}`)!
      const scale = Math.max(...Array.from(wanted, Math.abs))
      for (const [i, value] of values.entries())
        assert.ok(Math.abs(value - wanted[i]) < 1e-3 * scale, `${name}[${i}]: ${value}, ${wanted[i]}`)
    }
    near('score.weight', score!.weight)
    for (const [l, layer] of layers.entries())
      for (const [projection, { a, b }] of Object.entries(layer)) {
        const at = `model.layers.${l}.${/gate|up|down/.test(projection) ? 'mlp' : 'self_attn'}.${projection}`
        near(`${at}.lora_A.weight`, a)
        near(`${at}.lora_B.weight`, b)
      }
  })
}

test('a step does not depend on how it is cut or shared, but for rounding; nor on checkpointing and threads, to the bit', async () => {
  const whole = await run(cpu, { maxSteps: 3, microBatch: 5 })
  for (const options of [{ microBatch: 1 }, { share: false, microBatch: 5 }]) {
    const other = await run(cpu, { maxSteps: 3, ...options })
    for (const [i, { loss, grad_norm, accuracy }] of other.entries.entries()) {
      assert.ok(relative(loss, whole.entries[i].loss) < 1e-6)
      assert.ok(relative(grad_norm, whole.entries[i].grad_norm) < 1e-5)
      assert.is(accuracy, whole.entries[i].accuracy)
    }
  }
  const again = await run(cpu, { maxSteps: 3, microBatch: 5, checkpointing: true })
  assert.equal(flat(again.tuned.adapter!), flat(whole.tuned.adapter!), 'checkpointing')
  const others = await run(devices.at(-1)!, { maxSteps: 3, microBatch: 5 })
  assert.equal(flat(others.tuned.adapter!), flat(whole.tuned.adapter!), 'three threads')
})

const LEARN = { ...SETTINGS, rank: 2, alpha: 4, batch: 2, epochs: 3, shuffle: true, seed: 3, warmup: 0 }
const KEEP = { saveSteps: 2, evalSteps: 2, saveEvery: { steps: 1, seconds: Infinity } }

/** Trains with a cut after every second step until it is done, and compares all files with those of an uninterrupted training. */
async function compareCut<T>(
  train: (options: { readonly store: StoreTree } & Record<string, unknown>) => Promise<T>,
  names: readonly string[],
): Promise<{ readonly store: StoreTree; readonly tuned: T }> {
  const through = memoryTree('through')
  const straight = await train({ ...LEARN, ...KEEP, store: through })
  const store = memoryTree('cut')
  for (let cut = 1; ; cut++) {
    const controller = new AbortController()
    const onProgress = ({ step }: { step: number }) => step >= 2 * cut && controller.abort(new Error('cut'))
    const done = await train({ ...LEARN, ...KEEP, store, onProgress, signal: controller.signal }).catch(
      (error: Error) => {
        assert.is(error.message, 'cut')
        return null
      },
    )
    if (done === null) continue
    assert.ok(cut > 2, 'it was cut')
    break
  }
  const found = (await store.list()).filter((name) => !name.includes('tfevents'))
  assert.equal(found, [...names].sort())
  for (const name of names) {
    const [a, b] = await Promise.all([store, through].map(async (from) => (await from.open(name))!))
    assert.equal(await a.read(0, a.byteLength), await b.read(0, b.byteLength), name)
  }
  assert.equal(await store.folders(), ['checkpoint-4', 'checkpoint-6', 'checkpoint-8'])
  return { store, tuned: straight }
}

const LOGS = ['log.jsonl', 'training.json']
const ADAPTER = ['adapter_config.json', 'adapter_model.safetensors']

test('a training that is cut goes on with the same bits, and its adapter scores as what it was trained to', async () => {
  const { pairs } = await rewardCase()
  const train = (options: Parameters<typeof trainRewardModel>[4]) =>
    trainRewardModel(cpu, causal, pairs, pairs.slice(0, 2), options)
  const { store, tuned } = await compareCut(train, [...ADAPTER, ...LOGS])
  const done = await train({ ...LEARN, ...KEEP, store })
  assert.equal([done.finished, flat(done.adapter!)], [true, flat(tuned.adapter!)])
  assert.is(done.eval_accuracy, tuned.eval_accuracy)
  await fails(
    () => train({ ...LEARN, ...KEEP, store, center: 0 }),
    /training\.json: holds a training with --center 0\.01, now it is 0/,
  )
  // Anew with other settings: checkpoints of the other training go.
  await train({ ...LEARN, ...KEEP, store, saveSteps: 0, center: 0, restart: true })
  assert.equal(await store.folders(), [])
})

test('a merged training gives the classifier that the adapter makes of its base, and it scores', async () => {
  const { pairs } = await rewardCase()
  const train = (options: Parameters<typeof trainRewardModel>[4]) =>
    trainRewardModel(cpu, causal, pairs, pairs.slice(0, 2), { ...options, merge: true })
  const { store } = await compareCut(train, ['config.json', 'model.safetensors', ...LOGS])
  const { config, log } = await texts(store)
  assert.equal([config.architectures, config.num_labels], [['LlamaForSequenceClassification'], 1])
  const scorer = await loadRewardModel(cpu, store)
  const rows = pairs.slice(0, 2).flatMap(({ chosen, rejected }) => [{ input_ids: chosen }, { input_ids: rejected }])
  const [a, b, c, d] = (await scorer.score(rows)).map(({ score }) => score)
  await scorer.destroy()
  // Merging rounds once: to f32 here.
  const evaluation = log.filter((line) => 'eval_margin' in line).at(-1)!
  assert.ok(Math.abs(evaluation.eval_margin - (a - b + c - d) / 2) < 1e-5)
  assert.is(evaluation.eval_accuracy, (Number(a > b) + Number(c > d)) / 2)
  const done = await train({ ...LEARN, ...KEEP, store })
  assert.equal([done.finished, done.adapter], [true, null])
})

/** What a store holds as texts. */
async function texts(store: StoreTree) {
  const read = async (file: string) => {
    const source = (await store.open(file))!
    return new TextDecoder().decode(await source.read(0, source.byteLength))
  }
  const log = (await read('log.jsonl')).trim().split('\n')
  return {
    config: JSON.parse(await read('config.json')) as Record<string, unknown>,
    log: log.map((line) => JSON.parse(line) as Record<string, number>),
  }
}

test('the head begins as the adapter has it, else the model, else at random; an adapter of a causal model gets one', async () => {
  const { model: reference, pairs } = await rewardCase()
  // The first step of a warm-up changes nothing.
  const still = { ...LEARN, maxSteps: 1, warmup: 1 }
  const headOf = async (files: typeof model, options: object) => {
    const { adapter: found } = await trainRewardModel(cpu, files, pairs, [], { ...still, ...options })
    assert.is(found!.config.task, 'SEQ_CLS')
    return [...found!.score!.weight]
  }
  const own = [...(reference.weights.get('score.weight') as Float32Array)]
  assert.equal(await headOf(model, {}), own)
  const store = memoryTree('trained')
  const { adapter: trained } = await trainRewardModel(cpu, model, pairs, [], { ...LEARN, store })
  const given = [...trained!.score!.weight]
  assert.not.equal(own, given)
  assert.equal(await headOf(model, { adapter: store }), given)
  const fresh = [...startScore(own.length, LEARN.seed)]
  assert.equal(await headOf(causal, {}), fresh)
  assert.equal(await headOf(causal, { adapter: memoryFiles('sft', folderFiles('untied/adapter')) }), fresh)
})

test('a micro-batch counts a prompt once, as it is computed; the log counts it for both sides', async () => {
  const draw = random(5)
  const ids = (count: number) => draw.integers(count, 0, 131)
  const pairs = [0, 1].map(() => {
    const prompt = ids(390)
    const [chosen, rejected] = [0, 1].map(() => Uint32Array.from([...prompt, ...ids(10)]))
    return { chosen, rejected, margin: 0 }
  })
  // 820 tokens are computed, of 1,600; a micro-batch has up to 1,024.
  for (const [share, pieces] of [
    [true, [0, 1]],
    [false, [0, 0.5, 1]],
  ] as const) {
    const seen = new Set<number>()
    const onProgress = ({ done }: { readonly done: number }) => seen.add(done)
    const tuned = await trainRewardModel(cpu, causal, pairs, [], { ...LEARN, epochs: 1, share, onProgress })
    assert.equal([[...seen], tuned.num_tokens], [pieces, 1600])
  }
})

test('an interrupt in an evaluation saves its step, and the evaluation is made anew', async () => {
  const { pairs } = await rewardCase()
  const options = { ...LEARN, epochs: 1, evalSteps: 1 }
  const straight = memoryTree('straight')
  await trainRewardModel(cpu, causal, pairs, pairs, { ...options, store: straight })
  const store = memoryTree('cut')
  const controller = new AbortController()
  const saved: number[] = []
  const entries: object[] = []
  const stopped = trainRewardModel(cpu, causal, pairs, pairs, {
    ...{ ...options, store, signal: controller.signal, onSave: (step: number) => saved.push(step) },
    onEntry(entry) {
      entries.push(entry)
      if ('loss' in entry && (entry as Entry).step === 2) controller.abort(new Error('enough'))
    },
  })
  await fails(() => stopped, /enough/)
  // Two steps and the evaluation of the first.
  assert.equal([saved, entries.length], [[2], 3])
  await trainRewardModel(cpu, causal, pairs, pairs, { ...options, store })
  for (const name of ['log.jsonl', 'adapter_model.safetensors']) {
    const [a, b] = await Promise.all([store, straight].map(async (from) => (await from.open(name))!))
    assert.equal(await a.read(0, a.byteLength), await b.read(0, b.byteLength), name)
  }
})

const LEVELS = [0.1, 0.5, 0.9]

test('quantile heads: cut and uncut are the same, losses fall, and merge and assemble make a model of the files', async () => {
  const { pairs } = await rewardCase()
  const rows = rated(pairs)
  const train = (options: object): Promise<TunedQuantiles> =>
    trainQuantileModel(cpu, causal, rows, rows.slice(0, 2), {
      ...{ attributes: ['kind', 'clear'], levels: LEVELS, intercept: true },
      ...options,
    })
  const names = [...ADAPTER, 'heads.safetensors', 'config.json', 'pinball.json', 'model.safetensors', ...LOGS]
  const { store, tuned } = await compareCut(train, names)
  const done = await train({ ...LEARN, ...KEEP, store })
  assert.equal([done.finished, done.heads.attributes, done.heads.levels], [true, ['kind', 'clear'], LEVELS])
  assert.equal([...done.heads.weight], [...tuned.heads.weight])
  assert.equal([...done.heads.bias!], [...tuned.heads.bias!])
  const { log } = await texts(store)
  const losses = log.flatMap(({ loss }) => loss ?? [])
  assert.ok(losses.at(-1)! < 0.8 * losses[0], `${losses}`)

  const merged = memoryTree('merged')
  await mergeAdapter(causal, store, merged)
  const whole = memoryTree('whole')
  await assemble(merged, store, whole)
  const scorer = await loadRewardModel(cpu, whole)
  const scores = await scorer.score(rows.slice(0, 2).map(({ tokens }) => ({ input_ids: tokens })))
  assert.equal([scorer.attributes, scorer.levels], [['kind', 'clear'], LEVELS])
  await scorer.destroy()
  let [loss, count] = [0, 0]
  for (const [i, { ratings }] of rows.slice(0, 2).entries())
    for (const [m, values] of ratings.entries())
      for (const y of values) {
        count++
        for (const [k, level] of LEVELS.entries()) {
          const u = y - scores[i].attributes[['kind', 'clear'][m]].quantiles[k]
          loss += Math.max(level * u, (level - 1) * u) / LEVELS.length
        }
      }
  assert.ok(Math.abs(loss / count - log.filter((line) => 'eval_loss' in line).at(-1)!.eval_loss) < 1e-5)

  // From these heads, and from weights of 0 without constants.
  const onwards = await train({ ...LEARN, heads: done.heads, intercept: false })
  assert.ok(onwards.loss! < losses[0])
  const zero = await train({ ...LEARN, intercept: false })
  assert.is(zero.heads.bias, null)
  assert.ok(zero.heads.weight.some((value) => value !== 0))
})

test('what cannot be trained is refused', async () => {
  const { pairs } = await rewardCase()
  const train = (rows: typeof pairs, options: object = {}, files = causal) =>
    trainRewardModel(cpu, files, rows, [], { ...LEARN, ...options })
  await fails(() => train([]), /there are no pairs/)
  await fails(() => train([{ ...pairs[0], margin: Number.NaN }]), /margins must be finite, got NaN/)
  await fails(() => train(pairs, { center: -1 }), /center must be a number of at least 0, got -1/)
  await fails(() => train(pairs, { lr: 1e6 }), /must be finite/)
  const [{ chosen }] = pairs
  const equal = [{ chosen, rejected: chosen.slice(), margin: 0 }]
  // Nothing can be learned from sides that are the same but for centring.
  await fails(() => train(equal, { center: 0 }), /the gradient of layers\.\d\..*lora_B is zero after the first step/)
  assert.is((await train(equal, { maxSteps: 1 })).steps, 1)
  const rows = rated(pairs)
  const quantiles = (options: object, some = rows) =>
    trainQuantileModel(cpu, causal, some, [], { ...LEARN, attributes: ['a', 'b'], levels: LEVELS, ...options })
  await fails(() => quantiles({}, []), /there are no rows/)
  await fails(() => quantiles({ attributes: ['a'] }), /ratings of 1 attributes, got 2/)
  await fails(() => quantiles({}, [{ ...rows[0], ratings: [[1], []] }]), /no row has a rating of "b"/)
  await fails(() => quantiles({}, [{ ...rows[0], ratings: [[Infinity], [1]] }]), /ratings must be finite, got Infinity/)
  await fails(() => quantiles({ levels: [0.5, 0.2] }), /levels: must increase/)
  const heads = {
    ...{ name: 'h.safetensors', attributes: ['a', 'b'], levels: LEVELS, columns: 32, bias: null, fingerprint: null },
    ...{ weight: new Float32Array(6 * 32), transform: null },
  }
  await fails(
    () => quantiles({ heads: { ...heads, attributes: ['b', 'a'] } }),
    /h\.safetensors: heads must be of the attributes/,
  )
  await fails(() => quantiles({ heads: { ...heads, transform: new Float32Array(4) } }), /reward_transform_matrix/)
  await fails(() => quantiles({ heads: { ...heads, columns: 31 } }), /states of \d+ columns/)
})

test('devices close', async () => {
  await devices.at(-1)!.destroy()
  await closeDevices()
})

test.run()
