// Validation in training: with the running statistics, which it leaves as they are; against the gate in float64.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import type { GateWeights } from '../src/reward/checkpoint.ts'
import type { HeadsFile } from '../src/reward/heads_file.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { GateModel, type GateSettings } from '../src/train/gating.ts'
import { splitPairs } from '../src/train/pair_batches.ts'
import type { PairEntry } from '../src/train/pair_log.ts'
import { trainBradleyTerry, trainGate } from '../src/train/recipes.ts'
import { close } from './assert.ts'
import { random } from './random.ts'
import { gate, linear } from './reference/reward.ts'

// What is tested is the order of the parts; the parts are compared on all devices elsewhere.
let device: Device

test.before(async () => {
  device = await openDevice('wasm', { threads: 1 })
})

test.after(() => device.destroy())

const [D, M] = [6, 3]
const GATE: GateSettings = { hidden: 5, layers: 2, temperature: 0.8, logitScale: 1.4, norm: 'batch', seed: 4 }

/** The gate of a checkpoint as the reference has it. */
function reference({ hidden, weight, bias, temperature, logitScale }: GateWeights) {
  const layers = hidden.map(({ weight, norm }) => {
    const { weight: scale, bias: shift, mean, variance } = norm!
    return { weight, scale, shift, mean, variance }
  })
  return { hidden: layers, weight, bias, temperature, logitScale }
}

async function statisticsOf({ statistics }: GateModel): Promise<Float32Array[]> {
  return Promise.all(statistics.map(({ value }) => value.readF32()))
}

test('outside of training, the gate uses the running statistics and does not change them', async () => {
  const draw = random(50)
  const rows = 8
  const model = new GateModel(device, D, M, rows, GATE)
  const states = [0, 1].map((mean) => draw.normal(rows * D, { mean, deviation: 1 + mean }))
  const tensors = states.map((data) => device.tensor([rows, D], { data }))
  const give = async (x: Tensor, training: boolean) => Array.from(await model.forward(x, training).readF32())
  try {
    const initial = await statisticsOf(model)
    await give(tensors[0], true)
    const before = await statisticsOf(model)
    for (const [i, values] of before.entries()) assert.not.equal(values, initial[i], 'training moves the statistics')
    const found = await give(tensors[1], false)
    assert.equal(await statisticsOf(model), before)
    const weights = reference(await model.weights())
    const expected = Array.from({ length: rows }, (_, b) =>
      gate(states[1].subarray(b * D, (b + 1) * D), weights),
    ).flat()
    // Float32 sums of at most D terms in three maps, of values near 1.
    close(found, expected, 64 * 2 ** -24, 'weights of the attributes')
    // A row does not depend on the others of its batch, one alone is no exception.
    const alone = device.tensor([1, D], { data: states[1].subarray(3 * D, 4 * D) })
    assert.equal(await give(alone, false), found.slice(3 * M, 4 * M))
    alone.destroy()
    // In training it does: the statistics are those of the batch.
    assert.not.equal(await give(tensors[1], true), found)
  } finally {
    for (const tensor of tensors) tensor.destroy()
    model.destroy()
  }
})

/** Pairs in memory, with prompt states of each side: chosen responses are better in the attribute of the largest prompt column. */
function somePairs(N: number, sidesDiffer: boolean) {
  const draw = random(51)
  const embeddings = draw.normal(2 * N * D)
  const prompts = draw.normal(2 * N * D, { mean: 0.5, deviation: 2 })
  for (let i = 0; i < N; i++) {
    const at = 2 * i * D
    if (!sidesDiffer) prompts.copyWithin(at + D, at, at + D)
    const first = Array.from(prompts.subarray(at, at + M))
    embeddings[at + first.indexOf(Math.max(...first))] += 2
  }
  const chunks = encodeSafetensors([
    { name: 'embeddings', dtype: 'F32', shape: [N, 2, D], data: embeddings },
    { name: 'prompt_embeddings', dtype: 'F32', shape: [N, 2, D], data: prompts },
  ])
  return { embeddings, prompts, open: () => openPairs([memorySource('pairs', Buffer.concat(chunks))]) }
}

