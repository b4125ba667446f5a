// Files that nobody made on purpose, or somebody did: endless blanks, deep nesting, long cells, other formats, odd names. All end
// soon, in one line; the sizes are such that work which grows with the square of a length would not end at all.
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readCsv } from '../src/files/csv.ts'
import { decimal } from '../src/files/decimal.ts'
import { openFile, writeFileAtomic } from '../src/files/disk.ts'
import { httpSource } from '../src/files/http.ts'
import { openHub } from '../src/files/hub_cache.ts'
import { parseJson, show } from '../src/files/json.ts'
import { openNpy } from '../src/files/npy.ts'
import { readRecords, streamRecords } from '../src/files/records.ts'
import { openSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { explainSystem, messageOf } from '../src/files/system_errors.ts'
import { chooseColumns } from '../src/files/table.ts'
import { readFeatureRows } from '../src/reward/feature_files/rows.ts'
import { fails } from './assert.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pinball-'))
})
test.after(() => rm(folder, { recursive: true, force: true }))

const bytes = (text: string) => new TextEncoder().encode(text)
const many = (text: string, times = 2 ** 20) => text.repeat(times)

async function values(rows: AsyncIterable<{ value: Record<string, unknown> }>): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const { value } of rows) found.push(value)
  return found
}

const read = (data: Uint8Array) => values(readRecords(memorySource('f', data)))

async function* pieces(data: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.slice(at, at + size)
}

const stream = (data: Uint8Array, size = 1) => values(streamRecords(pieces(data, size), 'pipe'))

test('blanks are read up to a megabyte, and no further', async () => {
  const [some, more] = [many(' ', 2 ** 19), many(' ', 2 ** 23)]
  assert.equal(await read(bytes(`${some}[{"a": 1}]${some}`)), [{ a: 1 }])
  assert.equal(await read(gzipSync(`${some}{"a": 1}\n${many('\n', 2 ** 19)}`)), [{ a: 1 }])
  const line = 'f: begins with more than 1048576 bytes of blanks'
  await fails(() => read(gzipSync(more)), line)
  await fails(() => read(bytes(`${more}[{"a": 1}]`)), line)
  await fails(() => stream(bytes(more), 2 ** 16), 'pipe: begins with more than 1048576 bytes of blanks')
  await fails(() => read(gzipSync(`[{"a": 1}]${more}`)), 'f: more than 1048576 bytes of blanks are after the JSON list')
  const lines = 'f line 2: more than 1048576 bytes of blanks are there'
  await fails(() => read(gzipSync(`{"a": 1}\n${many('\n', 2 ** 23)}`)), lines)
  // Reading stops there: most of the file is never asked for.
  let asked = 0
  async function* endless() {
    for (; ; asked++) yield bytes(many('\n', 2 ** 16))
  }
  await fails(() => values(streamRecords(endless(), 'pipe')), /^pipe: begins with more than 1048576 bytes/)
  assert.ok(asked < 40, `${asked} pieces`)
})

test('JSON that is nested deep is refused where it stands', async () => {
  for (const depth of [501, 300_000]) {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ]) {
      const deep = `${many(open, depth)}1${many(close, depth)}`
      await fails(() => parseJson(deep, 'f'), 'f: is nested more than 500 deep')
      await fails(() => read(bytes(`{"a": 1}\n{"a": ${deep}}`)), 'f line 2: is nested more than 500 deep')
      await fails(() => read(bytes(`[{"a": ${deep}}]`)), 'f element 1: is nested more than 500 deep')
      await fails(() => parseJson(many(open, depth), 'f'), /^f: not valid JSON \(.*\)$/)
    }
  }
  assert.ok(Array.isArray(parseJson(`${many('[', 500)}${many(']', 500)}`, 'f')))
})

test('NaN of Python is a missing value in rows, and nowhere else', async () => {
  const text = '{"a": NaN, "b": [1, NaN], "NaN": "NaN \\"NaN", "c": {"d":NaN}}'
  const row = { a: null, b: [1, null], NaN: 'NaN "NaN', c: { d: null } }
  assert.equal(await read(bytes(`${text}\n${text}`)), [row, row])
  assert.equal(await read(bytes(`[${text}]`)), [row])
  const rated = await readFeatureRows(
    readRecords(memorySource('f', bytes('{"prompt": "p", "response": "r", "good": NaN}'))),
    {
      labels: ['good'],
    },
  )
  assert.ok(Number.isNaN(rated.rows[0].labels[0][0]))
  await fails(() => parseJson('{"a": NaN}', 'config.json'), /^config.json: not valid JSON/)
  for (const bad of ['{"a": NaNs}', '{"a": -NaN}', '{NaN: 1}', '{"a": Infinity}', '{"a": "NaN}']) {
    await fails(() => read(bytes(bad)), /^f line 1: not valid JSON \(.*\)$/)
  }
})

