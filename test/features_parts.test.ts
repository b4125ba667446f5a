// The parts of pinball features that need no model: shards, chunks, rounding, and the files that are written and read.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readManifest } from '../src/cli/feature_manifest.ts'
import { type ChunkTensor, openPartial, planChunks, removePartial } from '../src/cli/feature_partial.ts'
import { parseShard, shardName, shardOf } from '../src/cli/shards.ts'
import { openFile } from '../src/files/disk.ts'
import { encodeSafetensors, narrowBF16, widenBF16 } from '../src/files/safetensors.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import { fails } from './assert.ts'
import { tensor } from './command.ts'
import { random } from './random.ts'

let folder: string

test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pinball-features-'))
})

test.after(() => rm(folder, { recursive: true }))

// Shards

test('a shard is named by its number, or by the environment of a job', async () => {
  assert.equal(parseShard('0/4', {}), { index: 0, count: 4 })
  assert.equal(parseShard('3/4', { JOB_COMPLETION_INDEX: '1' }), { index: 3, count: 4 })
  assert.equal(parseShard('4', { JOB_COMPLETION_INDEX: '1' }), { index: 1, count: 4 })
  assert.equal(parseShard('4', { SLURM_ARRAY_TASK_ID: '2', JOB_COMPLETION_INDEX: '' }), { index: 2, count: 4 })
  assert.equal(parseShard('4', { AWS_BATCH_JOB_ARRAY_INDEX: '0', SLURM_ARRAY_TASK_ID: '0' }), { index: 0, count: 4 })
  const wrong: [string, Record<string, string>, RegExp][] = [
    ['4/4', {}, /i counts from 0, so it must be at most 3 of 4 shards, got 4/],
    ['4', { SLURM_ARRAY_TASK_ID: '4' }, /SLURM_ARRAY_TASK_ID counts from 0, so it must be at most 3/],
    ['4', {}, /"4" needs one of JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID, AWS_BATCH_JOB_ARRAY_INDEX/],
    [
      '4',
      { JOB_COMPLETION_INDEX: '1', SLURM_ARRAY_TASK_ID: '2' },
      /JOB_COMPLETION_INDEX is 1, SLURM_ARRAY_TASK_ID is 2/,
    ],
    ['4', { JOB_COMPLETION_INDEX: '-1' }, /JOB_COMPLETION_INDEX must be a whole number, got "-1"/],
    ['0', { JOB_COMPLETION_INDEX: '0' }, /must be of 1 to 99999 shards, got 0/],
    ['0/100000', {}, /must be of 1 to 99999 shards, got 100000/],
    ['1/2/3', {}, /must be i\/n with i from 0 to n - 1, .* got "1\/2\/3"/],
    ['-1/2', {}, /must be i\/n/],
    ['a', {}, /must be i\/n/],
  ]
  for (const [text, environment, message] of wrong) await fails(() => parseShard(text, environment), message)
  assert.is(shardName('a/f.safetensors', { index: 1, count: 4 }), 'a/f-00001-of-00004.safetensors')
  assert.is(shardName('a/f', { index: 12345, count: 99999 }), 'a/f-12345-of-99999.safetensors')
  assert.is(shardName('a/f', undefined), 'a/f')
})

test('the shard of a row is that of its id, or of what is scored in any order of keys', () => {
  // Computed by Python: int.from_bytes(hashlib.sha256(b'pinball shard 1\n"a"').digest()[:6], "big") % 1000, and so on.
  assert.equal([shardOf('a', {}, 1000), shardOf(7, { x: 1 }, 1000)], [704, 726])
  assert.is(shardOf(undefined, { response: 'b', prompt: 'ä' }, 1000), 409)
  assert.is(shardOf(undefined, { prompt: 'ä', response: 'b' }, 1000), 409)
  assert.is(shardOf(undefined, {}, 1), 0)
  const counts = new Array(8).fill(0)
  for (let i = 0; i < 8000; i++) counts[shardOf(i, {}, 8)]++
  // Binomial: 1000 each, with a standard deviation below 30.
  for (const count of counts) assert.ok(Math.abs(count - 1000) < 150, String(counts))
})

