// What a training draws, where it begins and what it logs: against a second program, so that a run of a seed stays what it was.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { randomBits, shuffled, uniform } from '../src/data/random.ts'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import type { FeatureBlocks } from '../src/files/table.ts'
import type { HeadsFile } from '../src/reward/heads_file.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { ScoreModel } from '../src/train/bradley_terry.ts'
import { GATE_DEFAULTS, GateModel } from '../src/train/gating.ts'
import { fitRidge } from '../src/train/multi_attribute.ts'
import { largestBatch, listBatches, splitPairs } from '../src/train/pair_batches.ts'
import { addBatch, means, NO_PAIRS, type PairEntry } from '../src/train/pair_log.ts'
import { scoreStates } from '../src/train/pair_rewards.ts'
import { PAIR_DEFAULTS, trainPairs } from '../src/train/pair_task.ts'
import { trainBradleyTerry, trainGate } from '../src/train/recipes.ts'
import { learningRate, planSteps } from '../src/train/schedule.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'

let device: Device

test.before(async () => {
  device = await openDevice('wasm', { threads: 1 })
})

test.after(() => device.destroy())

/** MurmurHash3's finaliser in whole numbers that do not overflow. */
function finalise(word: number): number {
  const mask = 0xffffffffn
  let h = BigInt(word >>> 0)
  h = ((h ^ (h >> 16n)) * 0x85ebca6bn) & mask
  h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) & mask
  return Number(h ^ (h >> 16n))
}

const times = (a: number, b: number) => Number((BigInt(a) * BigInt(b)) & 0xffffffffn)

/** The bits by their definition: seed, then stream, then counter, each plus 1. */
function bits(seed: number, stream: number, counter: number): number {
  const key = finalise(times(stream + 1, 0x85ebca6b) ^ finalise(seed + 1))
  return finalise(times(counter + 1, 0x9e3779b9) ^ key)
}

test('random bits are those of their definition', () => {
  for (const seed of [0, 1, 77, 2 ** 31 - 1])
    for (const stream of [0, 3, 2 ** 20, 2 ** 21 + 5])
      for (const counter of [0, 1, 9999, 2 ** 30]) {
        assert.is(randomBits(seed, stream, counter), bits(seed, stream, counter), `${seed} ${stream} ${counter}`)
      }
  const expected = Float32Array.from({ length: 50 }, (_, i) => 0.3 * ((bits(5, 2, i) >>> 8) / 2 ** 23 - 1))
  assert.equal(uniform(5, 2, 50, 0.3), expected)
})

test('all orders are alike', () => {
  const counts = new Map<string, number>()
  for (let seed = 0; seed < 6000; seed++) {
    const order = shuffled(Uint32Array.of(4, 5, 6), seed, 1).join()
    counts.set(order, (counts.get(order) ?? 0) + 1)
  }
  assert.is(counts.size, 6)
  // Four deviations of a binomial count of 6000 at 1 / 6.
  for (const [order, count] of counts) assert.ok(Math.abs(count - 1000) < 4 * 29, `${order}: ${count}`)
})

function pairsOf(N: number, D = 4) {
  const embeddings = random(61).normal(2 * N * D)
  for (let i = 0; i < N; i++) embeddings[2 * i * D] += 1
  const prompts = random(62).normal(2 * N * D)
  for (let i = 0; i < N; i++) prompts.copyWithin((2 * i + 1) * D, 2 * i * D, (2 * i + 1) * D)
  const chunks = encodeSafetensors([
    { name: 'embeddings', dtype: 'F32', shape: [N, 2, D], data: embeddings },
    { name: 'prompt_embeddings', dtype: 'F32', shape: [N, 2, D], data: prompts },
  ])
  return openPairs([memorySource('pairs', Buffer.concat(chunks))])
}