test('a pipe may hold a JSON list or gzip, byte by byte; Parquet needs a file', async () => {
  const rows = [{ a: 1 }, { a: 'é' }]
  const list = bytes(` ${JSON.stringify(rows, null, 1)}\n`)
  const lines = bytes(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  for (const data of [list, lines, gzipSync(list), gzipSync(lines)]) {
    for (const size of [1, 3, 1000]) assert.equal(await stream(data, size), rows)
  }
  for (const empty of ['', ' ', '[]']) assert.equal(await stream(bytes(empty)), [])
  await fails(() => stream(bytes('[{"a": 1}, 2]')), 'pipe element 2: a row must be an object, got 2')
  await fails(() => stream(bytes('PAR1....')), 'pipe: holds Parquet, which is read from its end; give the file itself')
  // Whoever stops early lets go of the pipe.
  let closed = false
  async function* open() {
    try {
      yield lines
      yield lines
    } finally {
      closed = true
    }
  }
  for await (const _ of streamRecords(open(), 'pipe')) break
  assert.ok(closed)
})

test('cells, labels and headers of a million characters take no longer than they are', async () => {
  const csv = (text: string) => readCsv(memorySource('t.csv', bytes(text)), { labels: ['y'] })
  await fails(
    () => csv(`a,y\n${many('1')}x,1\n`),
    /^t.csv line 2: feature "a" must be a finite number, got "1{99}\.\.\.; choose/,
  )
  await fails(
    () => csv(`a,y\n1,${many(' ')}x\n`),
    /^t.csv line 2: label "y" must be a finite number or empty, got " {99}\.\.\.$/,
  )
  await fails(() => csv(`a,y\n${many(' ')}x,1\n`), /^t.csv line 2: feature "a" must be a finite number, got/)
  assert.ok(Number.isNaN(decimal(`${many('1')}x`)))
  assert.ok(Number.isNaN(decimal(`${many('1')}e${many('1')}.`)))
  for (const [text, number] of Object.entries({ ' 1.5 ': 1.5, '.5': 0.5, '5.': 5, '+1e3': 1000, '-1E-3\t': -0.001 })) {
    assert.is(decimal(text), number)
  }
  for (const text of ['', ' ', '.', 'e5', '1e', '0x1', '1_000', '1 2', '1.5.'])
    assert.ok(Number.isNaN(decimal(text)), text)
  const npy = (shape: string) => {
    const header = bytes(`{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }\n`)
    const prefix = new Uint8Array([0x93, ...bytes('NUMPY'), 1, 0, header.length & 255, header.length >> 8])
    const whole = new Uint8Array(prefix.length + header.length + 24)
    whole.set(prefix)
    whole.set(header, prefix.length)
    return openNpy(memorySource('x.npy', whole))
  }
  for (const [shape, counts] of [
    ['(6,)', [6]],
    ['(2, 3)', [2, 3]],
    ['( 2 ,3L, )', [2, 3]],
  ] as const) {
    assert.equal((await npy(shape)).shape, counts)
  }
  for (const bad of ['(,)', '(2,,3)', '(2 3)', `(2${many(' ', 60000)}3)`, `(2${many(' ,', 29000)}L)`]) {
    await fails(() => npy(bad), /^x.npy: shape must be whole numbers in parentheses, the header is/)
  }
  const names = Array.from({ length: 200_000 }, (_, i) => `column ${i}`)
  const chosen = chooseColumns(names, { labels: ['column 7'], columns: names.slice(8) }, 't.csv')
  assert.equal([chosen.features.length, chosen.labels], [199_992, [7]])
  await fails(
    () => chooseColumns([...names, 'column 9'], { labels: [] }, 't.csv'),
    't.csv: column "column 9" is there twice',
  )
})

test('files of other kinds are named instead of a header of many bytes', async () => {
  const begins: [string, RegExp][] = [
    [
      'PK\x03\x04\x14\x00\x08\x08',
      /it is a ZIP archive, as .npz and .pt files are; save a .npy or safetensors file instead$/,
    ],
    ['\x1f\x8b\x08\x00\x01\x02\x03\x04', /it is packed with gzip; unpack it first$/],
    ['\x93NUMPY\x01\x00', /it is a NumPy array; its name must end in .npy$/],
    ['PAR1\x15\x04\x15\x10', /it is a Parquet file; its name must end in .parquet$/],
    ['\x80\x02}q\x00(X\x01', /it is a pickle of Python, as .pt and .bin files are; save a safetensors file instead$/],
    ['version https://git-lfs', /it is the pointer that Git LFS leaves/],
    ['<!DOCTYPE html>', /it is a page of HTML; fetch the file itself$/],
  ]
  for (const [begin, words] of begins) {
    const data = new Uint8Array(100)
    data.set(Uint8Array.from(begin, (character) => character.charCodeAt(0)))
    const line = new RegExp(`^x: not a safetensors file, ${words.source}`)
    await fails(() => openSafetensors(memorySource('x', data)), line)
  }
  const header = bytes('{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}')
  const data = new Uint8Array(8 + header.length + 1)
  new DataView(data.buffer).setUint32(0, header.length, true)
  data.set(header, 8)
  const { tensors, metadata } = await openSafetensors(memorySource('x', data))
  assert.equal([[...tensors.keys()], metadata], [['a'], {}])
})

test('labels and weights that only objects have are missing', async () => {
  const rows = [{ where: 'f line 1', value: { prompt: 'p', response: 'r', good: 1 } }]
  for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty']) {
    await fails(() => readFeatureRows(rows, { labels: [name] }), `--labels: no row has a field "${name}"`)
    const weighted = readFeatureRows(rows, { labels: ['good'], weights: name })
    await fails(() => weighted, `f line 1: weight "${name}" must be a finite number of at least 0, got nothing`)
  }
  assert.equal([undefined, Number.NaN, 5n, Object, Symbol('a'), -0, 'a\u001b', null].map(show), [
    'nothing',
    'NaN',
    '5',
    'a function',
    'a symbol',
    '0',
    '"a\\u001b"',
    'null',
  ])
})

