// The parts of training that need no device: schedule, split by prompt, order of epochs, reading ahead, the log.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { openPairs, type PairFile } from '../src/reward/pair_file.ts'
import { addBatch, logLine, means, NO_PAIRS } from '../src/train/log.ts'
import { listBatches, readAhead, splitPairs } from '../src/train/pair_batches.ts'
import { randomBits, shuffled, uniform } from '../src/train/random.ts'
import { cosine, locateStep, planSteps } from '../src/train/schedule.ts'
import { fails } from './assert.ts'
import { random } from './random.ts'

test('a single row left over is not used, two are', () => {
  assert.equal(planSteps(10, 4, 3), { rows: 10, batch: 4, epochs: 3, stepsPerEpoch: 3, steps: 9 })
  assert.is(planSteps(9, 4, 3).steps, 6)
  assert.is(planSteps(8, 4, 3).steps, 6)
  assert.is(planSteps(3, 4, 2).steps, 2)
  assert.equal(locateStep(planSteps(10, 4, 3), 5), { epoch: 1, begin: 8, end: 10 })
  assert.equal(locateStep(planSteps(9, 4, 3), 5), { epoch: 2, begin: 4, end: 8 })
})

test('the learning rate is that of CosineAnnealingLR', () => {
  // The recursion by which torch.optim.lr_scheduler.CosineAnnealingLR goes from step to step.
  let lr = 3e-4
  for (let t = 0; t < 50; t++) {
    assert.ok(Math.abs(cosine(3e-4, t, 50) - lr) < 1e-15, `step ${t}`)
    lr *= (1 + Math.cos((Math.PI * (t + 1)) / 50)) / (1 + Math.cos((Math.PI * t) / 50))
  }
})

/** A file of pairs of these prompts. */
function pairsOf(ids: ArrayLike<number>): Promise<PairFile> {
  const N = ids.length
  const chunks = encodeSafetensors([
    { name: 'embeddings', dtype: 'F32', shape: [N, 2, 1], data: new Float32Array(2 * N) },
    { name: 'prompt_ids', dtype: 'I64', shape: [N], data: BigInt64Array.from(Array.from(ids, BigInt)) },
  ])
  return openPairs([memorySource('pairs', Buffer.concat(chunks))])
}

test('pairs of a prompt are on one side of the split, which the seed decides', async () => {
  const ids = random(1).integers(6000, 0, 2000)
  const pairs = await pairsOf(ids)
  const seen = new Set<string>()
  for (const seed of [0, 1, 2]) {
    const { training, validation } = splitPairs(pairs, 0.1, seed)
    assert.equal(
      [...training, ...validation].sort((a, b) => a - b),
      [...ids.keys()],
    )
    const held = new Set(Array.from(validation, (i) => ids[i]))
    assert.ok(!training.some((i) => held.has(ids[i])), 'a prompt is on both sides')
    // 2000 prompts at 0.1: a binomial deviation of 13; four of them.
    assert.ok(Math.abs(held.size - 0.1 * new Set(ids).size) < 54, `${held.size} prompts for validation`)
    seen.add(validation.join())
  }
  assert.is(seen.size, 3)
  assert.is(splitPairs(pairs, 0, 0).validation.length, 0)
})

test('a split with too few pairs says what to do', async () => {
  const same = await pairsOf([5, 5, 5])
  await fails(
    () => splitPairs(same, 0.001, 1),
    'pairs: none of the 3 pairs is for validation; use a larger --validation, another --seed, or --validation 0',
  )
  await fails(
    () => splitPairs(same, 0.999, 1),
    'pairs: training needs at least 2 pairs, got 0 of 3; use a smaller --validation',
  )
})

