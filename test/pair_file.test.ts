// Files of pairs: layouts, storage types, reading by ranges, prompts told apart, and files that are damaged or do not fit.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors, type TensorData } from '../src/files/safetensors.ts'
import { memorySource, type Source } from '../src/files/source.ts'
import { expectationMap, readHeadsFile } from '../src/reward/heads_file.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'

const D = 6

function tensor(
  name: string,
  shape: number[],
  data: TensorData['data'],
  dtype: TensorData['dtype'] = 'F32',
): TensorData {
  return { name, dtype, shape, data }
}

function bytes(tensors: TensorData[], metadata: Record<string, string> = {}): Uint8Array {
  return Buffer.concat(encodeSafetensors(tensors, metadata))
}

const source = (name: string, ...file: Parameters<typeof bytes>): Source => memorySource(name, bytes(...file))

/** Upper halves of float32, and those as float32 again. */
function bf16(values: Float32Array): { bits: Uint16Array; values: Float32Array } {
  const bits = Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16)
  return { bits, values: new Float32Array(Uint32Array.from(bits, (half) => half << 16).buffer) }
}

/** Prompt states [N, 2, D] of groups: both sides of a pair, and all pairs of a group, have the same. */
function promptStates(groups: readonly number[], sides: 1 | 2): Float32Array {
  const states = new Float32Array(groups.length * sides * D)
  for (const [i, group] of groups.entries()) {
    for (let at = 0; at < sides * D; at++) states[i * sides * D + at] = group * 10 + (at % D)
  }
  return states
}

test('rows come in the order asked for, from every file and storage type', async () => {
  const draw = random(1)
  const first = draw.normal(5 * 2 * D)
  const second = bf16(draw.normal(4 * 2 * D))
  const half = Uint16Array.from({ length: 2 * 2 * D }, (_, i) => 0x3c00 + i) // 1, 1 + 2^-10, ...
  const states = [first, second.values, Float32Array.from(half, (_, i) => 1 + i / 1024)]
  const all = Float32Array.from(states.flatMap((values) => [...values]))
  const prompts = all.map((value) => -value)
  const of = (from: number, count: number) => prompts.slice(from * 2 * D, (from + count) * 2 * D)
  const negated = Uint16Array.from(second.bits, (bits) => bits ^ 0x8000)
  const pairs = await openPairs([
    source('a', [tensor('embeddings', [5, 2, D], first), tensor('prompt_embeddings', [5, 2, D], of(0, 5))]),
    source('b', [
      tensor('embeddings', [4, 2, D], second.bits, 'BF16'),
      tensor('prompt_embeddings', [4, 2, D], negated, 'BF16'),
    ]),
    source('c', [
      tensor('embeddings', [2, 2, D], half, 'F16'),
      tensor(
        'prompt_embeddings',
        [2, 2, D],
        half.map((bits) => bits ^ 0x8000),
        'F16',
      ),
    ]),
  ])
  assert.equal([pairs.name, pairs.pairs, pairs.columns, pairs.sidesDiffer], ['a', 11, D, true])
  const rows = [10, 3, 4, 3, 0, 8, 7, 9, 5, 6, 1, 2]
  const pick = (values: Float32Array) => rows.flatMap((row) => [...values.subarray(row * 2 * D, (row + 1) * 2 * D)])
  assert.equal([...(await pairs.readSides(rows))], pick(all))
  const into = new Float32Array(rows.length * 2 * D + 5).fill(7)
  const read = await pairs.readPrompts(rows, into)
  assert.equal([...read], pick(prompts))
  assert.is(read.buffer, into.buffer)
  assert.equal([...into.subarray(rows.length * 2 * D)], [7, 7, 7, 7, 7])
  assert.equal((await pairs.readSides([])).length, 0)
  await fails(() => pairs.readSides([11]), 'pairs: rows must be below 11, got 11')
  await fails(() => pairs.readSides([0.5]), 'pairs: rows must be below 11, got 0.5')
  await fails(() => pairs.readSides([0, 1], new Float32Array(23)), 'pairs: 2 rows need 24 elements, got 23')
})

