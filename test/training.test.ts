// The parts of training that need no device: schedule, split by prompt, order of epochs, micro-batches, reading ahead, the log.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { randomBits, shuffled, uniform } from '../src/data/random.ts'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { openPairs, type PairFile } from '../src/reward/pair_file.ts'
import { microBatches, orderRows } from '../src/train/data_order.ts'
import { logLine } from '../src/train/log.ts'
import { listBatches, planPairs, splitPairs } from '../src/train/pair_batches.ts'
import { addBatch, means, NO_PAIRS } from '../src/train/pair_log.ts'
import { readAhead } from '../src/train/read_ahead.ts'
import { learningRate, locateStep, planSteps, type Schedule, warmupSteps } from '../src/train/schedule.ts'
import { fails } from './assert.ts'
import { random } from './random.ts'

test('the last batch of an epoch may be shorter, down to a limit', () => {
  const pairs = { smallest: 2 }
  assert.equal(planSteps(10, 4, 3, pairs), { rows: 10, batch: 4, epochs: 3, stepsPerEpoch: 3, steps: 9 })
  assert.is(planSteps(9, 4, 3, pairs).steps, 6)
  assert.is(planSteps(9, 4, 3).steps, 9)
  assert.is(planSteps(8, 4, 3).steps, 6)
  assert.is(planSteps(3, 4, 2, pairs).steps, 2)
  assert.is(planSteps(1, 4, 2).steps, 2)
  assert.is(planSteps(10, 4, 3, { smallest: 4 }).steps, 6)
  assert.is(planSteps(10, 4, 3, { maxSteps: 4 }).steps, 4)
  assert.is(planSteps(10, 4, 3, { maxSteps: 40 }).steps, 9)
  assert.equal(locateStep(planSteps(10, 4, 3, pairs), 5), { epoch: 1, begin: 8, end: 10 })
  assert.equal(locateStep(planSteps(9, 4, 3, pairs), 5), { epoch: 2, begin: 4, end: 8 })
  assert.equal(locateStep(planSteps(9, 4, 3), 5), { epoch: 1, begin: 8, end: 9 })
})

const rates = (schedule: Schedule, steps: number) =>
  Array.from({ length: steps }, (_, step) => learningRate(schedule, step, steps))

test('without a warm-up the cosine is that of CosineAnnealingLR', () => {
  // The recursion by which torch.optim.lr_scheduler.CosineAnnealingLR goes from step to step.
  let lr = 3e-4
  for (const [t, rate] of rates({ lr: 3e-4, schedule: 'cosine', warmup: 0 }, 50).entries()) {
    assert.ok(Math.abs(rate - lr) < 1e-15, `step ${t}`)
    // The formula in one line, to the bit: what was trained before there was a warm-up stays as it was.
    assert.is(rate, (3e-4 * (1 + Math.cos((Math.PI * t) / 50))) / 2)
    lr *= (1 + Math.cos((Math.PI * (t + 1)) / 50)) / (1 + Math.cos((Math.PI * t) / 50))
  }
})

test('schedules with a warm-up are those of transformers', () => {
  // From get_{constant,linear,cosine}_schedule_with_warmup of transformers: 10 steps, 4 of them warm-up, peak 2.
  const warm = [0, 0.5, 1, 1.5]
  const off = (found: number[], expected: number[]) => {
    assert.is(found.length, expected.length)
    for (const [i, rate] of found.entries()) assert.ok(Math.abs(rate - expected[i]) < 1e-15, `step ${i}: ${rate}`)
  }
  off(rates({ lr: 2, schedule: 'constant', warmup: 4 }, 10), [...warm, 2, 2, 2, 2, 2, 2])
  off(rates({ lr: 2, schedule: 'linear', warmup: 4 }, 10), [...warm, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3])
  const root = Math.sqrt(3) / 2
  off(rates({ lr: 2, schedule: 'cosine', warmup: 4 }, 10), [...warm, 2, 1 + root, 1.5, 1, 0.5, 1 - root])
  // A share is a share of the steps, rounded up; below 1 it never means steps.
  assert.equal(
    [0.05, 0.11, 0.999, 1, 7].map((warmup) => warmupSteps(warmup, 10)),
    [1, 2, 10, 1, 7],
  )
  off(rates({ lr: 2, schedule: 'linear', warmup: 0.4 }, 10), rates({ lr: 2, schedule: 'linear', warmup: 4 }, 10))
  // A warm-up that is as long as the training, or longer, never reaches the peak.
  assert.equal(rates({ lr: 2, schedule: 'cosine', warmup: 4 }, 4), warm)
  assert.equal(rates({ lr: 2, schedule: 'linear', warmup: 8 }, 4), [0, 0.25, 0.5, 0.75])
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
  const plan = planPairs(split, 8, 2)
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

test('rows come in the order that was asked for, in pieces that cover them', () => {
  const rows = Uint32Array.from({ length: 11 }, (_, i) => 100 + i)
  const plan = planSteps(11, 4, 2)
  const inOrder = [...orderRows(rows, plan, { seed: 1, shuffle: false })]
  assert.equal(
    inOrder.map(({ step, rows: taken }) => [step, ...taken]),
    [0, 1].flatMap((epoch) => [
      [3 * epoch, 100, 101, 102, 103],
      [3 * epoch + 1, 104, 105, 106, 107],
      [3 * epoch + 2, 108, 109, 110],
    ]),
  )
  const mixed = [...orderRows(rows, plan, { seed: 1 })]
  for (let from = 0; from < plan.steps; from++)
    assert.equal([...orderRows(rows, plan, { seed: 1, from })], mixed.slice(from), `from step ${from}`)
  assert.not.equal([...orderRows(rows, plan, { seed: 2 })], mixed)
  assert.equal(
    microBatches(rows, 4).map((piece) => [...piece]),
    inOrder.slice(0, 3).map(({ rows: taken }) => [...taken]),
  )
  assert.equal(microBatches(rows, 100), [rows])
})

test('one batch is read ahead, and not before the one before is released', async () => {
  const started: number[] = []
  const read = async (row: number) => {
    started.push(row)
    await new Promise((resolve) => setTimeout(resolve, 1))
    if (row === 3) throw new Error('damaged')
    return 10 * row
  }
  const ahead = readAhead([0, 1, 2, 3].values(), read)
  for (let i = 0; i < 3; i++) {
    assert.is(await ahead.next(), 10 * i)
    assert.equal(started.length, i + 1, 'nothing is read while the last batch is in use')
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
  assert.throws(() => logLine({ step: 1, means: { loss: Number.NaN } }), 'training: loss must be finite, got NaN')
})

test.run()
