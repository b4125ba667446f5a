// Files: safetensors against Python's, sharded models, atomic writes, JSON Lines; truncated and hostile files throw.
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { discardUnfinished, openDirectory, openFile, writeFileAtomic } from '../src/files/disk.ts'
import { parseJson, printable, show } from '../src/files/json.ts'
import { readJsonl } from '../src/files/jsonl.ts'
import {
  encodeSafetensors,
  openModelTensors,
  openSafetensors,
  readTensor,
  readTensorF32,
  type TensorData,
} from '../src/files/safetensors.ts'
import { blobSource, memoryFiles, memorySource, type Source } from '../src/files/source.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'

const fixtures = fileURLToPath(new URL('fixtures', import.meta.url))
const utf8 = (text: string) => new TextEncoder().encode(text)

function join8(chunks: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(chunks))
}

/** A file with this header text and so many bytes of data. */
function raw(header: string | Uint8Array, dataBytes: number, length?: bigint): Uint8Array {
  const text = typeof header === 'string' ? utf8(header) : header
  const file = new Uint8Array(8 + text.length + dataBytes)
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.length), true)
  file.set(text, 8)
  return file
}

/** A file with one tensor "x" of these fields, F32 [2] at bytes 0 to 8 unless they say otherwise. */
function one(fields: Record<string, unknown>, dataBytes = 8): Uint8Array {
  return raw(JSON.stringify({ x: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } }), dataBytes)
}

