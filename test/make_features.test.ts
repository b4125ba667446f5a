// Files of features made in memory, as a page makes them: what is in them, and that interrupted calls give the same bits.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { digest } from '../src/files/hash.ts'
import { recordsOf } from '../src/files/records.ts'
import { memorySource } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import { encodeStates } from '../src/reward/feature_files/layout.ts'
import { type FeatureFileOptions, type MadeFeatures, makeFeatures } from '../src/reward/feature_files/make.ts'
import { type FeatureRow, type RowChoice, readFeatureRows } from '../src/reward/feature_files/rows.ts'
import { type FeatureModel, loadFeatureModel, type Progress } from '../src/reward/features.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import type { EncodedRow } from '../src/reward/rows.ts'
import { close, fails } from './assert.ts'
import { fixtureModel } from './fixture.ts'
import { random } from './random.ts'

let device: Device
let model: FeatureModel

test.before(async () => {
  device = await openDevice('wasm', { threads: 1 })
  model = await loadFeatureModel(device, await fixtureModel('qrm/debiased'))
})

test.after(async () => {
  await model.destroy()
  await device.destroy()
})

type Row = Record<string, unknown>
const draw = random(7)
/** Short rows, more than one chunk of them. */
const RATINGS: Row[] = Array.from({ length: 1400 }, (_, n) => ({
  input_ids: [...draw.integers(2 + (n % 3), 0, 96)],
  gate_position: n % 2,
  good: n % 7 === 0 ? [0.25, null, 1] : draw.next(),
  trust: 1 + (n % 4),
  ...(n % 2 === 0 && { id: `row ${n}` }),
}))
const LABELS: RowChoice = { labels: ['good'], weights: 'trust' }

interface Place {
  readonly files: Map<string, Uint8Array>
  readonly parts: Map<string, Uint8Array>
  make(rows: Row[], choice?: RowChoice, options?: Partial<FeatureFileOptions>): Promise<MadeFeatures>
}

function openPlace(): Place {
  const [files, parts] = [new Map<string, Uint8Array>(), new Map<string, Uint8Array>()]
  const target = { store: memoryStore('here', files), file: 'f.safetensors', partial: memoryStore('parts', parts) }
  return {
    files,
    parts,
    make: async (rows, choice, options) =>
      makeFeatures(model, await readFeatureRows(recordsOf(rows), choice), { ...target, ...options }),
  }
}

/** Begins to make the ratings' file and is stopped within its second chunk. */
async function beginRatings(place: Place): Promise<void> {
  const stop = new AbortController()
  const onProgress = ({ done }: Progress) => done > 1024 && stop.abort(new Error('stopped'))
  await fails(() => place.make(RATINGS, LABELS, { gate: true, onProgress, signal: stop.signal }), 'stopped')
  assert.equal([...place.parts.keys()].sort(), ['chunk-000000.part', 'pinball-work.json'])
  assert.is(place.files.size, 0, 'nothing that is not whole')
}

test('ratings: the file holds states, labels and weights, the manifest its hash', async () => {
  const { files, parts, make } = openPlace()
  const { manifest, computed, skipped } = await make(RATINGS, LABELS, { gate: true })
  assert.equal([...files.keys()].sort(), ['f.json', 'f.safetensors'])
  assert.is(parts.size, 0, 'parts go when the file is there')
  const bytes = files.get('f.safetensors')!
  assert.equal([manifest.sha256, manifest.bytes], [await digest(new Uint8Array(bytes)), bytes.length])
  assert.equal(JSON.parse(new TextDecoder().decode(files.get('f.json'))), manifest)
  assert.equal([computed?.rows, computed?.tokens, skipped], [1400, manifest.tokens, []])
  const file = await openRatings([memorySource('f', bytes)])
  assert.equal([file.features.rows, file.features.columns, file.attributes], [1400, 32, ['good']])
  const lines = RATINGS.flatMap(({ good }) => (Array.isArray(good) ? good : [good]))
  close(
    file.labels,
    lines.map((label) => (label === null ? Number.NaN : Math.fround(label as number))),
    0,
    'labels',
  )
  assert.is(file.weights?.length, lines.length)
  const own = await model.features([{ input_ids: RATINGS[1030].input_ids as number[], gate_position: 0 }], {
    gate: true,
  })
  close(
    (await file.features.read(1030, 1)) as Float32Array,
    own.embeddings,
    1e-5,
    'states of a row of the second chunk',
  )
  close((await file.prompts!.read(1030, 1)) as Float32Array, own.promptEmbeddings!, 1e-5, 'prompt states')
  const again = await make(RATINGS, LABELS, { gate: true })
  assert.equal([again.computed, again.manifest], [null, manifest])
  assert.ok((await make(RATINGS, LABELS, { gate: true, dtype: 'bf16' })).computed, 'another type is another file')
})