// Chunks

test('chunks hold every row once, within the limits, and depend on nothing else', () => {
  const tokens = [...random(1).integers(5000, 1, 900), 40_000, 3, 3]
  const chunks = planChunks(tokens)
  let next = 0
  for (const { first, count, tokens: sum } of chunks) {
    assert.is(first, next)
    next += count
    assert.is(
      sum,
      tokens.slice(first, next).reduce((a, b) => a + b, 0),
    )
    assert.ok(count <= 1024 && (count === 1 || sum <= 32_768), `${count} rows of ${sum}`)
  }
  assert.is(next, tokens.length)
  assert.ok(chunks.some(({ count, tokens: sum }) => count === 1 && sum === 40_000))
  assert.equal(planChunks(tokens.slice(0, chunks[3].first)), chunks.slice(0, 3))
  assert.equal(planChunks([]), [])
  assert.equal(
    planChunks(Array(1025).fill(1)).map(({ count }) => count),
    [1024, 1],
  )
})

const TENSORS: ChunkTensor[] = [{ name: 'embeddings', dtype: 'F32', shape: [2] }]
const CHUNKS = planChunks([30_000, 30_000, 30_000])

test('a folder of chunks goes on with what is whole, and says what differs', async () => {
  const path = join(folder, 'f.partial')
  const open = (settings: Record<string, unknown>, restart = false) =>
    openPartial(path, settings, { chunks: CHUNKS, tensors: TENSORS, restart })
  const first = await open({ '--dtype': 'f32' })
  for (const chunk of [0, 2]) await first.write(chunk, [Float32Array.of(chunk, 7)])
  const again = await open({ '--dtype': 'f32' })
  assert.equal([0, 1, 2].map(again.has), [true, false, true])
  await again.write(1, [Float32Array.of(1, 7)])
  const bytes: number[] = []
  for await (const part of again.read('embeddings')) bytes.push(...new Float32Array(part.buffer))
  assert.equal(bytes, [0, 7, 1, 7, 2, 7])
  // Cut off, of another shape, and what a write that was killed leaves.
  const name = (chunk: number) => join(path, `chunk-00000${chunk}.safetensors`)
  await writeFile(name(0), (await readFile(name(0))).subarray(0, -1))
  await writeFile(name(2), Buffer.concat(encodeSafetensors([tensor('embeddings', [1, 3], new Float32Array(3))])))
  await writeFile(join(path, '.chunk-000001.safetensors.0123456789ab.tmp'), '')
  const damaged = await open({ '--dtype': 'f32' })
  assert.equal([0, 1, 2].map(damaged.has), [false, true, false])
  assert.equal(
    (await readdir(path)).filter((file) => file.endsWith('.tmp')),
    [],
  )
  await fails(
    () => open({ '--dtype': 'bf16' }),
    `${join(path, 'settings.json')}: was begun with --dtype "f32", now it is "bf16"; go on as it was begun, or give --restart`,
  )
  assert.equal([0, 1, 2].map((await open({ '--dtype': 'bf16' }, true)).has), [false, false, false])
  assert.equal(await readdir(path), ['settings.json'])
  // Without settings chunks belong to nothing.
  await (await open({ '--dtype': 'bf16' })).write(0, [Float32Array.of(1, 1)])
  await rm(join(path, 'settings.json'))
  assert.equal([0, 1, 2].map((await open({ '--dtype': 'bf16' })).has), [false, false, false])
  await removePartial(path)
  await removePartial(path)
  assert.is((await readdir(folder)).includes('f.partial'), false)
})