test('split and order of an epoch have streams of their own', async () => {
  const pairs = await pairsOf(200, 1)
  for (const seed of [0, 8]) {
    const split = splitPairs(pairs, 0.25, seed)
    const held = Array.from({ length: 200 }, (_, i) => i).filter(
      (i) => bits(seed, 2 ** 20, pairs.groups[i]) < 0.25 * 2 ** 32,
    )
    assert.equal([...split.validation], held)
    const plan = planSteps(split.training.length, 64, 2)
    const rows = [...listBatches(split, plan, seed, 0)]
      .filter(({ use }) => use === 'training')
      .map(({ rows }) => [...rows])
    for (const epoch of [0, 1]) {
      const order = [...split.training]
      for (let i = order.length - 1; i > 0; i--) {
        const j = Math.floor((bits(seed, 2 ** 21 + epoch, i) * (i + 1)) / 2 ** 32)
        const value = order[i]
        order[i] = order[j]
        order[j] = value
      }
      const steps = rows.slice(epoch * plan.stepsPerEpoch, (epoch + 1) * plan.stepsPerEpoch)
      assert.equal(steps.flat(), order.slice(0, steps.flat().length))
    }
  }
  const sizes = (training: number, validation: number) => {
    return { training: new Uint32Array(training), validation: new Uint32Array(validation) }
  }
  const largest = [largestBatch(sizes(3, 5), 10), largestBatch(sizes(7, 5), 10), largestBatch(sizes(7, 5), 4)]
  assert.equal(largest, [5, 7, 4])
})

test('one pair is too few to train on, two are not', async () => {
  const three = await pairsOf(3, 1)
  // The hash of a pair's number decides: a share just above all but the largest leaves one pair for training.
  const order = [0, 1, 2].map((i) => bits(0, 2 ** 20, three.groups[i]) / 2 ** 32).sort((a, b) => a - b)
  const message = 'pairs: training needs at least 2 pairs, got 1 of 3; use a smaller --validation'
  await fails(() => splitPairs(three, (order[1] + order[2]) / 2, 0), message)
  assert.is(splitPairs(three, (order[0] + order[1]) / 2, 0).training.length, 2)
})

test('defaults are those of the paper, and of the published class of gates', () => {
  const pair = { lr: 3e-4, weightDecay: 1e-3, batch: 1024, epochs: 3, marginScale: 1, validation: 0.1, seed: 0 }
  assert.equal(PAIR_DEFAULTS, pair)
  assert.equal(GATE_DEFAULTS, { hidden: 1024, layers: 3, temperature: 10, logitScale: 1 })
})

test('weights begin as in PyTorch: uniform within 1 / sqrt(inputs), each map from a stream of its own', async () => {
  const [D, H, M] = [9, 16, 3]
  const settings = { hidden: H, layers: 2, temperature: 1, logitScale: 1, norm: 'batch', seed: 13 } as const
  const model = new GateModel(device, D, M, 4, settings)
  const inputs: Record<string, number> = { 'gating.layers.0.weight': D }
  for (const name of ['gating.layers.3.weight', 'gating.layers.6.weight', 'gating.layers.6.bias']) inputs[name] = H
  for (const [i, { name, value }] of model.parameters.entries()) {
    const norm = /layers\.[25]\.(weight|bias)$/.exec(name)
    const values = await value.readF32()
    const constant = new Float32Array(H).fill(norm?.[1] === 'weight' ? 1 : 0)
    assert.equal(values, norm ? constant : uniform(13, i, values.length, 1 / Math.sqrt(inputs[name])), name)
  }
  for (const { name, value } of model.statistics) {
    assert.equal(await value.readF32(), new Float32Array(H).fill(name.endsWith('running_var') ? 1 : 0), name)
  }
  assert.is(model.statistics.length, 4)
  model.destroy()
  const score = new ScoreModel(device, D, 4, { seed: 13 })
  assert.equal(await score.weights(), uniform(13, 0, D, 1 / 3))
  score.destroy()
})

const OPTIONS = { lr: 0.01, weightDecay: 0, batch: 5, epochs: 2, marginScale: 1, validation: 0, seed: 1 }