const open = (file: Uint8Array) => openSafetensors(memorySource('m.safetensors', file))

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'pinball-files-'))
  try {
    await work(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('reads what Python wrote', async () => {
  const { tensors, metadata } = await openSafetensors(await openFile(join(fixtures, 'python.safetensors')))
  const expected = JSON.parse(await readFile(join(fixtures, 'python.json'), 'utf8'))
  assert.equal(metadata, { format: 'pt', note: 'naïve "quoted"' })
  assert.equal([...tensors.keys()].sort(), Object.keys(expected).sort())
  for (const name of ['f64', 'f32', 'f16', 'bf16', 'empty']) {
    const info = tensors.get(name)!
    assert.equal(info.shape, expected[name].shape)
    close(await readTensorF32(info), new Float32Array(expected[name].values), 0, name)
  }
  assert.ok(Object.is((await readTensorF32(tensors.get('f16')!))[1], -0))
  assert.is(new BigInt64Array((await readTensor(tensors.get('i64')!)).buffer)[0], 7n)
  assert.equal([...(await readTensor(tensors.get('u8')!))], [0, 1, 2])
  await fails(() => readTensorF32(tensors.get('u8')!), /python.safetensors: tensor "u8" must hold floats, got U8$/)
  await tensors.get('u8')!.source.close()
})

test('reads back what it writes, wider types first, header a multiple of 8', async () => {
  const values = random(1).normal(3000)
  const tensors: TensorData[] = [
    { name: 'half', dtype: 'F16', shape: [3], data: new Uint16Array([0x3c00, 0x7c00, 0xfe00]) },
    { name: '1', dtype: 'F32', shape: [3000], data: values },
    { name: '__proto__', dtype: 'BF16', shape: [1, 1], data: new Uint16Array([0xc000]) },
    { name: 'line\n"break" 你', dtype: 'I64', shape: [], data: new BigInt64Array([-5n]) },
    { name: 'view', dtype: 'F32', shape: [2], data: values.subarray(10, 12) },
  ]
  const chunks = encodeSafetensors(tensors, { attributes: '["a"]' })
  assert.is(chunks[0].length % 8, 0)
  const { tensors: back, metadata } = await open(join8(chunks))
  assert.equal(metadata, { attributes: '["a"]' })
  assert.equal([...back.keys()], ['line\n"break" 你', '1', 'view', 'half', '__proto__'])
  close(await readTensorF32(back.get('1')!), values, 0, 'f32')
  close(await readTensorF32(back.get('view')!), values.subarray(10, 12), 0, 'view')
  close(await readTensorF32(back.get('half')!), [1, Infinity, Number.NaN], 0, 'f16')
  close(await readTensorF32(back.get('__proto__')!), [-2], 0, 'bf16')
  assert.is((await open(join8(encodeSafetensors([])))).tensors.size, 0)
})

test('widens tensors that are longer than one piece', async () => {
  const bits = Uint16Array.from({ length: 5 * 2 ** 20 }, (_, i) => i & 0x7f7f)
  const { tensors } = await open(
    join8(encodeSafetensors([{ name: 'x', dtype: 'BF16', shape: [5, 2 ** 20], data: bits }])),
  )
  const wide = await readTensorF32(tensors.get('x')!)
  const words = new Uint32Array(wide.buffer)
  assert.ok(words.every((word, i) => word === bits[i] * 65536))
})

test('refuses tensors it cannot write', async () => {
  const x: TensorData = { name: 'x', dtype: 'F32', shape: [2], data: new Float32Array(2) }
  await fails(() => encodeSafetensors([x, x]), 'safetensors: tensor "x": the name is taken')
  const short = { ...x, shape: [3] }
  await fails(() => encodeSafetensors([short]), 'safetensors: tensor "x": F32 [3] needs 12 bytes, got 8')
  await fails(() => encodeSafetensors([{ ...x, name: '__metadata__' }]), /the name is taken$/)
})

const good = { dtype: 'F32', shape: [1], data_offsets: [0, 4] }
const hostile: [string, Uint8Array, string | RegExp][] = [
  ['no bytes', new Uint8Array(0), 'm.safetensors: not a safetensors file, it has only 0 bytes'],
  ['seven bytes', new Uint8Array(7), 'm.safetensors: not a safetensors file, it has only 7 bytes'],
  ['empty header', raw('', 0), 'm.safetensors: header of 0 bytes is too short to be a JSON object'],
  ['header past the end', raw('{}', 0, 3n), 'm.safetensors: header of 3 bytes exceeds the file (10 bytes)'],
  [
    'huge header',
    raw('{}', 0, 2n ** 64n - 1n),
    'm.safetensors: header of 18446744073709551615 bytes is above the limit of 100000000',
  ],
  ['not JSON', raw('{"x":', 0), /^m.safetensors: header: not valid JSON \(.*\)$/],
  ['not an object', raw('[1]', 0), 'm.safetensors: the header must begin with {, got byte 91'],
  ['leading space', raw(' {}', 0), 'm.safetensors: the header must begin with {, got byte 32'],
  ['not UTF-8', raw(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), 0), 'm.safetensors: header: not valid UTF-8 text'],
  ['deep nesting', raw(`{"x":${'['.repeat(100000)}`, 0), /^m.safetensors: header: not valid JSON/],
  [
    'repeated name',
    raw(`{"x":${JSON.stringify(good)},"\\u0078":${JSON.stringify(good)}}`, 4),
    'm.safetensors: header: "x" is there twice',
  ],
  ['repeated field', raw('{"x":{"dtype":"U8","dtype":"F32"}}', 0), 'm.safetensors: header: "dtype" is there twice'],
  ['metadata list', raw('{"__metadata__":["a"]}', 0), 'm.safetensors: __metadata__ must be an object, got ["a"]'],
  ['metadata number', raw('{"__metadata__":{"a":1}}', 0), 'm.safetensors: __metadata__ "a" must be a string, got 1'],
  ['tensor null', raw('{"x":null}', 0), 'm.safetensors: tensor "x": must be an object, got null'],
  ['unknown field', one({ extra: 1 }), 'm.safetensors: tensor "x": unknown field "extra"'],
  ['unknown dtype', one({ dtype: 'F31' }), 'm.safetensors: tensor "x": unknown dtype "F31"'],
  ['inherited dtype', one({ dtype: 'toString' }), 'm.safetensors: tensor "x": unknown dtype "toString"'],
  ['no dtype', one({ dtype: undefined }), 'm.safetensors: tensor "x": unknown dtype nothing'],
  ['no shape', one({ shape: undefined }), /shape must be a list of whole numbers, got nothing$/],
  ['negative', one({ shape: [-2] }), 'm.safetensors: tensor "x": shape must be a list of whole numbers, got [-2]'],
  ['fraction', one({ shape: [0.5, 4] }), /shape must be a list of whole numbers, got \[0.5,4\]$/],
  ['overflow', one({ shape: [2 ** 40, 2 ** 40, 0] }), /shape \[1099511627776,1099511627776,0\] is too large$/],
  ['unsafe number', raw('{"x":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,8]}}', 8), /whole numbers/],
  ['rank', one({ shape: Array(17).fill(1) }), 'm.safetensors: tensor "x": 17 dimensions are above the limit of 16'],
  ['wrong size', one({ shape: [3] }), 'm.safetensors: tensor "x": F32 [3] needs 12 bytes, data_offsets give 8'],
  ['three offsets', one({ data_offsets: [0, 4, 8] }), /data_offsets must be two whole numbers, got \[0,4,8\]$/],
  [
    'falling offsets',
    one({ data_offsets: [8, 0] }),
    'm.safetensors: tensor "x": data_offsets must not fall, got [8,0]',
  ],
  ['past the end', one({}, 7), 'm.safetensors: tensor "x": ends at byte 8 of the data, the file has 7'],
  ['bytes left over', one({}, 9), 'm.safetensors: 1 bytes after the last tensor ("x") belong to none'],
  ['only data', raw('{}', 4), 'm.safetensors: 4 bytes after the last tensor (the header) belong to none'],
  [
    'gap at the start',
    one({ data_offsets: [4, 12] }, 12),
    'm.safetensors: tensor "x" leaves a gap after the header: it begins at byte 4 of the data, not 0',
  ],
  [
    'overlap',
    raw(JSON.stringify({ a: { ...good, shape: [2], data_offsets: [0, 8] }, b: { ...good, data_offsets: [4, 8] } }), 8),
    'm.safetensors: tensor "b" overlaps "a": it begins at byte 4 of the data, not 8',
  ],
  ['same bytes twice', raw(JSON.stringify({ a: good, b: good }), 4), /tensor "b" overlaps "a"/],
  [
    'control characters',
    raw('{"\\u001b[2J\\n":1}', 0),
    'm.safetensors: tensor "\\u001b[2J\\n": must be an object, got 1',
  ],
]

for (const [name, file, message] of hostile) test(`hostile: ${name}`, () => fails(() => open(file), message))

test('every truncation of a good file throws', async () => {
  const file = join8(encodeSafetensors([{ name: 'x', dtype: 'U8', shape: [5], data: new Uint8Array(5) }], { a: 'b' }))
  for (let length = 0; length < file.length; length++)
    await fails(() => open(file.subarray(0, length)), /^m.safetensors: /)
})

test('any single byte changed in a header gives a file or an error, nothing else', async () => {
  const file = join8(encodeSafetensors([{ name: 'x', dtype: 'F32', shape: [2], data: new Float32Array(2) }]))
  const draw = random(2)
  for (let i = 0; i < 3000; i++) {
    const changed = file.slice()
    changed[draw.integers(1, 0, file.length - 8)[0]] = draw.integers(1, 0, 256)[0]
    try {
      await open(changed)
    } catch (error) {
      assert.match((error as Error).message, /^m\.safetensors: [^\n\r]*$/)
    }
  }
})

const x4: TensorData = { name: 'a', dtype: 'U8', shape: [4], data: Uint8Array.of(1, 2, 3, 4) }
const shard = (...names: string[]) => join8(encodeSafetensors(names.map((name) => ({ ...x4, name }))))
const index = (map: unknown) => utf8(JSON.stringify({ metadata: { total_size: 12 }, weight_map: map }))
const INDEX = 'model.safetensors.index.json'
const S1 = 'model-00001-of-00002.safetensors'
const S2 = 'model-00002-of-00002.safetensors'

test('sharded models', async () => {
  const files = memoryFiles('dir', { [INDEX]: index({ a: S1, b: S2, c: S1 }), [S1]: shard('a', 'c'), [S2]: shard('b') })
  const tensors = await openModelTensors(files)
  assert.equal([...tensors.keys()].sort(), ['a', 'b', 'c'])
  assert.is(tensors.get('b')!.source.name, `dir/${S2}`)
  assert.equal([...(await readTensor(tensors.get('c')!))], [1, 2, 3, 4])
  const single = await openModelTensors(memoryFiles('dir', { 'model.safetensors': shard('z') }))
  assert.equal([...single.keys()], ['z'])
})

const broken: [string, Record<string, Uint8Array>, string][] = [
  ['nothing', {}, 'dir: neither model.safetensors nor model.safetensors.index.json is there'],
  ['no map', { [INDEX]: utf8('{}') }, `dir/${INDEX}: weight_map must be an object, got nothing`],
  ['empty map', { [INDEX]: index({}) }, `dir/${INDEX}: weight_map is empty`],
  ['missing shard', { [INDEX]: index({ a: S1 }) }, `dir/${INDEX}: shard "${S1}" is missing`],
  [
    'missing tensor',
    { [INDEX]: index({ a: S1, b: S1 }), [S1]: shard('a') },
    `dir/${S1}: tensor "b" is missing, the index puts it here`,
  ],
  [
    'unexpected tensor',
    { [INDEX]: index({ a: S1 }), [S1]: shard('a', 'b') },
    `dir/${S1}: tensor "b" is not in the index for this shard`,
  ],
  [
    'path outside',
    { [INDEX]: index({ a: '../x.safetensors' }) },
    `dir/${INDEX}: "a" must be in a file NAME.safetensors of the directory, got "../x.safetensors"`,
  ],
]
for (const [name, files, message] of broken) {
  test(`broken shards: ${name}`, () => fails(() => openModelTensors(memoryFiles('dir', files)), message))
}

test('sources read ranges and refuse others', async () => {
  await inFolder(async (folder) => {
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i)
    const path = join(folder, 'x')
    await writeFile(path, bytes)
    const sources: Source[] = [await openFile(path), memorySource('x', bytes), blobSource('x', new Blob([bytes]))]
    for (const source of sources) {
      assert.is(source.byteLength, 100)
      const part = await source.read(5, 3)
      assert.equal([...part], [5, 6, 7])
      assert.is(part.byteOffset, 0)
      assert.is((await source.read(100, 0)).length, 0)
      const bad: [number, number][] = [
        [99, 2],
        [-1, 2],
        [0, 101],
        [0.5, 1],
        [0, Number.NaN],
        [2 ** 53, 2 ** 53],
      ]
      for (const [offset, length] of bad)
        await fails(() => source.read(offset, length), /x: bytes .* are not inside its 100$/)
      await source.close()
    }
  })
})

