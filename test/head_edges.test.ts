// The edges of what is done to heads: shares of items, equal correlations, calibrations that belong to others.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memoryFiles } from '../src/files/source.ts'
import {
  CALIBRATION_FILE,
  conformalOffset,
  encodeCalibration,
  headsDigest,
  readCalibration,
} from '../src/reward/conformal.ts'
import { debias, spearman, THRESHOLD } from '../src/reward/debias.ts'
import { cvar, meanVariance, utility } from '../src/reward/risk.ts'
import { fails } from './assert.ts'
import { joined } from './qrm.ts'

test('ratings of one item share its place in the order', () => {
  // Four items; those of the first count a quarter each, so that half of (4 + 1) items is reached at the third.
  const [scores, items] = [
    [1.3, 4, 1, 2, 1.2, 3, 1.1],
    [0, 3, 0, 1, 0, 2, 0],
  ]
  assert.equal(conformalOffset(scores, items, 0.5), { offset: 3, reached: true, items: 4, ratings: 7 })
  assert.is(conformalOffset(scores, items, 0.2).offset, 1.3)
  assert.is(conformalOffset(scores, items, 0.1).offset, 1.1)
  // n shares of 1 / n are a whole item, although their sum may be a hair less: 2 t = 1 item is reached by the last of its ratings.
  for (let n = 1; n <= 60; n++) {
    const one = Array.from({ length: n }, (_, i) => i)
    const found = conformalOffset(one, new Array(n).fill(7), 0.5)
    assert.equal(found, { offset: n - 1, reached: true, items: 1, ratings: n })
  }
})

test('a calibration is refused that is of another shape, not finite, or of other heads', async () => {
  const heads = { weight: Float32Array.of(1, 2, 3, 4), bias: Float32Array.of(0, 1, 2, 3) }
  const attributes = ['a', 'b'].map((name) => ({ name, items: 3, ratings: 4, unreachable: 0 }))
  const offsets = Float32Array.of(1, -2, 3, -4)
  const digest = await headsDigest(heads)
  const read = (bytes: Uint8Array[], regression: Parameters<typeof headsDigest>[0] = heads) =>
    readCalibration(memoryFiles('m', { [CALIBRATION_FILE]: joined(bytes) }), regression, 4)
  const given = { offsets, attributes, heads: digest }
  assert.equal(await read(encodeCalibration(given)), { ...given, unit: 'item' })
  assert.is(await readCalibration(memoryFiles('m', {}), heads, 4), null)
  const other = `m/${CALIBRATION_FILE}: belongs to other heads than those here; run "pinball calibrate" again, or remove it`
  await fails(() => read(encodeCalibration(given), { ...heads, weight: Float32Array.of(1, 2, 3, 5) }), other)
  await fails(() => read(encodeCalibration(given), { ...heads, bias: Float32Array.of(0, 1, 2, 4) }), other)
  await fails(() => read(encodeCalibration(given), { ...heads, bias: null }), other)
  const file = (shape: number[], data: Float32Array, names: unknown = attributes) =>
    encodeSafetensors([{ name: 'offsets', dtype: 'F32', shape, data }], {
      heads: digest,
      attributes: JSON.stringify(names),
    })
  for (const shape of [[4], [2, 2, 1], [2, 1], [3, 2]]) {
    const data = new Float32Array(shape.reduce((size, length) => size * length, 1))
    const message = `m/${CALIBRATION_FILE}: offsets must be [M, K] with 4 values, got ${JSON.stringify(shape)}`
    await fails(() => read(file(shape, data)), message)
  }
  for (const bad of [Number.NaN, Infinity, -Infinity]) {
    const message = `m/${CALIBRATION_FILE}: offsets must be finite, got ${bad} at element 2`
    await fails(() => read(file([2, 2], Float32Array.of(0, 0, bad, 0))), message)
  }
  for (const [names, shown] of [
    [attributes.slice(1), JSON.stringify(attributes.slice(1))],
    ['a', '"a"'],
    [null, 'null'],
  ]) {
    const message = `m/${CALIBRATION_FILE}: attributes in the metadata must be a list of 2, got ${shown}`
    await fails(() => read(file([2, 2], offsets, names)), message)
  }
})

test('a correlation of exactly the threshold is low enough, and the unwanted attribute loses all', async () => {
  assert.is(THRESHOLD, 0.03)
  const column = [1, 2, 3, 4, 5, 6]
  const unwanted = [2, 1, 4, 3, 6, 5]
  const rewards = column.flatMap((value, i) => [value, unwanted[i]])
  const correlation = spearman(column, unwanted)
  assert.is(debias(rewards, 2, 1, correlation).penalties[0], 0)
  assert.ok(debias(rewards, 2, 1, correlation - 1e-9).penalties[0] > 0)
  assert.equal(debias(rewards, 2, 1), debias(rewards, 2, 1, THRESHOLD))
  // At a threshold of 1 every other attribute is left alone, but never the unwanted one.
  const loose = debias(rewards, 2, 1, 1)
  assert.equal(
    [loose.penalties, [...loose.transform]],
    [
      [0, 1],
      [1, 0, 0, 0],
    ],
  )
  for (const bad of [Infinity, -Infinity]) {
    await fails(() => debias([1, 2, 3, bad, 5, 6], 2, 0), `debias: rewards must be finite, row 1 has ${bad}`)
  }
})

test('risk measures take the ends of their ranges', () => {
  assert.is(utility([3, 5], 0), -1)
  assert.is(cvar([3, 5], 1), 4)
  // Variance 1, mean 4: 4 - lambda / 2.
  assert.equal([meanVariance([3, 5], 3), meanVariance([3, 5], -1)], [2.5, 4.5])
})

test.run()