test('what is not ours is left alone', async () => {
  const path = join(folder, 'mine.partial')
  await mkdir(path)
  await writeFile(join(path, 'thesis.txt'), 'a')
  const open = (at: string) => openPartial(at, {}, { chunks: CHUNKS, tensors: TENSORS, restart: true })
  await fails(() => open(path), `${path}: must hold chunks of features only, it has "thesis.txt"; move it away`)
  await removePartial(path)
  assert.equal(await readdir(path), ['thesis.txt'])
  const file = join(folder, 'file.partial')
  await writeFile(file, '')
  await fails(() => open(file), `${file}: must be a directory for finished features, it is a file; remove it`)
  const other = join(folder, 'other.json')
  for (const text of ['{"prompt":"a"}', '[1]', '{}', 'x']) {
    await writeFile(other, text)
    const message = `${other}: is where the manifest goes, and is something else; move it or choose another --out`
    await fails(() => readManifest(other), message)
  }
  for (const text of [
    '',
    '{"manifest":"pin',
    '{"manifest":"pinball features","version":1,"by',
    '{"manifest":"pinball features"}',
  ]) {
    await writeFile(other, text)
    assert.is(await readManifest(other), null, text)
  }
})

// Files

test('float32 is rounded to the nearest bfloat16, ties to even', () => {
  const draw = random(3)
  const values = Float32Array.of(
    0,
    -0,
    1,
    1.00390625,
    1.01171875,
    3.3895313892515355e38,
    -Infinity,
    ...draw.normal(1000),
  )
  const wide = new Float32Array(values.length)
  widenBF16(narrowBF16(values), wide)
  for (const [i, value] of values.entries()) {
    if (!Number.isFinite(value)) assert.is(wide[i], value)
    // Eight bits of precision: half a unit of the last place is at most 2^-8 of the value.
    else
      assert.ok(
        Math.abs(wide[i] - value) <= 2 ** -9 * 2 ** Math.ceil(Math.log2(Math.abs(value) || 1)),
        `${value}: ${wide[i]}`,
      )
  }
  assert.equal([...wide.subarray(0, 5)], [0, -0, 1, 1, 1.015625])
  assert.ok(Object.is(wide[1], -0))
  const nan = new Float32Array(1)
  widenBF16(narrowBF16(new Float32Array(Uint32Array.of(0x7f800001).buffer)), nan)
  assert.ok(Number.isNaN(nan[0]))
})

test('files of the ArmoRM scripts are read, and ours have the same bytes', async () => {
  const fixture = (name: string) => fileURLToPath(new URL(`fixtures/armorm/${name}.safetensors`, import.meta.url))
  const state = (i: number) => [0, 1, 2, 3].map((at) => (at + 10 * i) / 8)
  const rated = await openFile(fixture('ratings'))
  const ratings = await openRatings([rated])
  assert.equal([ratings.features.dtype, ratings.attributes], ['bf16', ['objective_0', 'objective_1']])
  assert.equal([...ratings.labels], [0.25, Number.NaN, 0.5, 0.75, Number.NaN, 1])
  const wide = new Float32Array(12)
  widenBF16((await ratings.features.read(0, 3)) as Uint16Array, wide)
  assert.equal([...wide], [0, 1, 2].flatMap(state))
  await rated.close()
  const paired = await openFile(fixture('pairs'))
  const pairs = await openPairs([paired])
  assert.equal([...(await pairs.readSides([1, 0]))], [2, 3, 0, 1].flatMap(state))
  assert.equal(
    [...(await pairs.readPrompts([1]))],
    state(1).map((value) => -value),
  )
  assert.equal([pairs.sidesDiffer, ...pairs.groups], [false, 0, 1])
  await paired.close()
  const bits = (values: number[]) => narrowBF16(Float32Array.from(values))
  const prompts = [0, 0, 1, 1].flatMap(state).map((value) => -value)
  const written = encodeSafetensors([
    tensor('embeddings', [2, 2, 4], bits([0, 1, 2, 3].flatMap(state)), 'BF16'),
    tensor('prompt_embeddings', [2, 2, 4], bits(prompts), 'BF16'),
  ])
  assert.equal(Buffer.concat(written), await readFile(fixture('pairs')))
})

test.run()
