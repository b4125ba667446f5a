// Files of ratings: several as one matrix, several labels a row, layouts of other programs, and files that do not go together.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors, type TensorData } from '../src/files/safetensors.ts'
import { memorySource, type Source } from '../src/files/source.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import { fails } from './assert.ts'
import { tensor } from './command.ts'
import { random } from './random.ts'

const D = 3
const NAMES = { attributes: '["a","b"]' }

const source = (name: string, tensors: TensorData[], metadata: Record<string, string> = {}): Source =>
  memorySource(name, Buffer.concat(encodeSafetensors(tensors, metadata)))

/** Features of `rows` rows and two labels each, that count from `from`. */
function ratings(rows: number, from = 0): TensorData[] {
  const count = (length: number, first: number) => Float32Array.from({ length }, (_, i) => first + i)
  return [
    tensor('embeddings', [rows, D], count(rows * D, from * D)),
    tensor('labels', [rows, 2], count(rows * 2, from * 2)),
  ]
}

const bits = (values: Float32Array) => Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16)

test('several files are one matrix, whatever a read spans', async () => {
  const files = [ratings(3), ratings(0), ratings(4, 3), ratings(1, 7)]
  const opened = await openRatings(files.map((file, i) => source(`f${i}`, file, NAMES)))
  const { features, labels, attributes, rowIndex, weights, prompts, fingerprint, name } = opened
  assert.equal(
    [name, features.name, features.rows, features.columns, features.dtype],
    ['f0 and 3 more', 'f0 and 3 more', 8, D, 'f32'],
  )
  assert.equal([attributes, rowIndex, weights, prompts, fingerprint], [['a', 'b'], undefined, undefined, null, null])
  assert.equal(
    [...labels],
    Array.from({ length: 16 }, (_, i) => i),
  )
  for (let first = 0; first < 8; first++) {
    for (let count = 0; first + count <= 8; count++) {
      const block = await features.read(first, count)
      assert.equal(
        [...block],
        Array.from({ length: count * D }, (_, i) => first * D + i),
        `${first}, ${count}`,
      )
    }
  }
})

test('labels of several raters, weights and states of the gate are joined', async () => {
  const [embeddings] = ratings(2)
  const several = [
    embeddings,
    tensor('labels', [3, 2], Float32Array.of(1, 2, 3, Number.NaN, 5, 6)),
    tensor('label_rows', [3], BigInt64Array.of(0n, 0n, 1n), 'I64'),
    tensor('label_weights', [3], Float32Array.of(1, 2, 3)),
    tensor(
      'prompt_embeddings',
      [2, D],
      Float32Array.from({ length: 2 * D }, (_, i) => -i),
    ),
  ]
  const [states, labels] = ratings(1, 2)
  const one = [
    states,
    labels,
    tensor('label_weights', [1], Float32Array.of(4)),
    tensor('prompt_embeddings', [1, D], Float32Array.of(7, 8, 9)),
  ]
  const metadata = { ...NAMES, fingerprint: 'f', model: 'm' }
  const opened = await openRatings([source('one', one, NAMES), source('several', several, metadata)])
  assert.equal([...opened.rowIndex!], [0, 1, 1, 2])
  assert.equal([...opened.weights!], [4, 1, 2, 3])
  assert.equal([...opened.labels], [4, 5, 1, 2, 3, Number.NaN, 5, 6])
  assert.equal([...(await opened.prompts!.read(0, 2))], [7, 8, 9, -0, -1, -2])
  assert.is(opened.fingerprint, 'f')
})

test('files of different attributes together have all of them, each file with its own', async () => {
  const [states, labels] = ratings(2)
  const turned = source('b', [states, labels], { attributes: '["c","a"]' })
  const several = source('c', [states, labels, tensor('label_rows', [2], BigInt64Array.of(1n, 1n), 'I64')], {
    attributes: '["b","c"]',
  })
  const opened = await openRatings([source('a', [states, labels], NAMES), turned, several])
  assert.equal(opened.attributes, ['a', 'b', 'c'])
  const given = [...(labels.data as Float32Array)]
  const [none, rows] = [Number.NaN, [0, 1]]
  const own = rows.map((row) => given.slice(2 * row, 2 * row + 2))
  assert.equal(
    [...opened.labels],
    [
      ...own.flatMap(([a, b]) => [a, b, none]),
      ...own.flatMap(([c, a]) => [a, none, c]),
      ...own.flatMap(([b, c]) => [none, b, c]),
    ],
  )
  assert.equal([...opened.rowIndex!], [0, 1, 2, 3, 5, 5])
})

