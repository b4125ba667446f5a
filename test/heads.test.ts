// Heads in the three published layouts against PyTorch, their files, and what is done to heads: fixed weights, debiasing, calibration.
import { readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openSafetensors, readTensor, readTensorF32 } from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles, memorySource } from '../src/files/source.ts'
import { readCheckpoint } from '../src/reward/checkpoint.ts'
import { conformalOffset, encodeCalibration, headsDigest, roundUp } from '../src/reward/conformal.ts'
import { debias, PENALTIES, spearman } from '../src/reward/debias.ts'
import { encodeCheckpoint } from '../src/reward/encode.ts'
import { type HeadOptions, loadHeads } from '../src/reward/heads.ts'
import { close, fails, tolerance } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { joined, json } from './qrm.ts'
import { random } from './random.ts'

const FOLDER = fileURLToPath(new URL('fixtures/heads/', import.meta.url))
const NAMES = ['armorm', 'classifier', 'qrm', 'qrm_v2']
const [D, ROWS] = [24, 6]

async function bytesOf(name: string): Promise<Record<string, Uint8Array>> {
  const files = await readdir(FOLDER + name)
  return Object.fromEntries(await Promise.all(files.map(async (f) => [f, await readFile(`${FOLDER}${name}/${f}`)])))
}

const directory = async (name: string): Promise<ModelFiles> => memoryFiles(name, await bytesOf(name))

async function tensorsOf(file: string): Promise<Map<string, Float32Array | Float64Array>> {
  const { tensors } = await openSafetensors(memorySource(file, await readFile(FOLDER + file)))
  const found = new Map<string, Float32Array | Float64Array>()
  for (const [name, info] of tensors) {
    found.set(
      name,
      info.dtype === 'F64' ? new Float64Array((await readTensor(info)).buffer) : await readTensorF32(info),
    )
  }
  return found
}

/** The scores of all rows of the fixture on every device. */
async function scores(name: string, files?: ModelFiles, options: HeadOptions = {}) {
  const states = await tensorsOf('states.safetensors')
  const all = []
  for (const device of await testDevices()) {
    const heads = await loadHeads(device, files ?? (await directory(name)), options)
    const [last, prompt] = ['last', 'prompt'].map((label) =>
      device.tensor([ROWS, D], { label, data: states.get(label) as Float32Array }),
    )
    all.push({ device, heads, found: await heads.score(last, prompt) })
    for (const thing of [last, prompt, heads]) thing.destroy()
  }
  return all
}

test('every layout gives what PyTorch gives from the same files', async () => {
  const expected = await tensorsOf('expected.safetensors')
  for (const name of NAMES) {
    for (const { device, heads, found } of await scores(name)) {
      const check = (field: string, values: number[]) => {
        const wanted = expected.get(`${name}.${field}`)!
        // Sums of D terms, three layers of H, each with a batch norm that may enlarge an error by its largest factor.
        close(values, wanted, tolerance(D + 3 * 16, wanted, 64), `${name}.${field} on ${device.description}`)
      }
      check(
        'score',
        found.map(({ score }) => score),
      )
      assert.is(heads.layout, name === 'qrm_v2' ? 'qrm' : name)
      if (name === 'classifier') {
        assert.equal([heads.needsPrompt, heads.attributes], [false, ['reward']])
        continue
      }
      check(
        'rewards',
        found.flatMap(({ attributes }) => Object.values(attributes).map(({ expectation }) => expectation)),
      )
      check(
        'gate',
        found.flatMap(({ gate }) => Object.values(gate)),
      )
      if (name !== 'armorm')
        check(
          'quantiles',
          found.flatMap(({ quantiles }) => quantiles),
        )
    }
  }
})

test('writing gives the bytes that PyTorch has read', async () => {
  for (const name of NAMES) {
    const files = await bytesOf(name)
    const written: Record<string, Uint8Array> = {}
    for await (const { file, chunks } of encodeCheckpoint(await readCheckpoint(memoryFiles(name, files)))) {
      written[file] = joined(chunks)
    }
    assert.equal(Object.keys(written).sort(), Object.keys(files).sort(), name)
    for (const file of Object.keys(files))
      assert.equal(Buffer.from(written[file]), Buffer.from(files[file]), `${name}/${file}`)
  }
})

test('heads take the place of other heads that the configuration of their backbone tells of', async () => {
  const { config } = await readCheckpoint(await directory('qrm'))
  for (const name of NAMES) {
    const own = await readCheckpoint(await directory(name))
    const written: Record<string, Uint8Array> = {}
    const files = encodeCheckpoint({ ...own, config: { ...config, gating_hidden_dim: 5 } })
    for await (const { file, chunks } of files) written[file] = joined(chunks)
    const { layout, regression, gate } = await readCheckpoint(memoryFiles(name, written))
    assert.equal([layout, regression, gate], [own.layout, own.regression, own.gate], name)
  }
})