test('disk: missing files, directories, files that shrink', async () => {
  await inFolder(async (folder) => {
    await fails(() => openFile(join(folder, 'none')), `${folder}/none: no such file`)
    await fails(() => openFile(folder), `${folder}: is a directory, a file is needed`)
    await fails(() => openDirectory(join(folder, 'none')), `${folder}/none: no such directory`)
    const path = join(folder, 'x')
    await writeFile(path, new Uint8Array(100))
    await fails(() => openDirectory(path), `${path}: is not a directory; a model is a directory with config.json`)
    await fails(() => openFile(join(path, 'y')), `${path}/y: a part of the path is not a directory`)
    const files = await openDirectory(folder)
    assert.is(await files.open('none'), null)
    assert.equal(await files.list?.(), ['x'])
    for (const name of ['../x', '..', 'a/b', ''])
      await fails(() => files.open(name), /is not the name of a file in it$/)
    const source = await openFile(path)
    await truncate(path, 40)
    assert.is((await source.read(0, 40)).length, 40)
    await fails(() => source.read(10, 50), `${path}: ended at byte 40 while it was read; it had 100 when opened`)
    await source.close()
  })
})

test('writes appear complete or not at all', async () => {
  await inFolder(async (folder) => {
    const path = join(folder, 'out')
    await writeFileAtomic(path, [Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3)])
    assert.equal([...(await readFile(path))], [1, 2, 3])
    const failing = async function* () {
      yield Uint8Array.of(9)
      throw new Error('stopped')
    }
    await fails(() => writeFileAtomic(path, failing()), 'stopped')
    assert.equal([...(await readFile(path))], [1, 2, 3], 'the old file is intact')
    await symlink(path, join(folder, 'link'))
    await writeFileAtomic(join(folder, 'link'), [Uint8Array.of(4)])
    assert.equal([...(await readFile(path))], [4], 'a link is followed, not replaced')
    assert.equal((await readdir(folder)).sort(), ['link', 'out'], 'no temporary file is left')
    await mkdir(join(folder, 'sub'))
    await fails(() => writeFileAtomic(join(folder, 'sub'), []), `${folder}/sub: cannot be written: is a directory`)
    const nowhere = join(folder, 'none', 'x')
    await fails(() => writeFileAtomic(nowhere, []), `${nowhere}: cannot be written: no such directory: ${folder}/none`)
    await fails(() => writeFileAtomic('/dev/null', []), '/dev/null: cannot be written: is not a regular file')
  })
})