test('random numbers depend on seed, stream and counter alone, and are uniform', () => {
  const values = uniform(7, 3, 20000, 2)
  assert.equal(uniform(7, 3, 10, 2), values.slice(0, 10))
  assert.ok(values.every((value) => value >= -2 && value < 2))
  const mean = values.reduce((a, b) => a + b) / values.length
  const square = values.reduce((a, b) => a + b * b, 0) / values.length
  // Of 20000 values in [-2, 2): four standard deviations of their mean, and of the mean of their squares.
  assert.ok(Math.abs(mean) < (4 * Math.sqrt(4 / 3)) / Math.sqrt(20000), `mean ${mean}`)
  assert.ok(Math.abs(square - 4 / 3) < (4 * Math.sqrt(16 / 5 - 16 / 9)) / Math.sqrt(20000), `square ${square}`)
  const different = new Set<number>()
  for (const seed of [0, 1, 2 ** 31 - 1])
    for (const stream of [0, 1, 2 ** 21])
      for (const counter of [0, 1, 2 ** 30]) different.add(randomBits(seed, stream, counter))
  assert.is(different.size, 27)
})

test('an epoch takes every training pair once, in an order of its own', async () => {
  const pairs = await pairsOf(new Uint32Array(50).map((_, i) => i))
  const split = splitPairs(pairs, 0.2, 4)
  const { length } = split.training
  const plan = planSteps(length, 8, 2)
  const batches = [...listBatches(split, plan, 4, 0)]
  const used = (epoch: number) =>
    batches
      .filter(({ use }) => use === 'training')
      .slice(epoch * plan.stepsPerEpoch, (epoch + 1) * plan.stepsPerEpoch)
      .flatMap(({ rows }) => [...rows])
  for (const epoch of [0, 1]) {
    const rows = used(epoch)
    assert.is(new Set(rows).size, rows.length)
    assert.ok(rows.every((row) => split.training.includes(row)))
    assert.ok(length - rows.length <= 1)
  }
  assert.not.equal(used(0), used(1))
  const held = batches.filter(({ use }) => use === 'validation').flatMap(({ rows }) => [...rows])
  assert.equal(held, [...split.validation, ...split.validation])
  // From any step on, the batches are those of the whole.
  for (let step = 0; step < plan.steps; step++) {
    const rest = [...listBatches(split, plan, 4, step)]
    assert.equal(rest, batches.slice(batches.length - rest.length), `from step ${step}`)
    assert.is(rest.filter(({ use }) => use === 'training').length, plan.steps - step)
  }
  assert.equal(
    [...shuffled(split.training, 1, 2)].sort((a, b) => a - b),
    [...split.training],
  )
})

test('one batch is read ahead, into one buffer, and not before the one before is released', async () => {
  const started: number[] = []
  const read = async (rows: Uint32Array, into: Float32Array) => {
    started.push(rows[0])
    await new Promise((resolve) => setTimeout(resolve, 1))
    if (rows[0] === 3) throw new Error('damaged')
    into[0] = rows[0]
    return into.subarray(0, 1)
  }
  const batches = [0, 1, 2, 3].map((row) => ({ use: 'training' as const, rows: Uint32Array.of(row) }))
  const buffer = new Float32Array(2)
  const ahead = readAhead(batches.values(), read, buffer)
  for (let i = 0; i < 3; i++) {
    const { rows, states } = await ahead.next()
    assert.equal([rows[0], states[0]], [i, i])
    assert.is(states.buffer, buffer.buffer)
    assert.equal(started.length, i + 1, 'nothing is read into a buffer in use')
    ahead.release()
    assert.equal(started.length, i + 2)
  }
  // It fails where it is asked for, not where nobody waits.
  await new Promise((resolve) => setTimeout(resolve, 5))
  await fails(() => ahead.next(), 'damaged')
  await ahead.end()
})

test('a tie is no correct pair', () => {
  const sums = addBatch(NO_PAIRS, Float32Array.of(0.5, 0.7, 0.9, 1.1), Float32Array.of(1, 0, -0, -1))
  assert.equal(sums, { pairs: 4, loss: 0.5 + Math.fround(0.7) + Math.fround(0.9) + Math.fround(1.1), correct: 1 })
  assert.is(means(sums).accuracy, 0.25)
  assert.is(
    logLine({ step: 1, epoch: 1, lr: 1, loss: 2, accuracy: 0.5 }),
    '{"step":1,"epoch":1,"lr":1,"loss":2,"accuracy":0.5}\n',
  )
})

test.run()