test('the layout of the ArmoRM scripts: bfloat16 without metadata', async () => {
  const draw = random(1)
  const values = draw.normal(2 * D)
  const stored = tensor('embeddings', [2, D], bits(values), 'BF16')
  const labels = tensor('labels', [2, 19], bits(draw.uniform(38)), 'BF16')
  const foreign = await openRatings([source('a', [stored, labels]), source('b', [stored, labels])])
  assert.is(foreign.features.dtype, 'bf16')
  assert.is(foreign.attributes[0], 'helpsteer-helpfulness')
  assert.equal([...(await foreign.features.read(1, 2))], [...bits(values).subarray(D), ...bits(values).subarray(0, D)])
  const two = [stored, ratings(2)[1]]
  assert.equal((await openRatings([source('a', two)])).attributes, ['objective_0', 'objective_1'])
  assert.equal((await openRatings([source('a', two)], { attributes: ['x', 'y'] })).attributes, ['x', 'y'])
  assert.equal((await openRatings([source('a', two, NAMES)], { attributes: ['x', 'y'] })).attributes, ['a', 'b'])
  const mixed = await openRatings([source('a', two), source('b', ratings(1))])
  assert.is(mixed.features.dtype, 'f32')
  const wide = Float32Array.from(new Float32Array(Uint32Array.from(bits(values), (half) => half << 16).buffer))
  assert.equal([...(await mixed.features.read(0, 3))], [...wide, 0, 1, 2])
  await fails(
    () => openRatings([source('a', two)], { attributes: ['x'] }),
    'a: labels have 2 columns, --attributes gives 1 names',
  )
})

test('files that do not go together are refused, and stay open', async () => {
  let closed = 0
  const counted = (one: Source): Source => ({
    ...one,
    async close() {
      closed++
    },
  })
  const wrong = async (other: Source, message: string) => {
    closed = 0
    await fails(
      () => openRatings([counted(source('a', ratings(2), { ...NAMES, fingerprint: 'f' })), counted(other)]),
      message,
    )
    assert.is(closed, 0, 'whoever opened them closes them')
  }
  const [embeddings, labels] = ratings(2)
  const wide = tensor('embeddings', [2, 4], new Float32Array(8))
  await wrong(source('b', [wide, labels], NAMES), 'b: features must be of 3 columns, as those of a are, got 4')
  await wrong(
    source('b', ratings(2)),
    'b: attributes must be ["a","b"], as those of a are, got ["objective_0","objective_1"]; files that name theirs may differ',
  )
  await wrong(
    source('b', ratings(2), { ...NAMES, fingerprint: 'g' }),
    'b: was made by another model than a (fingerprint "g", not "f")',
  )
  const weights = tensor('label_weights', [2], new Float32Array(2))
  await wrong(source('b', [...ratings(2), weights], NAMES), 'a: has no tensor "label_weights", b has it')
  const prompt = tensor('prompt_embeddings', [1, 3], new Float32Array(3))
  await wrong(source('b', [...ratings(2), prompt]), 'b: prompt_embeddings must be [2,3], as embeddings are, got [1,3]')
  const infinite = tensor('labels', [2, 2], Float32Array.of(1, Number.NaN, 3, -Infinity))
  await wrong(source('b', [embeddings, infinite], NAMES), 'b: labels of "b" must be finite, row 1 has -Infinity')
  const pairs = tensor('embeddings', [2, 2, 3], new Float32Array(12))
  await wrong(
    source('b', [pairs, labels]),
    'b: embeddings must have two dimensions, got [2,2,3]: it holds pairs, which are for "pinball gate"',
  )
  await fails(() => openRatings([]), 'ratings: at least one file is needed, got none')
  await fails(
    () => openRatings([source('a', ratings(0)), source('b', ratings(0))]),
    'a and 1 more: embeddings are empty: [0,3]',
  )
})

test.run()
