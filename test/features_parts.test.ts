// The parts of pinball features that need no model: shards, chunks, rounding, and the files that are written and read.
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openFile } from '../src/files/disk.ts'
import { encodeSafetensors, narrowBF16, widenBF16 } from '../src/files/safetensors.ts'
import { planChunks } from '../src/reward/feature_files/chunks.ts'
import { parseShard } from '../src/reward/feature_files/shard_choice.ts'
import { shardName, shardOf } from '../src/reward/feature_files/shards.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import { fails } from './assert.ts'
import { tensor } from './command.ts'
import { random } from './random.ts'

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