test('an interrupted write can be taken back', async () => {
  await inFolder(async (folder) => {
    let finish = () => {}
    const finished = new Promise<void>((resolve) => {
      finish = resolve
    })
    const waiting = async function* () {
      yield Uint8Array.of(1)
      await finished
    }
    const write = writeFileAtomic(join(folder, 'out'), waiting())
    while ((await readdir(folder)).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.match((await readdir(folder))[0], /^\.out\..*\.tmp$/)
    discardUnfinished()
    assert.equal(await readdir(folder), [])
    finish()
    await fails(() => write, /out: cannot be written: no such directory$/)
  })
})

async function lines(text: string | Uint8Array, chunk?: number): Promise<[number, unknown][]> {
  const bytes = typeof text === 'string' ? utf8(text) : text
  const stream = async function* () {
    const step = chunk ?? bytes.length
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
  }
  const found: [number, unknown][] = []
  const input = chunk === undefined ? memorySource('r.jsonl', bytes) : stream()
  for await (const { line, value } of readJsonl(input, 'r.jsonl')) found.push([line, value])
  return found
}

test('JSON Lines: any line end, any chunks', async () => {
  const text = '{"a":"é你🙂"}\r\n[2]\n"x"\n\n  \n'
  const expected = [
    [1, { a: 'é你🙂' }],
    [2, [2]],
    [3, 'x'],
  ]
  assert.equal(await lines(text), expected)
  for (const chunk of [1, 2, 3, 7]) assert.equal(await lines(text, chunk), expected)
  assert.equal(await lines('1\n2'), [
    [1, 1],
    [2, 2],
  ])
  assert.equal(await lines('\ufeff{}'), [[1, {}]], 'a byte order mark is dropped')
  assert.equal(await lines(''), [])
  assert.equal(await lines('\n\n'), [])
})

test('JSON Lines: errors name file and line', async () => {
  await fails(() => lines('1\n\n2\n'), 'r.jsonl line 2: is blank; every line up to the last must hold a JSON value')
  await fails(() => lines('{}\n{"a":\n'), /^r.jsonl line 2: not valid JSON \(.*\)$/)
  await fails(() => lines('{"a":1,"b":{"a":2},"a":3}'), 'r.jsonl line 1: "a" is there twice')
  await fails(() => lines(Uint8Array.of(0x31, 10, 0xff)), 'r.jsonl line 2: not valid UTF-8 text')
  await fails(() => lines('\u2028{\u0001'), /^r.jsonl line 1: not valid JSON/)
})

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
const letter = (code: number) => String.fromCodePoint(code)

test('JSON: repeated names are found where they are, strings are shown on one line', async () => {
  const fine = '{"a":{"a":["a","a",{"a":1}]},"b":"a\\"b\\\\","c":[{"a":1},{"a":1}]}'
  assert.equal(parseJson(fine, 'x'), JSON.parse(fine))
  await fails(() => parseJson('[{"q\\"":1,"q\\u0022":2}]', 'x'), 'x: "q\\"" is there twice')
  assert.is(show('a\nb\u2028\u009b'), '"a\\nb\\u2028\\u009b"')
  // Line breaks, C0 and C1 controls, and what turns the direction of text: embeddings, overrides, isolates. Not their neighbours.
  const steering = [...range(0, 0x1f), ...range(0x7f, 0x9f), ...range(0x2028, 0x202e), ...range(0x2066, 0x2069)]
  for (const code of steering) assert.is(printable(letter(code)), `\\u${code.toString(16).padStart(4, '0')}`)
  const plain = [0x20, 0x7e, 0xa0, 0x2027, 0x202f, 0x2065, 0x206a, 0x1f600].map(letter).join('')
  assert.is(printable(plain), plain)
  assert.is(show('x'.repeat(200)).length, 103)
  assert.is(show(undefined), 'nothing')
})

test.run()
