// Heads as files: written by one function, debiased and calibrated in memory, and what a calibration may take the place of.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { encodeSafetensors, openSafetensors } from '../src/files/safetensors.ts'
import { memoryFiles, memorySource } from '../src/files/source.ts'
import { calibrate, readUncalibrated } from '../src/reward/calibrate.ts'
import { CALIBRATION_FILE, encodeCalibration, readCalibration } from '../src/reward/conformal.ts'
import { debias, debiasHeads } from '../src/reward/debias.ts'
import { encodeHeads, readHeadsFile } from '../src/reward/heads_file.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import { stateRows } from '../src/reward/state_rows.ts'
import { close, fails } from './assert.ts'
import { tensor } from './command.ts'
import { joined, qrmFiles } from './qrm.ts'
import { random } from './random.ts'

let device: Device
test.before(async () => {
  device = await openDevice('wasm', { threads: 1 })
})
test.after(() => device.destroy())

const draw = random(3)
const [D, ROWS] = [24, 200]
const ATTRIBUTES = ['good', 'long', 'kind']
const LEVELS = [0.25, 0.75]
const weight = draw.normal(ATTRIBUTES.length * LEVELS.length * D)
const bias = draw.normal(ATTRIBUTES.length * LEVELS.length)
const METADATA = { attributes: ATTRIBUTES, levels: LEVELS, alpha: 0.5, missing: undefined, model: 'a model' }

const readBack = (bytes: readonly Uint8Array[]) => readHeadsFile(memorySource('heads', joined(bytes)))
const features = (sides: 1 | 2, count = ROWS) =>
  memorySource(
    'features',
    joined(
      encodeSafetensors([
        tensor('embeddings', sides === 1 ? [count, D] : [count / 2, 2, D], random(5).normal(count * D)),
      ]),
    ),
  )

test('heads are read as they were written', async () => {
  const transform = Float32Array.of(1, 0, 0, -0.5, 1, -0.25, 0, 0, 1)
  const bytes = encodeHeads({ columns: D, weight, bias, transform }, METADATA)
  const heads = await readBack(bytes)
  assert.equal([heads.attributes, heads.levels, heads.columns], [ATTRIBUTES, LEVELS, D])
  assert.equal([heads.weight, heads.bias, heads.transform], [weight, bias, transform])
  // Texts as they are, all else as JSON, in this order.
  assert.equal(Object.entries(heads.metadata ?? {}), [
    ['attributes', '["good","long","kind"]'],
    ['levels', '[0.25,0.75]'],
    ['alpha', '0.5'],
    ['model', 'a model'],
  ])
  const bare = await readBack(encodeHeads({ columns: D, weight }, METADATA))
  assert.equal([bare.bias, bare.transform], [null, null])
  await fails(() => encodeHeads({ columns: D + 1, weight }, METADATA), /regression_layer\.weight/)
  await fails(() => encodeHeads({ columns: D, weight, transform: bias }, METADATA), /reward_transform_matrix/)
})

test('debiasing heads is debiasing their predictions of the reference, whatever was debiased before', async () => {
  const transform = Float32Array.of(1, 0, 0, -0.5, 1, -0.25, 0, 0, 1)
  const heads = await readBack(encodeHeads({ columns: D, weight, bias, transform }, METADATA))
  const rows = await stateRows([features(2)])
  const found = await debiasHeads(device, heads, rows, { attribute: 'long', threshold: 0 })
  const states = (await rows.read(0, ROWS)) as Float32Array
  const rewards = Float64Array.from({ length: ROWS * 3 }, (_, i) => {
    let sum = 0
    for (let k = 0; k < 2; k++) {
      const head = (i % 3) * 2 + k
      sum += bias[head]
      for (let d = 0; d < D; d++) sum += states[Math.floor(i / 3) * D + d] * weight[head * D + d]
    }
    return sum / 2
  })
  const expected = debias(rewards, 3, 1, 0)
  assert.equal([found.penalties, found.heads.transform], [expected.penalties, expected.transform])
  assert.equal([found.attribute, found.unwanted, found.rows], ['long', 1, ROWS])
  const written = await readBack(encodeHeads(found.heads, found.heads.metadata))
  assert.equal([written.weight, written.transform], [weight, expected.transform])
  assert.equal(JSON.parse(written.metadata!.debias), {
    attribute: 'long',
    threshold: 0,
    penalties: [...expected.penalties],
  })
  assert.is((await debiasHeads(device, heads, rows, { attribute: 2 })).unwanted, 2)
  const unknown = /^heads has no attribute "helpsteer-verbosity"; it has "good", "long", "kind"$/
  await fails(() => debiasHeads(device, heads, rows), unknown)
  await fails(() => debiasHeads(device, heads, rows, { attribute: 3 }), /has no attribute 3;/)
  const narrow = await readBack(encodeHeads({ columns: D / 2, weight: weight.slice(0, (6 * D) / 2) }, METADATA))
  await fails(() => debiasHeads(device, narrow, rows, { attribute: 0 }), /must be for features of 24 columns/)
  const stop = AbortSignal.abort(new Error('stopped'))
  await fails(() => debiasHeads(device, heads, rows, { attribute: 0, signal: stop }), 'stopped')
})

