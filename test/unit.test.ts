// One unit, items or ratings: what a fit, a calibration and an evaluation count by, and that they agree on rows they have not seen.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { evaluateCalibration, quantilesOfFeatures } from '../src/evaluate/rated_quantiles.ts'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { calibrationNotes, evaluationNotes } from '../src/report/heads.ts'
import { calibrate } from '../src/reward/calibrate.ts'
import { conformalOffset, encodeCalibration } from '../src/reward/conformal.ts'
import { headsCheckpoint } from '../src/reward/heads_directory.ts'
import { openRatings, type RatingFile } from '../src/reward/rating_file.ts'
import { UNITS, type Unit, unitWeights } from '../src/reward/unit.ts'
import { fitHeads } from '../src/train/heads.ts'
import { ratingsProblem } from '../src/train/problem.ts'
import { fails } from './assert.ts'
import { tensor } from './command.ts'
import { random } from './random.ts'

const D = 8
const NAMES = ['plain', 'steep', 'even']
const LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]

/**
 * Items of which some are rated many times and lower than their features say, so that the two units want different quantiles; "even" has
 * as many ratings of every item.
 */
async function ratings(seed: number, items: number, uneven = true): Promise<RatingFile> {
  const draw = random(seed)
  const x = draw.normal(items * D)
  const many = draw.uniform(items)
  const rows: number[] = []
  const labels: number[] = []
  for (let n = 0; n < items; n++) {
    const often = uneven && many[n] < 0.25
    for (let t = 0; t < (often ? 40 : 6); t++) {
      const [noise] = draw.normal(1)
      const base = x[n * D] + (often ? -0.8 : 0) + noise
      rows.push(n)
      labels.push(base, 2 * base + x[n * D + 1], t < 6 ? x[n * D + 2] + noise : Number.NaN)
    }
  }
  const bytes = encodeSafetensors(
    [
      tensor('embeddings', [items, D], x),
      tensor('labels', [rows.length, 3], Float32Array.from(labels)),
      tensor('label_rows', [rows.length], BigInt64Array.from(rows, BigInt), 'I64'),
    ],
    { attributes: JSON.stringify(NAMES) },
  )
  return openRatings([memorySource(`ratings ${seed}`, new Uint8Array(Buffer.concat(bytes)))])
}

test('heads, calibration and evaluation of one unit cover what they promise, and of two they do not', async () => {
  const [own, held, seen] = [await ratings(1, 900), await ratings(2, 900), await ratings(3, 900)]
  const device = await openDevice('wasm')
  try {
    for (const unit of UNITS) {
      const other = UNITS.find((one) => one !== unit)!
      const heads = await fitHeads(ratingsProblem(own), { levels: LEVELS, alpha: 0.001, intercept: true, unit })
      assert.is(heads.metadata.unit, unit)
      const checkpoint = { ...headsCheckpoint(heads), config: { hidden_size: D } }
      const errors = async (by: Unit, on: Unit) => {
        const calibration = await calibrate(device, checkpoint, held, { unit: by })
        const found = await quantilesOfFeatures(device, { ...checkpoint, calibration }, seen)
        const { attributes, units, unequal } = evaluateCalibration(found, null, { unit: on })
        assert.equal(Object.keys(unequal), ['plain', 'steep'])
        for (const name of NAMES) assert.is(units[on].coverage_errors[name], attributes[name].coverage_error)
        return NAMES.map((name) => attributes[name].coverage_error)
      }
      for (const [m, error] of (await errors(unit, unit)).entries())
        assert.ok(error < 0.02, `${unit} ${NAMES[m]} ${error}`)
      const [plain, steep, even] = await errors(unit, other)
      assert.ok(plain > 0.03 && steep > 0.03, `${plain} ${steep}`)
      assert.ok(even < 0.02, `${even}`)
    }
  } finally {
    await device.destroy()
  }
})