test('only the bytes of the rows asked for are read, neighbours together', async () => {
  const draw = random(2)
  const file = source('a', [
    tensor('embeddings', [100, 2, D], draw.normal(100 * 2 * D)),
    tensor('prompt_embeddings', [100, D], draw.normal(100 * D)),
    tensor(
      'prompt_ids',
      [100],
      BigInt64Array.from({ length: 100 }, (_, i) => BigInt(i)),
      'I64',
    ),
  ])
  let reads: number[] = []
  const counted: Source = {
    ...file,
    read(at, length) {
      reads.push(length)
      return file.read(at, length)
    },
  }
  const pairs = await openPairs([counted])
  const most = Math.max(...reads)
  assert.ok(most < 1000, `opening read ${most} bytes at once`)
  reads = []
  await pairs.readSides([50, 51, 52, 7, 99])
  assert.equal(
    reads.sort((a, b) => a - b),
    [48, 48, 144],
  )
  reads = []
  await pairs.readPrompts([1, 3, 2])
  assert.equal(reads, [72])
})

test('prompts are told apart by their ids, else by the bits of the chosen state', async () => {
  const groups = [0, 1, 0, 2, 1, 3]
  const embeddings = tensor('embeddings', [6, 2, D], new Float32Array(6 * 2 * D).fill(1))
  for (const sides of [1, 2] as const) {
    const shape = sides === 1 ? [6, D] : [6, 2, D]
    const prompts = tensor('prompt_embeddings', shape, promptStates(groups, sides))
    const byState = await openPairs([source('a', [embeddings, prompts])])
    assert.equal([...byState.groups], groups)
    assert.is(byState.sidesDiffer, false)
    assert.equal([...(await byState.readPrompts([3, 1]))].slice(0, D + 1), [20, 21, 22, 23, 24, 25, 10])
    const ids = tensor('prompt_ids', [6], BigInt64Array.from([9n, 9n, -5n, 2n ** 53n, 9n, -5n]), 'I64')
    const byId = await openPairs([source('a', [embeddings, prompts, ids])])
    assert.equal([...byId.groups], [0, 0, 1, 2, 0, 1])
  }
  // Ids go on from file to file.
  const part = (ids: bigint[]) =>
    source('part', [
      tensor('embeddings', [2, 2, D], new Float32Array(2 * 2 * D)),
      tensor('prompt_ids', [2], BigInt64Array.from(ids), 'I64'),
    ])
  const joined = await openPairs([part([4n, 5n]), part([5n, 4n])])
  assert.equal([...joined.groups], [0, 1, 1, 0])
  assert.is(joined.hasPrompts, false)
  await fails(() => joined.readPrompts([0]), 'part: has no tensor "prompt_embeddings", which a gate needs')
  // Without either, each pair is a prompt of its own.
  const alone = await openPairs([source('a', [embeddings])])
  assert.equal([...alone.groups], [0, 1, 2, 3, 4, 5])
})

test('one bit of one rejected state makes the sides differ, in halves of words as well', async () => {
  for (const [width, dtype] of [
    [D, 'F32'],
    [5, 'BF16'],
  ] as const) {
    const words = dtype === 'F32' ? new Uint32Array(9 * 2 * width) : new Uint16Array(9 * 2 * width)
    const data = dtype === 'F32' ? new Float32Array(words.buffer) : words
    const embeddings = tensor('embeddings', [9, 2, width], new Float32Array(9 * 2 * width))
    const open = () => openPairs([source('a', [embeddings, tensor('prompt_embeddings', [9, 2, width], data, dtype)])])
    assert.is((await open()).sidesDiffer, false)
    words[words.length - 1] = 1
    assert.is((await open()).sidesDiffer, true)
    words[words.length - 1 - width] = 1
    assert.is((await open()).sidesDiffer, false)
  }
})

