// A row's numbers do not depend on the rows that it is computed with, to the bit, on every back end.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { memoryFiles } from '../src/files/source.ts'
import type { Features } from '../src/reward/features.ts'
import { loadRewardModel, type Score } from '../src/reward/model.ts'
import { close } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { qrmFiles, randomTokens } from './qrm.ts'

test.after(closeDevices)

const [short, long] = [randomTokens(3, 40, 17), randomTokens(7, 100, 50)]

/** Rows of many lengths; some share beginnings with each other, and the gate's position is inside of some of these. */
const ROWS = [
  { input_ids: randomTokens(1, 1, null), gate_position: 0 },
  { input_ids: short, gate_position: 17 },
  { input_ids: randomTokens(2, 5, 0), gate_position: 0 },
  { input_ids: long, gate_position: 99 },
  ...[1, 20, 3, 70].map((length, i) => ({
    input_ids: [...short.slice(0, 38), ...randomTokens(40 + i, length, null)],
    gate_position: 17,
  })),
  ...Array.from({ length: 12 }, (_, i) => ({ input_ids: randomTokens(20 + i, 9 + i, i), gate_position: i })),
  ...[5, 33].map((length, i) => ({
    input_ids: [...long.slice(0, 90), ...randomTokens(50 + i, length, null)],
    gate_position: 89 + i,
  })),
  { input_ids: long, gate_position: 99 },
]

/** All numbers of a score, in one list. */
function numbers({ score, expectation, utility, quantiles, gate, attributes, tokens }: Score): number[] {
  const parts = Object.values(attributes).flatMap((attribute) => [attribute.expectation, ...attribute.quantiles])
  return [score, expectation, utility, ...quantiles, ...Object.values(gate), ...parts, tokens]
}

async function onEveryDevice(work: (device: Device, name: string) => Promise<void>): Promise<void> {
  const devices = await testDevices()
  assert.ok(devices.length >= 2, 'at least two back ends')
  for (const device of devices) await work(device, device.description)
}

test('scores: alone, in a batch, in small batches, in any order, shared or not, and when calls overlap', async () => {
  const files = memoryFiles('batches', qrmFiles(60, { layers: 2 }))
  await onEveryDevice(async (device, name) => {
    const model = await loadRewardModel(device, files)
    const small = await loadRewardModel(device, files, { batchTokens: 30 })
    const all = (await model.score(ROWS)).map(numbers)
    const same = (scores: Score[], order: number[], what: string) => {
      for (const [i, row] of order.entries()) close(numbers(scores[i]), all[row], 0, `${name}: ${what}, row ${row}`)
    }
    const order = ROWS.map((_, i) => i)
    same(await small.score(ROWS), order, 'small batches')
    for (const one of [model, small]) same(await one.score(ROWS, { share: false }), order, 'nothing shared')
    const reversed = order.slice().reverse()
    same(await model.score(reversed.map((i) => ROWS[i])), reversed, 'reversed')
    for (const i of [0, 2, 5, 19, 22]) same(await model.score([ROWS[i]]), [i], 'alone')
    const overlapping = await Promise.all(order.map((i) => small.score([ROWS[i]])))
    same(overlapping.flat(), order, 'overlapping calls')
    assert.equal((await model.score(ROWS)).map(numbers), all, 'the same call gives the same bits')
    assert.equal(await model.score([]), [])
    assert.is((await model.features([])).embeddings.length, 0)
    await model.destroy()
    await small.destroy()
  })
})

test('features: shared or not', async () => {
  const files = memoryFiles('features', qrmFiles(61, { layers: 2, tied: true, headDim: 8, kvHeads: 4 }))
  await onEveryDevice(async (device, name) => {
    const model = await loadRewardModel(device, files)
    const apart = await model.features(ROWS, { gate: true, share: false })
    const shared = await model.features(ROWS, { gate: true })
    for (const key of ['embeddings', 'promptEmbeddings', 'tokens'] as const satisfies (keyof Features)[])
      close(shared[key]!, apart[key]!, 0, `${name}: ${key}`)
    await model.destroy()
  })
})

test.run()
