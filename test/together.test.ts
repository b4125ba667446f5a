// Calls of score that wait at the same time are one run: the same bits, the work of one call, errors and signals of each its own.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { memoryFiles } from '../src/files/source.ts'
import { loadRewardModel, type RewardModel } from '../src/reward/model.ts'
import { RewardDistribution } from '../src/reward/reward_distribution.ts'
import { together } from '../src/reward/together.ts'
import { fails } from './assert.ts'
import { qrmFiles, randomTokens } from './qrm.ts'

const ROWS = Array.from({ length: 24 }, (_, i) => ({ input_ids: randomTokens(i, 6 + (i % 7), 2), gate_position: 2 }))

async function withModel(work: (model: RewardModel, device: Device) => Promise<void>): Promise<void> {
  // On one thread calls are counted exactly: with more, a write to memory in use is one more.
  const device = await openDevice('wasm', { threads: 1 })
  const model = await loadRewardModel(device, memoryFiles('m', qrmFiles(60, { layers: 2 })))
  await work(model, device)
  await model.destroy()
  await device.destroy()
}

test('many calls at once cost the kernels of one call, and give its bits', () =>
  withModel(async (model, device) => {
    const count = async (work: () => Promise<unknown>): Promise<number> => {
      const before = device.statistics().calls
      await work()
      return device.statistics().calls - before
    }
    const [whole] = [await model.score(ROWS)]
    let apart: unknown[] = []
    const one = await count(() => model.score(ROWS))
    const many = await count(async () => {
      apart = (await Promise.all(ROWS.map((row) => model.score([row])))).flat()
    })
    assert.is(many, one)
    assert.equal(apart, whole)
    const alone = await count(async () => {
      for (const row of ROWS) await model.score([row])
    })
    assert.ok(alone > 5 * one, 'calls one after the other are not together')
    // Another lambda is another run.
    const [first, second] = await Promise.all([model.score([ROWS[0]!]), model.score([ROWS[0]!], { lambda: 3 })])
    assert.ok(first[0]!.utility !== second[0]!.utility)
    assert.equal(first[0]!.quantiles, second[0]!.quantiles)
  }))

test('progress and signals are those of the call', () =>
  withModel(async (model) => {
    const heard: number[][] = []
    const stop = new AbortController()
    const calls = [
      model.score(ROWS.slice(0, 3), {
        onProgress: ({ done, rows, tokens, totalTokens }) => heard.push([done, rows, tokens, totalTokens]),
      }),
      model.score(ROWS.slice(3, 5), { signal: stop.signal }),
      model.score(ROWS.slice(5, 6)),
    ]
    stop.abort(new Error('not these'))
    const [first, second, third] = await Promise.allSettled(calls)
    assert.equal([first!.status, third!.status], ['fulfilled', 'fulfilled'])
    assert.is((second as PromiseRejectedResult).reason.message, 'not these')
    const tokens = ROWS.slice(0, 3).reduce((sum, { input_ids: { length } }) => sum + length, 0)
    assert.equal(heard.at(-1), [3, 3, tokens, tokens])
    await fails(() => model.score(ROWS, { signal: AbortSignal.abort(new Error('before')) }), 'before')
  }))

test('a failure is that of the call whose row it was', async () => {
  interface Row {
    readonly length: number
    readonly bad?: boolean
  }
  const runs: number[] = []
  const join = together<Row, number>()
  const call = (rows: Row[]) =>
    join('k', { rows }, async (take, { nameOf, lengthOf }, give) => {
      await Promise.resolve()
      const all = take()
      runs.push(all.length)
      for (const [i, { bad }] of all.entries()) {
        if (bad) throw new Error(`row ${nameOf(i)} is bad`)
        give(new Map([[i, lengthOf(i)]]))
      }
    })
  const ended = await Promise.allSettled([
    call([{ length: 1 }, { length: 2 }]),
    call([{ length: 3 }, { length: 4, bad: true }]),
    call([{ length: 5 }]),
  ])
  assert.equal(
    ended.map((end) => (end.status === 'fulfilled' ? end.value : end.reason.message)),
    [[1, 2], 'row 1 is bad', [5]],
  )
  assert.equal(runs, [5, 2, 2, 1], 'once together, then each alone')
})

test('the distribution of a score answers where quantiles cross, and is no part of its JSON', () =>
  withModel(async (model) => {
    const scores = await model.score(ROWS)
    const crossing = scores.filter(({ quantiles }) => quantiles.some((value, k) => k > 0 && value < quantiles[k - 1]!))
    assert.ok(crossing.length > 0, 'some quantiles cross')
    for (const { distribution, quantiles, expectation, utility, ...rest } of scores) {
      const sorted = quantiles.slice().sort((a, b) => a - b)
      assert.equal([...distribution.values], sorted)
      assert.ok(Math.abs(distribution.expectation - expectation) < 1e-9)
      assert.ok(Math.abs(distribution.utility(model.lambda) / utility - 1) < 1e-9)
      assert.is(distribution.quantile(model.levels[3]!), sorted[3])
      assert.ok(
        distribution.cvar(0.1) <= distribution.cvar(1) && distribution.tailMean(0.1) <= distribution.tailMean(1),
      )
      assert.ok(distribution.certaintyEquivalent(2) <= distribution.certaintyEquivalent(0))
      assert.ok(distribution.cdf(sorted[3]!) >= distribution.probabilityBelow(sorted[3]!))
      assert.ok(distribution.density((sorted[3]! + sorted[4]!) / 2) > 0 && distribution.variance > 0)
      const points = distribution.points()
      assert.is(points.length, model.levels.length + 2)
      assert.ok(points.every(({ value }, i) => i === 0 || value >= points[i - 1]!.value))
      assert.ok(!('distribution' in rest))
    }
    assert.ok(!JSON.stringify(scores).includes('distribution'))
    assert.equal([...new RewardDistribution([2, 1], [0.25, 0.75]).values], [1, 2])
  }))

test.run()
