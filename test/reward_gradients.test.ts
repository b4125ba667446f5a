// Gradients of score heads and quantile heads with LoRA below them: against float64, PyTorch, and with shared beginnings.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { memoryFiles } from '../src/files/source.ts'
import { readAdapter } from '../src/llama/adapter_files.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { openModelDirectory } from '../src/reward/directory.ts'
import { AdapterParameters } from '../src/train/adapter_parameters.ts'
import { type HeadLoss, type HeadOptions, headTask, type TrainedHead } from '../src/train/head_task.ts'
import { pairLoss } from '../src/train/pair_loss.ts'
import { makeParameter } from '../src/train/parameters.ts'
import { ratingLoss } from '../src/train/rating_loss.ts'
import { planSteps } from '../src/train/schedule.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles } from './lora_fixture.ts'
import { random } from './random.ts'
import type { Gradients, Model } from './reference/llama_grad.ts'
import { center, pairReference, rated, ratingReference, rewardCase } from './reward_fixture.ts'

const devices = await testDevices()
const LEVELS = [0.1, 0.5, 0.9]
const heads = (D: number) => random(8).normal(2 * LEVELS.length * D, { deviation: 0.3 })
const bias = random(10).normal(2 * LEVELS.length)
const OPTIONS: HeadOptions = {
  ...{ seed: 0, shuffle: false, microBatch: null, tokens: 1e9 },
  ...{ dropout: 0, checkpointing: false, evalSteps: 0, share: true },
}

/** Gradients by their names in the adapter's file, and the head's, after one step that is cut as the options say. */
async function gradients<Example, Sums>(
  device: Device,
  loss: HeadLoss<Example, Sums>,
  examples: readonly Example[],
  makeHead: ((hidden: number) => TrainedHead) | null,
  options: Partial<HeadOptions> = {},
) {
  const directory = await openModelDirectory(memoryFiles('base', folderFiles('reward/model')))
  const model = await openBackbone(device, directory)
  const start = await readAdapter(memoryFiles('adapter', folderFiles('reward/adapter')), model.config)
  const adapter = new AdapterParameters(device, start, model.config)
  const head = makeHead?.(model.config.hidden) ?? { weight: adapter.score!, bias: null }
  const plan = planSteps(examples.length, examples.length, 1)
  const parts = { device, model, adapter, head }
  const task = headTask(parts, loss, { examples, held: [], plan }, { ...OPTIONS, ...options })
  const [batches] = await task.updates(0)
  const total = batches.reduce((sum, { weight }) => sum + weight, 0)
  for (const [index, batch] of batches.entries()) await task.compute(batch, { index, total })
  const { sums } = (await task.sums()) as { sums: Sums }
  const found = new Map<string, Float32Array>()
  for (const { name, grad } of task.parameters) {
    const [rank, width] = grad.shape as [number, number]
    const values = await grad.readF32()
    // B is kept transposed.
    const turned = name.endsWith('lora_B')
      ? values.map((_, i) => values[(i % rank) * width + Math.floor(i / rank)])
      : values
    found.set(name, turned)
  }
  adapter.destroy()
  model.destroy()
  await directory.close()
  return { found, means: loss.means(sums), batches: batches.length }
}

/** Largest difference over the largest value. */
function distance(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.is(actual.length, expected.length)
  let [worst, scale] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]))
    scale = Math.max(scale, Math.abs(expected[i]))
  }
  return worst / scale
}

/** Names of a quantile head's gradients. */
const OWN: Record<string, string> = { heads: 'regression_layer.weight', bias: 'regression_layer.bias' }

/** Compares gradients on a device with those of the reference, whose names end in ".weight" and begin with "model.". */
function agree(found: ReadonlyMap<string, Float32Array>, grads: Gradients, limit: number, about: string): void {
  assert.is(found.size, grads.size)
  for (const [key, wanted] of grads) {
    const name = OWN[key] ?? key.replace(/^model\./, '').replace(/\.weight$/, '')
    const error = distance(found.get(name)!, wanted)
    assert.ok(error < limit, `${about} ${name}: ${error}`)
  }
}

const withHeads = (device: Device) => (D: number) => ({
  weight: makeParameter(device, 'regression_layer.weight', [2 * LEVELS.length, D], heads(D)),
  bias: makeParameter(device, 'regression_layer.bias', [bias.length], bias),
})

test('the reference of pairs is PyTorch, and its gradients are central differences', async () => {
  const { model, expected, pairs } = await rewardCase()
  const { loss, grads, scores } = pairReference(model, pairs, center)
  assert.ok(Math.abs(loss / expected.get('loss')![0] - 1) < 1e-6)
  const flat = [0, 1].flatMap((side) => scores.map((pair) => pair[side]))
  assert.ok(distance(flat, expected.get('scores')!) < 1e-6)
  for (const [key, grad] of grads) {
    // PyTorch makes the angles of rotary positions in float32.
    const error = distance(grad, expected.get(`grad.base_model.model.${key}`)!)
    assert.ok(error < 5e-6, `${key}: ${error}`)
  }
  const few = pairs.slice(0, 2)
  differences(model, (moved) => pairReference(moved, few, center))
})