test('with as many ratings of each item both units are the same bits', async () => {
  const own = await ratings(4, 120, false)
  const device = await openDevice('wasm')
  try {
    const options = { levels: [0.3, 0.7], alpha: 0.01 }
    const [one, other] = [
      await fitHeads(ratingsProblem(own), { ...options, unit: 'item' }),
      await fitHeads(ratingsProblem(own), { ...options, unit: 'rating' }),
    ]
    assert.equal(one.weight, other.weight)
    const checkpoint = { ...headsCheckpoint(one), config: { hidden_size: D } }
    const offsets = await Promise.all(
      UNITS.map(async (unit) => (await calibrate(device, checkpoint, own, { unit })).offsets),
    )
    assert.equal(offsets[0], offsets[1])
    const found = await quantilesOfFeatures(device, checkpoint, own)
    const [item, rating] = UNITS.map((unit) => evaluateCalibration(found, null, { unit }))
    assert.equal(item.attributes, rating.attributes)
    assert.equal(item.unequal, {})
  } finally {
    await device.destroy()
  }
})

test('weights of a unit: shares of an item, beside those that are given', () => {
  const ratings = [1, 2, Number.NaN, 4, 5]
  const rows = [0, 0, 0, 1, 2]
  assert.equal([...Array.from(unitWeights('item', { ratings, rows })!)], [0.5, 0.5, 0, 1, 1])
  assert.is(unitWeights('rating', { ratings, rows }), undefined)
  const weights = [2, 4, 1, 3, 0]
  assert.equal([...Array.from(unitWeights('item', { ratings, rows, weights })!)], [1, 2, 0, 3, 0])
  assert.is(unitWeights('rating', { ratings, rows, weights }), weights)
  assert.is(unitWeights('item', { ratings: [1, 2], rows: [0, 1] }), undefined)
})

test('an offset by rating counts every score alike, and what is out of range is refused', async () => {
  const scores = [5, 6, 7, 8, 1]
  const items = [0, 0, 0, 0, 1]
  // By item 1 weighs a half of all, by rating a fifth.
  assert.is(conformalOffset(scores, items, 0.3, 'item').offset, 1)
  assert.is(conformalOffset(scores, items, 0.3, 'rating').offset, 6)
  const wrong = (level: number, s: number[], i: number[], message: string) =>
    fails(() => conformalOffset(s, i, level), message)
  for (const level of [0, 1, 1.5, -0.1, Number.NaN])
    await wrong(level, [1], [0], `conformal: level must lie between 0 and 1, got ${level}`)
  await wrong(0.5, [1, 2], [0], 'conformal: items must be 2, one for each score, got 1')
  await wrong(0.5, [1, Infinity], [0, 1], 'conformal: scores must be finite, score 1 is Infinity')
})

test('rows that heads were fitted to, or calibrated on, are noticed; so is another unit', async () => {
  const [own, held] = [await ratings(1, 60), await ratings(2, 60)]
  const device = await openDevice('wasm')
  try {
    const heads = await fitHeads(ratingsProblem(own), { levels: [0.5], unit: 'rating' })
    const checkpoint = { ...headsCheckpoint(heads), config: { hidden_size: D } }
    const same = await calibrate(device, checkpoint, own, { unit: 'item' })
    assert.equal(calibrationNotes(checkpoint, same), [
      'all 60 rows to calibrate on are rows that the heads were fitted to; take rows that it has not seen',
      'the heads were fitted by rating, this calibration is by item; give both the same --unit',
    ])
    const fresh = await calibrate(device, checkpoint, held, { unit: 'rating' })
    assert.equal(calibrationNotes(checkpoint, fresh), [])
    assert.match(Buffer.concat(encodeCalibration(fresh)).toString('latin1'), '"unit":"rating"')
    const calibrated = { ...checkpoint, calibration: fresh }
    const notes = async (file: RatingFile, unit: Unit) => {
      const found = await quantilesOfFeatures(device, calibrated, file)
      return evaluationNotes(calibrated, found, { ...evaluateCalibration(found, null, { unit }), unequal: {} })
    }
    assert.equal(await notes(own, 'rating'), [
      'all 60 rows to measure on are rows that the heads were fitted to; take rows that it has not seen',
    ])
    assert.equal(await notes(held, 'item'), [
      'all 60 rows to measure on are rows that the calibration was found on; take rows that it has not seen',
      'the model is calibrated by rating, this evaluation is by item; give both the same --unit',
    ])
    assert.equal(await notes(await ratings(3, 60), 'rating'), [])
  } finally {
    await device.destroy()
  }
})

test.run()