test('switches: raw or debiased rewards, no transform, another mixture', async () => {
  const plain = (await scores('qrm'))[0].found
  const raw = (await scores('qrm', undefined, { rewards: 'raw' }))[0].found
  const biased = (await scores('qrm', undefined, { debias: false }))[0].found
  const mean = (await scores('qrm', undefined, { mixture: 'mean' }))[0].found
  for (const [b, score] of plain.entries()) {
    assert.is(raw[b].score, score.score)
    assert.equal(raw[b].attributes, biased[b].attributes)
    assert.is.not(biased[b].score, score.score)
    assert.is(score.attributes.verbosity.expectation, 0)
    close(
      mean[b].quantiles.map((q) => 3 * q),
      score.quantiles,
      1e-12,
      'mean',
    )
  }
})

test('fixed weights take the place of the gate, which may then be absent', async () => {
  const files = await bytesOf('armorm')
  const weights = { helpful: 0.65, verbosity: -0.4 }
  const fixed = (await scores('armorm', undefined, { weights, debias: false }))[0]
  assert.is(fixed.heads.needsPrompt, false)
  for (const { score, attributes, gate } of fixed.found) {
    assert.equal(gate, { helpful: Math.fround(0.65), verbosity: Math.fround(-0.4), kind: 0 })
    close([score], [0.65 * attributes.helpful.expectation - 0.4 * attributes.verbosity.expectation], 1e-6, 'weighted')
  }
  const manifest = JSON.parse(new TextDecoder().decode(files['pinball.json']))
  const checkpoint = await readCheckpoint(memoryFiles('m', files))
  const without: Record<string, Uint8Array> = {}
  for await (const { file, chunks } of encodeCheckpoint({ ...checkpoint, gate: null })) without[file] = joined(chunks)
  await fails(() => readCheckpoint(memoryFiles('m', without)), /missing head tensors "gating.logit_scale"/)
  without['pinball.json'] = json({ ...manifest, weights: 'mean' })
  const average = (await scores('armorm', memoryFiles('m', without)))[0].found
  const own = Object.values(average[0].gate)
  close(own, [1 / 3, 1 / 3, 1 / 3], 1e-7, 'mean of the attributes')
  without['pinball.json'] = json({ ...manifest, weights: { helpfull: 1 } })
  await fails(
    () => scores('armorm', memoryFiles('m', without)),
    /m: weights: there is no attribute "helpfull"; there are "helpful"/,
  )
  without['pinball.json'] = json({ ...manifest, weights: { helpful: 'x' } })
  await fails(
    () => scores('armorm', memoryFiles('m', without)),
    /weights: that of "helpful" must be a finite number, got "x"/,
  )
})

test('what is no layout is refused by name', async () => {
  const change = async (name: string, edit: (config: Record<string, unknown>) => void) => {
    const files = await bytesOf(name)
    const config = JSON.parse(new TextDecoder().decode(files['config.json']))
    edit(config)
    return memoryFiles('m', { ...files, 'config.json': json(config) })
  }
  await fails(
    async () => readCheckpoint(await change('classifier', (c) => Object.assign(c, { num_labels: 2 }))),
    /num_labels must be a whole number from 1 to 1, got 2/,
  )
  await fails(
    async () => readCheckpoint(await change('armorm', (c) => Object.assign(c, { gating_n_hidden: 2 }))),
    /m: unexpected|must be/,
  )
  await fails(
    async () => readCheckpoint(await change('qrm', (c) => Object.assign(c, { hidden_size: 0 }))),
    /hidden_size must be a whole number/,
  )
  await fails(
    async () => readCheckpoint(await change('qrm', (c) => Object.assign(c, { hidden_size: 25 }))),
    /must be \[15, 25\], got \[15, 24\]/,
  )
})

test("debiasing takes scipy's penalties", () => {
  const fixture = JSON.parse(readFileSync(new URL('fixtures/debias.json', import.meta.url), 'utf8'))
  const told: number[] = []
  const { transform, penalties, before, after } = debias(
    fixture.rewards,
    fixture.attributes,
    fixture.unwanted,
    undefined,
    (done, all) => told.push(done, all),
  )
  assert.equal(told, [1, 5, 2, 5, 3, 5, 4, 5, 5, 5])
  assert.equal(penalties, fixture.penalties)
  close(before, fixture.before, 1e-12, 'before')
  const others = [0, 1, 3, 4]
  close(
    others.map((j) => after[j]),
    others.map((j) => fixture.after[j]),
    1e-12,
    'after',
  )
  const wanted = Array.from(
    { length: 25 },
    (_, i) => (i % 6 === 0 ? 1 : 0) - (Math.floor(i / 5) === 2 ? penalties[i % 5] : 0),
  )
  close(transform, wanted, 1e-7, 'T')
  assert.equal([PENALTIES.length, penalties[2], transform[12]], [24, 1, 0])
})