/** By differences of fourth order: losses of one score are curved, so that a step of 1e-4 leaves 1e-6 of second order. */
const derivative = (along: (step: number) => number, h = 1e-4) =>
  (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)

/** Compares gradients with differences of the loss along one random direction a tensor. */
function differences(model: Model, run: (model: Model) => { readonly loss: number; readonly grads: Gradients }) {
  const draw = random(5)
  for (const [key, grad] of run(model).grads) {
    if (key === 'heads' || key === 'bias') continue
    const direction = draw.normal(grad.length)
    const along = (step: number) => {
      const moved = Float64Array.from(model.adapter.get(key)!, (value, i) => value + step * direction[i])
      return run({ ...model, adapter: new Map([...model.adapter, [key, moved]]) }).loss
    }
    const difference = derivative(along)
    const slope = grad.reduce((sum, value, i) => sum + value * direction[i], 0)
    assert.ok(Math.abs(difference - slope) < 1e-6 * Math.max(1, Math.abs(slope)), `${key}: ${difference}, ${slope}`)
  }
}

test('gradients of the reference of ratings are central differences', async () => {
  const { model, pairs } = await rewardCase()
  const rows = rated(pairs).slice(0, 3)
  const own = heads(model.shape.D)
  // Along these directions no rating comes to lie on the other side of its quantile.
  differences(model, (moved) => ratingReference(moved, rows, LEVELS, own, bias))
  const { grads } = ratingReference(model, rows, LEVELS, own, bias)
  const direction = random(6).normal(own.length)
  const along = (step: number) =>
    ratingReference(
      model,
      rows,
      LEVELS,
      Float64Array.from(own, (value, i) => value + step * direction[i]),
      bias,
    ).loss
  const slope = grads.get('heads')!.reduce((sum, value, i) => sum + value * direction[i], 0)
  assert.ok(Math.abs(derivative(along) - slope) < 1e-6 * Math.max(1, Math.abs(slope)))
})

for (const device of devices) {
  test(`gradients of pairs are those of float64, shared beginnings or not, on ${device.description}`, async () => {
    const { model, pairs } = await rewardCase()
    const { loss, grads } = pairReference(model, pairs, center)
    for (const options of [{}, { share: false }, { microBatch: 1 }, { microBatch: 2, checkpointing: true }]) {
      const { found, means } = await gradients(device, pairLoss(center), pairs, null, options)
      const about = JSON.stringify(options)
      assert.ok(Math.abs(means.loss / loss - 1) < 1e-5, `${about}: ${means.loss}, ${loss}`)
      agree(found, grads, 1e-4, about)
    }
  })

  test(`gradients of quantile heads are those of float64 on ${device.description}`, async () => {
    const { model, pairs } = await rewardCase()
    const rows = rated(pairs)
    const { loss, grads } = ratingReference(model, rows, LEVELS, heads(model.shape.D), bias)
    for (const options of [{}, { microBatch: 2 }]) {
      const own = ratingLoss(['a', 'b'], LEVELS)
      const { found, means } = await gradients(device, own, rows, withHeads(device), options)
      assert.ok(Math.abs(means.loss / loss - 1) < 1e-5, `${means.loss}, ${loss}`)
      found.delete('score')
      agree(found, grads, 1e-4, JSON.stringify(options))
    }
  })
}

test('a rating that is its quantile has no slope; margins, ties and centring count as they should', () => {
  const gradient = new Float64Array(3)
  const ratings = ratingLoss(['a'], LEVELS)
  const sums = ratings.add(
    ratings.nothing,
    { tokens: Uint32Array.of(1), ratings: [[2]] },
    Float64Array.of(2, 1, 4),
    gradient,
  )
  assert.equal(
    [...gradient].map((value) => Math.round(value * 1e9) / 1e9),
    [0, -0.5 / 3, 0.1 / 3].map((value) => Math.round(value * 1e9) / 1e9),
  )
  assert.ok(Math.abs(ratings.means(sums).loss - (0 + 0.5 * 1 + 0.1 * 2) / 3) < 1e-15)
  const pair = { chosen: Uint32Array.of(1), rejected: Uint32Array.of(1), margin: 0.5 }
  const loss = pairLoss(0.1)
  let found = loss.add(loss.nothing, pair, Float64Array.of(1, 1), gradient)
  found = loss.add(found, pair, Float64Array.of(3, -800), gradient)
  const means = loss.means(found)
  assert.equal(
    [means.accuracy, means.margin, means.mean_reward, means.min_reward, means.max_reward],
    [0.5, 803 / 2, -795 / 4, -800, 3],
  )
  const wanted = (Math.log(1 + Math.exp(0.5)) + 0.1 * 4 + 0.1 * 797 ** 2) / 2
  assert.ok(Math.abs(means.loss / wanted - 1) < 1e-14)
})

test('devices close', closeDevices)

test.run()