test('what the system says about paths is said in words', async () => {
  const loop = join(folder, 'loop')
  await symlink('loop', loop)
  await fails(() => openFile(loop), `${loop}: a link leads round in a circle`)
  await fails(() => writeFileAtomic(join(loop, 'x'), []), /: a link leads round in a circle$/)
  await fails(() => openFile('a\0b'), /: is no path, it has a character that no path may have$/)
  const file = join(folder, 'file')
  await writeFileAtomic(file, [bytes('a')])
  const error = await mkdir(join(file, 'x')).catch((reason: unknown) => reason)
  assert.is(messageOf(error), `${join(file, 'x')}: a part of the path is not a directory`)
  assert.equal([messageOf(new Error('own')), messageOf('text')], ['own', 'text'])
  const codes = ['EFBIG', 'EACCES', 'EIO', 'EMFILE', 'EXDEV', 'ENOSPC']
  for (const code of codes) assert.match(explainSystem({ code, message: '' }), /^[a-z][a-z ]+(\(EIO\))?$/)
  assert.equal([explainSystem({ code: 'EODD', message: '' }), explainSystem({ message: 'odd' })], ['EODD', 'odd'])
})

test('addresses that are none, and circles of redirections, are refused at once', async () => {
  const repo = { type: 'dataset', name: 'a/b' } as const
  const line = /^endpoint: must be an address as https:\/\/huggingface.co is, got "x"$/
  await fails(() => openHub(repo, '*', { endpoint: 'x', cache: folder }), line)
  let requests = 0
  const server = createServer((request, answer) => {
    requests++
    answer.writeHead(302, { location: request.url })
    answer.end()
  })
  await new Promise<void>((resolve) => server.listen(0, resolve))
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/x`
    await fails(() => httpSource(url, { name: 'f', backoffMs: 1 }), 'f: the server redirects in a circle')
    assert.ok(requests < 30, `${requests} requests`)
  } finally {
    server.close()
  }
})

test.run()
