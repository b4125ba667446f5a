// The embedded model's card says what was measured, and its data are split in TypeScript as in Python.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fillCard, tables } from '../models/card.ts'
import { ATTRIBUTES, fraction, isCalibration, partOf, verbosity } from '../models/nano/rows.ts'
import { type Metrics, SYSTEMS } from '../models/recipe.ts'
import { openDirectory } from '../src/files/disk.ts'
import { readAdapter } from '../src/llama/adapter_files.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { readCheckpoint } from '../src/reward/checkpoint.ts'

const NANO = fileURLToPath(new URL('../models/nano/', import.meta.url))
const metrics = JSON.parse(readFileSync(`${NANO}metrics.json`, 'utf8')) as Metrics
const card = readFileSync(`${NANO}CARD.md`, 'utf8')

test('the tables of the card are those of metrics.json', () => {
  assert.is(fillCard(card, metrics), card)
  const other = structuredClone(metrics) as { systems: { QRM: { hh: { accuracy: number } } } } & Metrics
  other.systems.QRM.hh.accuracy += 0.01
  assert.is.not(fillCard(card, other), card)
  for (const system of SYSTEMS) assert.ok(tables(metrics).includes(system))
  assert.throws(() => fillCard('no markers', metrics), /must have the markers/)
})

test('metrics name the heads, not where they lay when they were measured', () => {
  const names = ['qrm', 'armorm', 'bradley_terry']
  for (const system of SYSTEMS) {
    for (const { model, comparison } of Object.values(metrics.systems[system])) {
      assert.ok(names.includes(model), model)
      if (comparison) assert.is(comparison.model, 'armorm')
    }
  }
})

test('calibrated levels are covered within 0.02 on average, for every attribute', () => {
  assert.equal(Object.keys(metrics.attributes), [...ATTRIBUTES])
  for (const [name, { calibrated }] of Object.entries(metrics.attributes)) {
    assert.ok(calibrated.coverage_error <= 0.02, `${name}: ${calibrated.coverage_error}`)
    assert.is(calibrated.coverage.length, 19)
  }
})

test('the model has the attributes, the transform and the calibration of the card', async () => {
  const { manifest, transform, calibration, gate, layout } = await readCheckpoint(await openDirectory(NANO))
  assert.equal([layout, manifest.attributes, gate!.hidden.length], ['qrm', [...ATTRIBUTES], 3])
  assert.equal(
    calibration!.attributes.map(({ name }) => name),
    [...ATTRIBUTES],
  )
  const verbose = ATTRIBUTES.indexOf('verbosity')
  for (const [j, name] of ATTRIBUTES.entries()) {
    const kept = (j === verbose ? 1 : 0) - metrics.penalties[name]
    assert.ok(Math.abs(transform![verbose * ATTRIBUTES.length + j] - kept) < 1e-6, name)
  }
})

test("items are split as the backbone's scripts split them", () => {
  // Computed by fraction() of models/nano/data.py.
  const known: [string, number][] = [
    ['Hello, World!', 0.723833544546598],
    ['  Ünïcode — тест 漢字 №5  ', 0.4616796829791247],
    ['!!!', 0.9074146483325276],
    ["it's\nfine_1", 0.9492999558827755],
  ]
  for (const [text, value] of known) assert.is(fraction(text), value, text)
  assert.is(fraction('hello world'), fraction(' Hello -- WORLD '))
  const keys = Array.from({ length: 4000 }, (_, i) => `item ${i}`)
  const share = (keep: (key: string) => boolean) => keys.filter(keep).length / keys.length
  // Standard errors are below 0.008.
  assert.ok(Math.abs(share((key) => partOf(key) === 'heldout') - 0.2) < 0.03)
  assert.ok(Math.abs(share((key) => partOf(key) === 'heads') - 0.3) < 0.03)
  assert.ok(Math.abs(share(isCalibration) - 0.2) < 0.03)
  assert.equal([verbosity(''), verbosity('word '.repeat(600))], [0, 1])
})

test('nano-sft is an adapter over nano, of the size that its card says', async () => {
  const config = parseLlamaConfig(JSON.parse(readFileSync(`${NANO}config.json`, 'utf8')), 'config.json')
  const folder = fileURLToPath(new URL('../models/nano-sft/', import.meta.url))
  const { layers, config: adapter } = await readAdapter(await openDirectory(folder), config)
  const values = layers.flatMap((maps) => Object.values(maps).flatMap(({ a, b }) => [...a, ...b]))
  assert.ok(values.every(Number.isFinite))
  assert.match(readFileSync(`${folder}CARD.md`, 'utf8'), values.length.toLocaleString('en-US'))
  assert.equal([adapter.rank, adapter.alpha, adapter.task], [8, 16, 'CAUSAL_LM'])
})

test.run()