test('subsets name the pairs', async () => {
  const embeddings = tensor('embeddings', [3, 2, D], new Float32Array(3 * 2 * D))
  const ids = (values: bigint[]) => tensor('subset_ids', [3], BigInt64Array.from(values), 'I64')
  const metadata = { subsets: '["chat","code"]' }
  const pairs = await openPairs([source('a', [embeddings, ids([1n, 0n, 1n])], metadata)])
  assert.equal(pairs.subsets, ['code', 'chat', 'code'])
  await fails(
    () => openPairs([source('a', [embeddings, ids([1n, 2n, 1n])], metadata)]),
    'a: subset_ids must be below the 2 subsets, pair 1 has 2',
  )
  await fails(
    () => openPairs([source('a', [embeddings, ids([0n, 0n, 0n])])]),
    'a: subsets in the metadata must be a list of names, got null',
  )
})

test('damaged and unfitting files are refused, and closed', async () => {
  const ok = () => [
    tensor('embeddings', [2, 2, D], new Float32Array(2 * 2 * D)),
    tensor('prompt_embeddings', [2, D], new Float32Array(2 * D)),
  ]
  const cases: [string, Source[], string | RegExp][] = [
    [
      'no embeddings',
      [source('a', [ok()[1]])],
      /^a: has no tensor "embeddings"; make the file with "pinball features"/,
    ],
    [
      'ratings',
      [source('a', [tensor('embeddings', [2, D], new Float32Array(2 * D))])],
      `a: embeddings must be [N, 2, D], the chosen response before the rejected one, got [2,${D}]`,
    ],
    [
      'prompts of other rows',
      [source('a', [ok()[0], tensor('prompt_embeddings', [3, D], new Float32Array(3 * D))])],
      `a: prompt_embeddings must be [2, ${D}] or [2, 2, ${D}], as embeddings are, got [3,${D}]`,
    ],
    [
      'doubles',
      [source('a', [tensor('embeddings', [1, 2, 1], new Float64Array(2), 'F64')])],
      'a: embeddings must be F32, BF16 or F16, got F64',
    ],
    ['no rows', [source('a', [tensor('embeddings', [0, 2, D], new Float32Array(0))])], 'a: has no pairs'],
    ['no file', [], 'pairs: at least one file is needed, got none'],
    [
      'not all with prompts',
      [source('a', ok()), source('b', [ok()[0]])],
      'b: has no tensor "prompt_embeddings", a has it',
    ],
    [
      'two widths',
      [source('a', ok()), source('b', [tensor('embeddings', [1, 2, 3], new Float32Array(6))])],
      `b: features must be of ${D} columns, as those of a are, got 3`,
    ],
    [
      'two models',
      [source('a', ok(), { fingerprint: 'one' }), source('b', ok(), { fingerprint: 'two' })],
      'b: was made by another model than a (fingerprint "two", not "one")',
    ],
    [
      'ids of another kind',
      [source('a', [...ok(), tensor('prompt_ids', [2], new Float32Array(2))])],
      'a: prompt_ids must be I64 [2], got F32 [2]',
    ],
    ['cut short', [memorySource('a', bytes(ok()).subarray(0, 200))], /^a: tensor .* ends at byte/],
  ]
  for (const [name, sources, message] of cases) {
    let closed = 0
    const watched = sources.map((each) => ({ ...each, close: async () => void closed++ }))
    await fails(() => openPairs(watched), message).catch((error: Error) => {
      throw new Error(`${name}: ${error.message}`)
    })
    assert.is(closed, 0, `${name}: whoever opened them closes them`)
  }
})