function someHeads(): HeadsFile {
  const weight = random(52).normal(M * 2 * D, { deviation: 0.1 })
  for (let m = 0; m < M; m++) for (let k = 0; k < 2; k++) weight[(2 * m + k) * D + m] += 1
  const attributes = ['a', 'b', 'c']
  const levels = [1 / 3, 2 / 3]
  return { name: 'heads', attributes, levels, columns: D, weight, bias: null, transform: null, fingerprint: null }
}

const OPTIONS = { lr: 0.02, weightDecay: 0.01, batch: 8, epochs: 2, marginScale: 0.7, validation: 0.3, seed: 6 }

/** Mean of -log(sigmoid(margin)), and the share of margins above 0. */
function lossOf(margins: readonly number[]) {
  const loss = margins.reduce((sum, margin) => sum + Math.log1p(Math.exp(-margin)), 0) / margins.length
  return { loss, accuracy: margins.filter((margin) => margin > 0).length / margins.length }
}

/** What the last epoch says of the validation pairs. */
function lastEpoch(entries: readonly PairEntry[]) {
  return entries.flatMap((entry) => ('validation_loss' in entry ? [entry] : []))[OPTIONS.epochs - 1]
}

for (const sidesDiffer of [false, true]) {
  const which = sidesDiffer ? 'states of their own' : 'a state for both sides'
  test(`the validation of an epoch is that of the gate as it is then, for pairs with ${which}`, async () => {
    const { embeddings, prompts, open } = somePairs(60, sidesDiffer)
    const heads = someHeads()
    const pairs = await open()
    const entries: PairEntry[] = []
    const options = { ...GATE, ...OPTIONS, onEntry: (entry: PairEntry) => entries.push(entry) }
    const { checkpoint, epochs } = await trainGate(device, pairs, heads, options)
    const weights = reference(checkpoint.gate!)
    const { validation } = splitPairs(pairs, OPTIONS.validation, OPTIONS.seed)
    assert.ok(
      validation.length > OPTIONS.batch && validation.length % OPTIONS.batch !== 0,
      `${validation.length} pairs`,
    )
    /** The reward of one response: its expectations, by the gate of its prompt. */
    const reward = (row: number) => {
      const at = row * D
      const values = linear(embeddings.subarray(at, at + D), heads.weight)
      const g = gate(prompts.subarray(at, at + D), weights)
      return g.reduce((sum, share, m) => sum + (share * (values[2 * m] + values[2 * m + 1])) / 2, 0)
    }
    const expected = lossOf(Array.from(validation, (i) => OPTIONS.marginScale * (reward(2 * i) - reward(2 * i + 1))))
    const found = lastEpoch(entries)
    // Float32 margins of size 4 at most, through three maps, to 64 roundings each.
    close([found.validation_loss!], [expected.loss], 64 * 2 ** -24 * 4, 'loss')
    assert.is(found.validation_accuracy, expected.accuracy)
    assert.equal({ step: found.step, ...epochs[1] }, found)
  })
}

test('the validation of a Bradley-Terry head is that of its weight', async () => {
  const { embeddings, open } = somePairs(60, false)
  const pairs = await open()
  const entries: PairEntry[] = []
  const onEntry = (entry: PairEntry) => entries.push(entry)
  const { checkpoint } = await trainBradleyTerry(device, pairs, { ...OPTIONS, onEntry })
  const { validation } = splitPairs(pairs, OPTIONS.validation, OPTIONS.seed)
  const score = (row: number) => linear(embeddings.subarray(row * D, (row + 1) * D), checkpoint.regression.weight)[0]
  const margins = Array.from(validation, (i) => OPTIONS.marginScale * (score(2 * i) - score(2 * i + 1)))
  const expected = lossOf(margins)
  close([lastEpoch(entries).validation_loss!], [expected.loss], 64 * 2 ** -24 * 4, 'loss')
  assert.is(lastEpoch(entries).validation_accuracy, expected.accuracy)
})

test('without validation the epochs say so, and the weights are the same as without a log', async () => {
  const pairs = await somePairs(30, false).open()
  const entries: PairEntry[] = []
  const options = { ...GATE, ...OPTIONS, validation: 0 }
  const onEntry = (entry: PairEntry) => entries.push(entry)
  const { checkpoint } = await trainGate(device, pairs, someHeads(), { ...options, onEntry })
  assert.equal([lastEpoch(entries).validation_loss, lastEpoch(entries).validation_accuracy], [null, null])
  assert.equal((await trainGate(device, pairs, someHeads(), options)).checkpoint, checkpoint)
})

test.run()