const MODEL = qrmFiles(4, { manifest: { attributes: ATTRIBUTES, levels: [0.1, 0.3, 0.5, 0.7, 0.9] } })

async function ratings(attributes: readonly string[]) {
  const labels = random(8).normal(ROWS * attributes.length)
  const bytes = encodeSafetensors(
    [tensor('embeddings', [ROWS, D], random(5).normal(ROWS * D)), tensor('labels', [ROWS, attributes.length], labels)],
    { attributes: JSON.stringify(attributes) },
  )
  return openRatings([memorySource('ratings', joined(bytes))])
}

test('offsets make the levels cover what they promise, by names of attributes', async () => {
  const checkpoint = await readUncalibrated(memoryFiles('model', MODEL))
  const phases = new Set<string>()
  const onProgress = (doing: string) => phases.add(doing)
  const found = await calibrate(device, checkpoint, await ratings([...ATTRIBUTES, 'more']), { onProgress })
  assert.equal([...phases], ['rows', 'quantiles'])
  assert.equal(
    found.attributes.map(({ name, items, unreachable }) => [name, items, unreachable]),
    ATTRIBUTES.map((name) => [name, ROWS, 0]),
  )
  // Of the ratings that it was found on, the ceil((n + 1) t)-th smallest difference is 0.
  const { features: x, labels } = await ratings([...ATTRIBUTES, 'more'])
  const states = (await x.read(0, ROWS)) as Float32Array
  const { weight: w, bias: b } = checkpoint.regression
  for (let j = 0; j < 3; j++) {
    for (const [k, level] of [0.1, 0.3, 0.5, 0.7, 0.9].entries()) {
      const head = j * 5 + k
      const differences = Float64Array.from({ length: ROWS }, (_, i) => {
        let value = b?.[head] ?? 0
        for (let d = 0; d < D; d++) value += states[i * D + d] * w[head * D + d]
        return labels[i * 4 + j] - value - found.offsets[head]
      }).sort()
      close([differences[Math.ceil((ROWS + 1) * level) - 1]], [0], 1e-5, `attribute ${j} at ${level}`)
    }
  }
  const files = { ...MODEL, [CALIBRATION_FILE]: joined(encodeCalibration(found)) }
  const back = await readCalibration(memoryFiles('model', files), checkpoint.regression, 15)
  assert.equal(back, found)
  await fails(async () => calibrate(device, checkpoint, await ratings(['good', 'long'])), /has no ratings of "kind"/)
})

test('a calibration takes the place of one, of none and of a damaged one, not of something else', async () => {
  const checkpoint = await readUncalibrated(memoryFiles('model', MODEL))
  const bytes = joined(encodeCalibration(await calibrate(device, checkpoint, await ratings(ATTRIBUTES))))
  const open = (file: Uint8Array) => readUncalibrated(memoryFiles('model', { ...MODEL, [CALIBRATION_FILE]: file }))
  for (const length of [bytes.length, bytes.length - 1, 40, 9, 0])
    assert.is((await open(bytes.slice(0, length))).calibration, null, `${length} bytes`)
  const others = [
    joined(encodeSafetensors([tensor('offsets', [1], Float32Array.of(1))])),
    joined(encodeSafetensors([tensor('offsets', [1], Float32Array.of(1))], { attributes: '["mine"]', heads: 'mine' })),
    new TextEncoder().encode('a thesis of some length'),
    Uint8Array.of(1, 2),
  ]
  for (const file of others)
    await fails(
      () => open(file),
      'model/calibration.safetensors: is where the calibration goes, and is something else; move it away',
    )
  // What it says first is how a damaged one is known.
  assert.equal(Object.keys((await openSafetensors(memorySource('c', bytes))).metadata)[0], 'attributes')
})

test.run()