test('a value that is not finite is named by file, tensor and pair when it is read', async () => {
  const embeddings = new Float32Array(4 * 2 * D)
  const prompts = new Float32Array(4 * D)
  embeddings[(3 * 2 + 1) * D + 2] = Number.NaN
  prompts[2 * D + 5] = -Infinity
  const file = (name: string) =>
    source(name, [tensor('embeddings', [4, 2, D], embeddings), tensor('prompt_embeddings', [4, D], prompts)])
  const pairs = await openPairs([file('a'), file('b')])
  await fails(() => pairs.readSides([0, 7]), 'b: embeddings must be finite, pair 3 (rejected) has NaN at 2')
  await fails(() => pairs.readPrompts([6, 0]), 'b: prompt_embeddings must be finite, pair 2 has -Infinity at 5')
  assert.equal((await pairs.readSides([4, 5, 6])).length, 3 * 2 * D)
})

test('expectations of heads are one linear map: means over levels, then the transform', async () => {
  const draw = random(6)
  const [M, K] = [3, 4]
  const [weight, bias, transform] = [draw.normal(M * K * D), draw.normal(M * K), draw.normal(M * M)]
  const metadata = { attributes: '["a","b","c"]', levels: '[0.2,0.4,0.6,0.8]', fingerprint: 'x' }
  const tensors = [
    tensor('regression_layer.weight', [M * K, D], weight),
    tensor('regression_layer.bias', [M * K], bias),
    tensor('reward_transform_matrix', [M, M], transform),
  ]
  const heads = await readHeadsFile(source('h', tensors, metadata))
  assert.equal([heads.attributes, heads.levels, heads.columns], [['a', 'b', 'c'], [0.2, 0.4, 0.6, 0.8], D])
  const x = draw.normal(D)
  const plain = Array.from(
    { length: M * K },
    (_, o) => bias[o] + x.reduce((sum, v, d) => sum + v * weight[o * D + d], 0),
  )
  const means = Array.from({ length: M }, (_, m) => plain.slice(m * K, (m + 1) * K).reduce((a, b) => a + b) / K)
  const expected = Array.from({ length: M }, (_, j) =>
    means.reduce((sum, mean, i) => sum + mean * transform[i * M + j], 0),
  )
  const map = expectationMap(heads)
  const found = Array.from(
    { length: M },
    (_, j) => map.bias[j] + x.reduce((sum, v, d) => sum + v * map.weight[j * D + d], 0),
  )
  // Weights are rounded to float32 once.
  close(
    found,
    expected,
    2 ** -24 * D * Math.max(...map.weight.map(Math.abs)) * Math.max(...x.map(Math.abs)),
    'expectation',
  )
  const pointHeads = await readHeadsFile(
    source('h', [tensor('regression_layer.weight', [M, D], weight.slice(0, M * D))], {
      attributes: metadata.attributes,
      point: 'true',
    }),
  )
  assert.is(pointHeads.levels, null)
  assert.equal(expectationMap(pointHeads).weight, weight.slice(0, M * D))
  const cases: [TensorData[], Record<string, string>, RegExp][] = [
    [[], metadata, /^h: has no tensor "regression_layer.weight"; make heads with "pinball fit" or "pinball ridge"$/],
    [[...tensors, tensor('x', [1], new Float32Array(1))], metadata, /^h: unexpected tensor "x"; heads have regression/],
    [
      tensors,
      { ...metadata, levels: '[0.5]' },
      /^h: regression_layer.weight must be \[3, D\] for 3 attributes at 1 levels/,
    ],
    [
      tensors,
      { levels: metadata.levels },
      /^h: attributes in the metadata must be a list of different names, got null$/,
    ],
    [tensors, { attributes: metadata.attributes }, /^h: levels in the metadata must be a list of numbers, got null$/],
    [
      [tensors[0], tensor('regression_layer.bias', [2], new Float32Array(2))],
      metadata,
      /^h: regression_layer.bias must be \[12\], got \[2\]$/,
    ],
    [
      [tensor('regression_layer.weight', [12, D], new Float32Array(12 * D).fill(Number.NaN))],
      metadata,
      /must be finite, got NaN at element 0$/,
    ],
  ]
  for (const [list, about, message] of cases) await fails(() => readHeadsFile(source('h', list, about)), message)
})

test.run()