test('a call that was stopped goes on with the same bits', async () => {
  const whole = openPlace()
  await whole.make(RATINGS, LABELS, { gate: true })
  const cut = openPlace()
  await beginRatings(cut)
  const before: Progress[] = []
  const { computed } = await cut.make(RATINGS, LABELS, { gate: true, onStart: (progress) => before.push(progress) })
  assert.equal([before[0].done, before[0].rows, computed?.rows], [1024, 1400, 376])
  for (const name of ['f.safetensors', 'f.json']) assert.equal(cut.files.get(name), whole.files.get(name), name)
  // Stopped after the manifest, before the parts were removed.
  cut.files.clear()
  await beginRatings(cut)
  for (const [name, bytes] of whole.files) cut.files.set(name, bytes)
  assert.is((await cut.make(RATINGS, LABELS, { gate: true })).computed, null)
  assert.is(cut.parts.size, 0)
})

test('a damaged part is made again; other settings are refused', async () => {
  const whole = openPlace()
  await whole.make(RATINGS, LABELS, { gate: true })
  const cut = openPlace()
  await beginRatings(cut)
  await fails(
    () => cut.make(RATINGS, LABELS),
    'parts/pinball-work.json: was begun with --gate true, now it is false; use the same, or give --restart or another --out',
  )
  await fails(() => cut.make(RATINGS.slice(1), LABELS, { gate: true }), /was begun with rows with the SHA-256 "/)
  const part = cut.parts.get('chunk-000000.part')!.slice()
  part[part.length >> 1] ^= 1
  cut.parts.set('chunk-000000.part', part)
  const lines: string[] = []
  const { computed } = await cut.make(RATINGS, LABELS, { gate: true, onDamage: (line) => lines.push(line) })
  assert.equal(lines, [
    'parts/chunk-000000.part is damaged; it is set aside as chunk-000000.part.damaged and made again',
  ])
  assert.is(computed?.rows, 1400)
  assert.equal(cut.files.get('f.safetensors'), whole.files.get('f.safetensors'))
})

test('files of others are refused and stay', async () => {
  const place = openPlace()
  const mine = Uint8Array.of(1, 2, 3)
  place.parts.set('thesis.txt', mine)
  await fails(
    () => place.make(RATINGS, {}, { restart: true }),
    /^parts: must be missing, empty or hold work of "features"/,
  )
  assert.equal([...place.parts], [['thesis.txt', mine]])
  place.parts.clear()
  place.files.set('f.json', mine)
  await fails(() => place.make(RATINGS, {}, { restart: true }), /^here\/f\.json: is where the manifest goes/)
  assert.equal([...place.files], [['f.json', mine]])
})

test('pairs: both sides, the prompt of each where they differ', async () => {
  const pair = (chosen: number[], rejected: number[], n: number): Row => ({
    chosen: { input_ids: chosen, gate_position: 1 },
    rejected: { input_ids: rejected, gate_position: 1 },
    subset: n % 2 === 0 ? 'even' : 'odd',
  })
  const same = [pair([1, 2, 3], [1, 2, 4, 5], 0), pair([6, 7, 3], [6, 7, 9], 1)]
  const place = openPlace()
  const { manifest } = await place.make(same)
  assert.equal([manifest.kind, manifest.rows, manifest.tokens], ['pairs', [1, 2], 13])
  const file = await openPairs([memorySource('f', place.files.get('f.safetensors')!)])
  assert.equal([file.pairs, file.subsets, file.sidesDiffer], [2, ['even', 'odd'], false])
  const differ = openPlace()
  await differ.make([...same, pair([1, 2, 3], [1, 3, 3], 2)])
  const both = await openPairs([memorySource('f', differ.files.get('f.safetensors')!)])
  assert.is(both.sidesDiffer, true)
  const prompts = await both.readPrompts([0, 2])
  assert.equal(prompts.subarray(0, 32), prompts.subarray(32, 64), 'one prompt is stored twice')
  assert.not.equal(prompts.subarray(64, 96), prompts.subarray(96, 128))
  await fails(() => place.make([same[0], { ...same[1], subset: undefined }]), /row 2: has no "subset", row 1 has one/)
})

test('two states of one prompt are stored as that of the chosen side', () => {
  const row = (gate: number[]): FeatureRow<EncodedRow> => {
    const sides = gate.map((token) => ({ input_ids: Uint32Array.of(token, 9), gate_position: 0 }))
    return { where: 'row', id: 1, sides, labels: [], weights: null, subset: null }
  }
  const rows = [row([5, 5]), row([5, 6])]
  const tensors = [
    { name: 'embeddings', dtype: 'F32', shape: [2, 1], rowBytes: 8 },
    { name: 'prompt_embeddings', dtype: 'F32', shape: [2, 1], rowBytes: 8 },
  ] as const
  const states = { embeddings: Float32Array.of(1, 2, 3, 4), promptEmbeddings: Float32Array.of(5, 6, 7, 8) }
  const [sides, prompts] = encodeStates(tensors, rows, { ...states, tokens: Uint32Array.of(2, 2, 2, 2) })
  assert.equal([...new Float32Array(sides.buffer)], [1, 2, 3, 4])
  assert.equal([...new Float32Array(prompts.buffer)], [5, 5, 7, 8])
})

test('shards hold each row once', async () => {
  const ids: unknown[] = []
  for (let index = 0; index < 3; index++) {
    const { manifest } = await openPlace().make(RATINGS.slice(0, 50), { shard: { index, count: 3 } })
    assert.ok(manifest.rows.length > 5 && manifest.rows.length < 30)
    ids.push(...manifest.rows)
  }
  assert.equal(
    ids.map(String).sort(),
    RATINGS.slice(0, 50)
      .map(({ id }, n) => String(id ?? n + 1))
      .sort(),
  )
})

test('rows that are not valid are refused by name, or skipped', async () => {
  const { make } = openPlace()
  const rows: Row[] = [{ input_ids: [1, 2], good: 1 }, { input_ids: [1, 2000] }, { input_ids: [3], good: 'x' }]
  await fails(() => make(rows), /^row 2: input_ids\[1\]/)
  await fails(
    () => make([rows[0], rows[2]], { labels: ['good'] }),
    'row 2: label "good" must be a number or null, got "x"',
  )
  const { manifest, skipped } = await make(rows, { labels: ['good'], skipInvalid: true })
  assert.equal([manifest.rows, manifest.skipped, skipped.map(({ where }) => where)], [[1], 2, ['row 3', 'row 2']])
  await fails(
    () => make([rows[1]], { skipInvalid: true, name: 'mine' }),
    /^mine: has no row that is valid; the first: /,
  )
  await fails(() => make([], { name: 'mine' }), 'mine: has no rows')
  await fails(() => make(rows, { labels: ['prompt'] }), '"prompt" is what is scored, neither a label nor a weight')
  await fails(() => make(rows, { weights: 'trust' }), 'weights need labels, whose weights they are')
  await fails(() => make([rows[0]], { labels: ['bad'] }), '--labels: no row has a field "bad"')
  await fails(() => make([rows[0]], {}, { maxLength: 1 }), 'row 1: the row has 2 tokens, --max-length allows 1')
})

test.run()