test('the log has every tenth step and the last of an epoch, each with the means since the line before', async () => {
  const pairs = await pairsOf(60)
  const entries: PairEntry[] = []
  const onEntry = (entry: PairEntry) => entries.push(entry)
  const { epochs } = await trainBradleyTerry(device, pairs, { ...OPTIONS, onEntry })
  const steps = entries.flatMap((entry) => ('lr' in entry ? [entry] : []))
  assert.equal(
    steps.map(({ step, epoch }) => [step, epoch]),
    [10, 12, 20, 24].map((step) => [step, step <= 12 ? 1 : 2]),
  )
  for (const { step, lr } of steps)
    assert.is(lr, learningRate({ lr: OPTIONS.lr, schedule: 'cosine', warmup: 0 }, step - 1, 24))
  for (const [e, { epoch, loss, accuracy }] of epochs.entries()) {
    const [first, last] = steps.slice(2 * e)
    const share = [first, last].map(({ step }) => step - (step === first.step ? (e === 0 ? 0 : 12) : first.step))
    const mean = (key: 'loss' | 'accuracy') => (first[key] * share[0] + last[key] * share[1]) / 12
    assert.is(epoch, e + 1)
    close([loss, accuracy], [mean('loss'), mean('accuracy')], 1e-12, `epoch ${epoch}`)
  }
  const twice = addBatch(
    addBatch(NO_PAIRS, Float32Array.of(1, 2), Float32Array.of(1, -1)),
    Float32Array.of(6),
    Float32Array.of(1),
  )
  assert.equal(
    [twice, means(twice)],
    [
      { pairs: 3, loss: 9, correct: 2 },
      { loss: 3, accuracy: 2 / 3 },
    ],
  )
})

test('a loss that is not finite is found wherever it is in a batch', async () => {
  const pairs = await pairsOf(10)
  const states = scoreStates(pairs)
  const split = { training: Uint32Array.from({ length: 10 }, (_, i) => i), validation: new Uint32Array(0) }
  const settings = { ...OPTIONS, batch: 10, epochs: 1 }
  for (const bad of [0, 9]) {
    const rewards = states.rewards.map((value, i) => (i >> 1 === bad ? Number.NaN : value))
    const model = new ScoreModel(device, pairs.columns, 20, { seed: 1 })
    const message = /^training: the loss must be finite, step 1 gives NaN; nothing had been learned before, so /
    await fails(() => trainPairs({ device, model, states: { ...states, rewards }, split, settings }), message)
    model.destroy()
  }
})

test('the kind of heads decides the layout of the checkpoint and the norm of the gate', async () => {
  const pairs = await pairsOf(12)
  const weight = random(63).normal(4 * 4)
  const common = { name: 'h', columns: 4, weight, bias: null, transform: null, fingerprint: null }
  const quantiles: HeadsFile = { ...common, attributes: ['a', 'b'], levels: [0.3, 0.7] }
  const points: HeadsFile = { ...common, attributes: ['a', 'b', 'c', 'd'], levels: null }
  const options = { ...OPTIONS, epochs: 1, hidden: 3, layers: 1 }
  const qrm = (await trainGate(device, pairs, quantiles, options)).checkpoint
  const armorm = (await trainGate(device, pairs, points, options)).checkpoint
  const classifier = (await trainBradleyTerry(device, pairs, { ...OPTIONS, epochs: 1 })).checkpoint
  assert.equal(
    [qrm, armorm, classifier].map(({ layout, manifest }) => [layout, manifest.attributes, manifest.levels]),
    [
      ['qrm', ['a', 'b'], [0.3, 0.7]],
      ['armorm', ['a', 'b', 'c', 'd'], [0.5]],
      ['classifier', ['reward'], [0.5]],
    ],
  )
  const parts = [qrm, armorm].map(({ gate }) => gate!.hidden.map(({ norm, bias }) => [norm !== null, bias !== null]))
  assert.equal(parts, [[[true, false]], [[false, true]]])
  assert.is(classifier.gate, null)
})

test('ratings of weight 0 are not there for ridge regression', async () => {
  const [rows, columns] = [80, 3]
  const x = random(64).normal(rows * columns)
  const read = async (first: number, count: number) => x.subarray(first * columns, (first + count) * columns)
  const features: FeatureBlocks = { name: 'x', rows, columns, dtype: 'f32', read }
  const labels = random(65).normal(rows)
  const weights = Float32Array.from({ length: rows }, (_, i) => (i % 3 === 0 ? 0 : 2))
  const missing = labels.map((value, i) => (weights[i] === 0 ? Number.NaN : value))
  const ratings = { attributes: ['a'], labels, weights }
  const found = await fitRidge({ features, ...ratings }, { threads: 1 })
  const expected = await fitRidge({ features, ...ratings, labels: missing }, { threads: 1 })
  assert.equal(found, expected)
  assert.is(found.fits[0].training + found.fits[0].validation, weights.filter((value) => value > 0).length)
})

test.run()
