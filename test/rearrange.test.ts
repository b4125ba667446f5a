// Quantiles in ascending order on request: in the library and in `pinball score --rearrange`.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { loadRewardModel, type Score } from '../src/reward/model.ts'
import { close } from './assert.ts'
import { lines, openWorkplace, qrm, WASM } from './command.ts'
import { fixtureModel } from './fixture.ts'
import { random } from './random.ts'

const ROWS = [1, 2, 3].map((seed) => ({ input_ids: [...random(seed).integers(12, 0, 96)], gate_position: 3 }))

const ascending = (values: readonly number[]) => [...values].sort((a, b) => a - b)

/** Asserts that `sorted` is `plain` with its quantiles in order, and gives how many of them were not. */
function compare(sorted: Score, plain: Score): number {
  let crossed = 0
  const check = (name: string, after: Score['attributes'][string], before: Score['attributes'][string]) => {
    assert.equal(after.quantiles, ascending(before.quantiles), name)
    const size = Math.max(...before.quantiles.map(Math.abs))
    // A mean of K numbers in another order, in f64.
    close([after.expectation], [before.expectation], before.quantiles.length * 2 ** -53 * size, `${name}, expectation`)
    if (before.quantiles.some((value, k) => k > 0 && value < before.quantiles[k - 1])) crossed++
  }
  check('mixture', sorted, plain)
  close([sorted.utility], [plain.utility], 1e-14 * Math.abs(plain.utility), 'utility')
  for (const [name, before] of Object.entries(plain.attributes)) check(name, sorted.attributes[name], before)
  const { score, gate, tokens } = plain
  assert.equal({ score: sorted.score, gate: sorted.gate, tokens: sorted.tokens }, { score, gate, tokens })
  return crossed
}

test('the option rearrange sorts attributes and mixture, and leaves all means', async () => {
  const device = await openDevice('wasm', { threads: 1 })
  const model = await loadRewardModel(device, await fixtureModel('qrm/debiased'))
  try {
    const plain = await model.score(ROWS)
    assert.equal(await model.score(ROWS, { rearrange: false }), plain)
    const sorted = await model.score(ROWS, { rearrange: true })
    const crossed = plain.map((score, n) => compare(sorted[n], score))
    assert.ok(Math.min(...crossed) > 0, 'nothing crosses in a row, so nothing was tested')
  } finally {
    await model.destroy()
    await device.destroy()
  }
})

test('score --rearrange sorts and says so', async () => {
  const place = await openWorkplace()
  try {
    const score = async (...args: string[]) => {
      const { code, out, err } = await place.pinball(
        ['score', '--model', qrm, ...WASM, '--json', ...args, '-'],
        lines(...ROWS),
      )
      assert.equal([code, err], [0, ''])
      return JSON.parse(out)
    }
    const [plain, sorted] = [await score(), await score('--rearrange')]
    assert.is(sorted.rearranged, true)
    assert.not.ok('rearranged' in plain)
    for (const [n, result] of sorted.results.entries()) assert.ok(compare(result, plain.results[n]) > 0)
  } finally {
    await place.remove()
  }
})

test.run()
