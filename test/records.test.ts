// Records of files of every kind, told apart by content; damaged, cut off and hostile files throw errors that name them.
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { gunzipSync, gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { gzip } from '../src/files/gzip.ts'
import { readJsonList } from '../src/files/json_list.ts'
import { type FileRecord, readRecords } from '../src/files/records.ts'
import { memorySource } from '../src/files/source.ts'
import { fails } from './assert.ts'
import { random } from './random.ts'

const fixture = (name: string) => readFile(fileURLToPath(new URL(`fixtures/${name}`, import.meta.url)))
const bytes = (text: string) => new TextEncoder().encode(text)

async function records(data: Uint8Array, columns?: string[], name = 'f'): Promise<FileRecord[]> {
  const found: FileRecord[] = []
  for await (const record of readRecords(memorySource(name, data), columns ? { columns } : {})) found.push(record)
  return found
}

const ROWS = [
  { a: 1, b: 'x, ]"\\' },
  { a: null, b: 'é\n' },
  { a: [1, { c: '}' }], b: '' },
]
const JSONL = ROWS.map((row) => `${JSON.stringify(row)}\n`).join('')

test('JSON Lines, a list of JSON, and both as gzip, whatever the name says', async () => {
  const list = JSON.stringify(ROWS, null, 1)
  const expected = (what: string) => ROWS.map((value, i) => ({ where: `f ${what} ${i + 1}`, value }))
  assert.equal(await records(bytes(JSONL)), expected('line'))
  assert.equal(await records(gzipSync(JSONL)), expected('line'))
  assert.equal(await records(bytes(` \n${list}\n`)), expected('element'))
  assert.equal(await records(bytes(`\ufeff${list}`)), expected('element'))
  assert.equal(await records(gzipSync(list)), expected('element'))
  assert.equal(
    (await records(bytes(JSONL), ['b', 'z'])).map(({ value }) => value),
    ROWS.map(({ b }) => ({ b })),
  )
  for (const empty of ['', '[]', ' [ ] ']) assert.equal(await records(bytes(empty)), [])
  assert.equal(await records(gzipSync('')), [])
})

test('a JSON list is read in pieces of any size', async () => {
  const data = bytes(JSON.stringify(ROWS))
  for (let size = 1; size < 12; size++) {
    async function* chunks() {
      for (let at = 0; at < data.length; at += size) yield data.slice(at, at + size)
    }
    const found = []
    for await (const { element, value } of readJsonList(chunks(), 'f')) found.push([element, value])
    assert.equal(
      found,
      [...ROWS.entries()].map(([i, row]) => [i + 1, row]),
    )
  }
})

test('what is no list of records is refused by element or line', async () => {
  const broken: [string, string | RegExp][] = [
    ['{"a": 1}\n7\n', 'f line 2: a row must be an object, got 7'],
    ['{"a": 1}\n{"a"\n', /^f line 2: not valid JSON/],
    ['[{"a": 1}, 7]', 'f element 2: a row must be an object, got 7'],
    ['[{"a": 1}, {"a" 1}]', /^f element 2: not valid JSON/],
    ['[{"a": 1}, {"a": 1, "a": 2}]', 'f element 2: "a" is there twice'],
    ['[{"a": 1}, ]', /^f element 2: not valid JSON/],
    ['[, {"a": 1}]', /^f element 1: not valid JSON/],
    ['[{"a": 1}', 'f: the JSON list is cut off after element 0; fetch it again'],
    ['[{"a": 1}, {"a', 'f: the JSON list is cut off after element 1; fetch it again'],
    ['[{"a": 1}] [', 'f: must hold one JSON list, more follows it'],
    ['[{"a": 1}]]', 'f: must hold one JSON list, more follows it'],
    ['[{"a": 1]]', /^f element 1: not valid JSON/],
  ]
  for (const [text, message] of broken) await fails(() => records(bytes(text)), message)
})

test('gzip: cut off and damaged files, several members', async () => {
  const draw = random(3)
  const text = Array.from({ length: 400 }, () => JSON.stringify({ a: draw.next(), b: 'text' })).join('\n')
  const whole = gzipSync(text)
  assert.is((await records(whole)).length, 400)
  assert.is((await records(Buffer.concat([whole, gzipSync(`\n${text}`)]))).length, 800)
  for (const length of [3, 10, 200, whole.length - 9, whole.length - 1]) {
    await fails(() => records(whole.subarray(0, length)), /^f: not valid gzip, it is damaged or cut off \(.+\); fetch/)
  }
  for (const at of [whole.length - 2, whole.length - 6]) {
    const damaged = Uint8Array.from(whole)
    damaged[at] ^= 1
    await fails(() => records(damaged), /^f: not valid gzip/)
  }
})

test('gzip: files that are written are gzip, an error of the rows passes through, reading may stop early', async () => {
  async function* rows() {
    for (let i = 0; i < 1000; i++) yield bytes(`{"n": ${i}}\n`)
  }
  const parts: Uint8Array[] = []
  for await (const part of gzip(rows())) parts.push(part)
  assert.is(gunzipSync(Buffer.concat(parts)).toString().split('\n').length, 1001)
  assert.is((await records(Buffer.concat(parts))).length, 1000)
  async function* bad() {
    yield bytes('a')
    throw new Error('no more rows')
  }
  await fails(async () => {
    for await (const _ of gzip(bad()));
  }, 'no more rows')
  for await (const { value } of readRecords(memorySource('f', Buffer.concat(parts)))) {
    assert.equal(value, { n: 0 })
    break
  }
})

test('Parquet: strings, lists and structs, only the wanted columns, one row group at a time', async () => {
  const data = await fixture('datasets/code-ultrafeedback.parquet')
  const lines = `${await fixture('datasets/code-ultrafeedback.jsonl')}`.trim().split('\n')
  const rows = lines.map((line) => JSON.parse(line))
  assert.equal(
    await records(data),
    rows.map((value, i) => ({ where: `f row ${i + 1}`, value })),
  )
  assert.equal(
    (await records(data, ['preference', 'absent'])).map(({ value }) => value),
    rows.map(({ preference }) => ({ preference })),
  )
  // The first row group is given before the second is read.
  const reads: number[] = []
  const source = memorySource('f', data)
  const counted = {
    ...source,
    read(at: number, length: number) {
      reads.push(at)
      return source.read(at, length)
    },
  }
  const found = readRecords(counted, { columns: ['instruction'] })
  await found.next()
  const before = reads.length
  await found.next()
  assert.ok(reads.length > before, `${reads}`)
  assert.ok((await found.next()).done)
})

test('Parquet: damaged files throw errors of one line that name the file', async () => {
  const draw = random(8)
  const whole = new Uint8Array(await fixture('datasets/argilla-capybara.parquet'))
  for (let length = 4; length < whole.length; length += 97) await fails(() => records(whole.slice(0, length)), /^f: /)
  let refused = 0
  for (let round = 0; round < 200; round++) {
    const damaged = whole.slice()
    for (const at of draw.integers(3, 4, whole.length)) damaged[at] ^= 1 << Math.floor(8 * draw.next())
    try {
      await records(damaged)
    } catch (error) {
      refused++
      await fails(() => Promise.reject(error), /^f[: ][^\n]+$/)
    }
  }
  assert.ok(refused > 50, `${refused} of 200 were refused`)
})

test.run()