test('debiasing: ties share ranks, constants correlate with nothing, bad input is refused', () => {
  close([spearman([1, 2, 2, 3], [10, 20, 20, 30])], [1], 1e-15, 'ties')
  close([spearman([1, 2, 3, 4], [2, 1, 4, 3])], [0.6], 1e-15, 'textbook')
  assert.ok(Number.isNaN(spearman([1, 1, 1], [1, 2, 3])))
  // A constant attribute less p v is all v: never at most 0.03 but at p = 0, where it is undefined.
  const { penalties } = debias([5, 1, 5, 2, 5, 3], 2, 1)
  assert.is(penalties[0], 0.01)
  assert.throws(() => debias([1, 2], 2, 0), /at least 2 rows of 2 rewards are needed/)
  assert.throws(() => debias([1, 2, 3, Number.NaN], 2, 0), /rewards must be finite, row 1 has NaN/)
  assert.throws(() => debias([1, 2, 3, 4], 2, 2), /must be one of 0 to 1, got 2/)
})

test('conformal offsets cover what they promise, in finite samples', () => {
  const draw = random(9)
  const n = 19
  const items = Array.from({ length: n }, (_, i) => i)
  for (const level of [0.1, 0.5, 0.85]) {
    let covered = 0
    const trials = 20_000
    for (let trial = 0; trial < trials; trial++) {
      const scores = draw.normal(n + 1)
      if (scores[n] <= conformalOffset(scores.subarray(0, n), items, level).offset) covered++
    }
    // ceil((n + 1) t) / (n + 1), which is t here; a standard error is at most 0.0036.
    const share = covered / trials
    assert.ok(Math.abs(share - level) < 4 * Math.sqrt((level * (1 - level)) / trials), `${level}: ${share}`)
  }
})

test('conformal offsets: order statistics, shares of items, levels that are too high', () => {
  const scores = [5, 1, 4, 2, 3]
  const items = [0, 1, 2, 3, 4]
  assert.equal(conformalOffset(scores, items, 0.5), { offset: 3, reached: true, items: 5, ratings: 5 })
  assert.is(conformalOffset(scores, items, 4 / 6).offset, 4)
  assert.is(conformalOffset(scores, items, 4 / 6 + 1e-6).offset, 5)
  assert.equal(conformalOffset(scores, items, 0.9), { offset: 5, reached: false, items: 5, ratings: 5 })
  // Ten ratings of one item count as much as one of another.
  const many = [...new Array(10).fill(100), 1, 2, 3]
  assert.equal(conformalOffset(many, [...new Array(10).fill(0), 1, 2, 3], 0.6), {
    offset: 3,
    reached: true,
    items: 4,
    ratings: 13,
  })
  assert.equal(conformalOffset([Number.NaN, 2], [0, 1], 0.5).offset, 2)
  assert.throws(() => conformalOffset([Number.NaN], [0], 0.5), /at least one rating/)
})

test('offsets are rounded so that ratings stay covered', () => {
  const draw = random(10)
  const [quantiles, ratings] = [draw.normal(2000), draw.normal(2000)]
  let below = 0
  for (const [i, rating] of ratings.entries()) {
    const exact = rating - quantiles[i]
    const up = roundUp(exact)
    assert.ok(up === Math.fround(up) && Math.fround(quantiles[i] + up) >= rating, `${rating} ${quantiles[i]}`)
    assert.ok(Math.abs(up - exact) <= 2 ** -23 * Math.abs(exact))
    if (Math.fround(quantiles[i] + Math.fround(exact)) < rating) below++
  }
  assert.ok(below > 0, 'rounding to the nearest would have lost some')
  assert.equal([0, 1, -1, 1e-46, -1e-46].map(roundUp), [0, 1, -1, 2 ** -149, -0])
})

test('a calibration belongs to its heads, and is added to their values', async () => {
  const files = await bytesOf('qrm')
  const { regression } = await readCheckpoint(memoryFiles('m', files))
  const offsets = random(3).normal(15)
  const attributes = ['helpful', 'verbosity', 'kind'].map((name) => ({ name, items: 9, ratings: 9, unreachable: 0 }))
  const heads = await headsDigest(regression)
  const file = joined(encodeCalibration({ offsets, attributes, heads }))
  const calibrated = memoryFiles('m', { ...files, 'calibration.safetensors': file })
  const [{ heads: loaded, found }] = await scores('qrm', calibrated, { debias: false })
  const [plain] = await scores('qrm', calibrated, { debias: false, calibration: false })
  assert.equal([loaded.calibrated, plain.heads.calibrated], [true, false])
  for (const [b, { attributes: own }] of found.entries()) {
    for (const [j, { name }] of attributes.entries()) {
      const moved = plain.found[b].attributes[name].quantiles.map((q, k) => q + offsets[j * 5 + k])
      close(own[name].quantiles, moved, 1e-6, name)
    }
  }
  const wrong = joined(encodeCalibration({ offsets, attributes, heads: '0'.repeat(64) }))
  const other = memoryFiles('m', { ...files, 'calibration.safetensors': wrong })
  await fails(() => readCheckpoint(other), /calibration.safetensors: belongs to other heads than those here/)
  const written: Record<string, Uint8Array> = {}
  for await (const { file: name, chunks } of encodeCheckpoint(await readCheckpoint(calibrated)))
    written[name] = joined(chunks)
  assert.equal(Buffer.from(written['calibration.safetensors']), Buffer.from(file))
})

test('devices close', closeDevices)

test.run()
