// Parquet: files of pyarrow give what pyarrow reads, or say what they hold; hostile ones end in one line and take no memory.
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { crc32 } from '../src/files/crc32.ts'
import { openParquet } from '../src/files/parquet.ts'
import { readRecords } from '../src/files/records.ts'
import { memorySource, watchReads } from '../src/files/source.ts'
import { close, fails } from './assert.ts'
import {
  closed,
  dictionary,
  differences,
  int32,
  MAGIC,
  page,
  parquetFile,
  struct,
  type WrittenColumn,
} from './parquet_writer.ts'
import { random } from './random.ts'

interface Written {
  readonly seed: number
  readonly file: string
  readonly names: string[]
  readonly rows: unknown[][]
}

const packed = await readFile(fileURLToPath(new URL('fixtures/parquet_files.jsonl.gz', import.meta.url)))
const files = `${gunzipSync(packed)}`
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Written)
const bytesOf = ({ file }: Written) => new Uint8Array(Buffer.from(file, 'base64'))

async function read(data: Uint8Array, columns?: string[]): Promise<Record<string, unknown>[]> {
  const rows: Record<string, unknown>[] = []
  for await (const { value } of readRecords(memorySource('f', data), columns ? { columns } : {})) rows.push(value)
  return rows
}

const NUMBERS: Record<string, number> = { nan: Number.NaN, inf: Infinity, '-inf': -Infinity, '-0.0': -0 }
const WORDS: Record<string, string> = {
  integer: 'the integer -?\\d+, which is beyond 2\\^53',
  decimal: 'the decimal -?\\d+e-\\d+, which has more than 15 digits',
  binary: 'binary data',
  map: 'a map with a key that is there twice',
}

/** What a cell of the fixture stands for; times lose the zeros at the end of their fraction on both sides. */
function expected(cell: unknown): unknown {
  if (Array.isArray(cell)) return cell.map(expected)
  if (cell === null || typeof cell !== 'object') return cell
  if ('$' in cell) return NUMBERS[cell.$ as string]
  if ('$time' in cell) return cell.$time
  return Object.fromEntries(Object.entries(cell).map(([name, inner]) => [name, expected(inner)]))
}

function found(cell: unknown, like: unknown): unknown {
  if (Array.isArray(cell)) return cell.map((inner, i) => found(inner, Array.isArray(like) ? like[i] : null))
  if (typeof cell === 'string' && like !== null && typeof like === 'object' && '$time' in like) {
    return cell.replace(/(\.\d*?)0+(?=Z?$)/, '$1').replace(/\.(?=Z?$)/, '')
  }
  if (cell === null || typeof cell !== 'object' || like === null || typeof like !== 'object') return cell
  const entries = Object.entries(cell).map(([name, inner]) => [name, found(inner, own(like, name))])
  return Object.fromEntries(entries)
}

const own = (object: object, name: string) => Object.getOwnPropertyDescriptor(object, name)?.value

function reason(cell: unknown): string | null {
  return cell !== null && typeof cell === 'object' && '$refused' in cell ? (cell.$refused as string) : null
}

test('180 random files of pyarrow: every cell is what pyarrow reads, or is refused by name', async () => {
  let [cells, refused] = [0, 0]
  for (const written of files) {
    const { seed, names, rows } = written
    const all = await read(bytesOf(written))
    assert.is(all.length, rows.length, `seed ${seed}`)
    for (const [at, name] of names.entries()) {
      const first = rows.findIndex((row) => reason(row[at]) !== null)
      for (const [i, row] of rows.entries()) {
        const what = reason(row[at])
        const where = `seed ${seed}, row ${i + 1}, column ${name}`
        cells++
        if (what === null) assert.equal(found(all[i][name], row[at]), expected(row[at]), where)
        else {
          refused++
          const line = new RegExp(`^f row ${i + 1}: column "${name}.*" holds ${WORDS[what]}$`)
          // Only whoever asks for it hears of it.
          await fails(async () => all[i][name], line)
          assert.ok(name in all[i] && !Object.keys(all[i]).includes(name), where)
          if (i === first) await fails(() => read(bytesOf(written), [name]), line)
        }
      }
      if (first < 0) assert.is((await read(bytesOf(written), [name])).length, rows.length)
    }
  }
  assert.ok(
    files.length === 180 && cells > 3000 && refused > 20,
    `${files.length} files, ${cells} cells, ${refused} refused`,
  )
})

test('columns of numbers in tables are the numbers of pyarrow as float32', async () => {
  let columns = 0
  for (const written of files) {
    const { seed, names, rows } = written
    for (const [at, name] of names.entries()) {
      const cells = rows.map((row) => expected(row[at]))
      const isNumber = (cell: unknown) => typeof cell === 'number' && Number.isFinite(cell)
      if (!cells.some(isNumber) || !cells.every((cell) => isNumber(cell) || cell === null)) continue
      columns++
      const { labels } = await openParquet(memorySource('f', bytesOf(written)), { labels: [name], columns: [] })
      const like = Float32Array.from(cells, (cell) => (cell === null ? Number.NaN : (cell as number)))
      close(labels, like, 0, `seed ${seed}, column ${name}`)
    }
  }
  assert.ok(columns > 40, `${columns} columns`)
})

const A: WrittenColumn = { name: 'a', type: 1, pages: [page(2, int32(5, 7))] }

test('a column that cannot be read ends only what asks for it', async () => {
  const text = [3, 0, 0, 0, 97, 98, 99]
  const odd: [WrittenColumn, string][] = [
    [{ ...A, name: 'odd', codec: 3 }, 'is packed with LZO, which is not read'],
    [{ ...A, name: 'odd', codec: 77 }, 'is packed with an unknown codec, which is not read'],
    [
      { ...A, name: 'odd', pages: [page(2, int32(5, 7), { encoding: 1 })] },
      'has values of type INT32 in the encoding GROUP_VAR_INT, which is not read',
    ],
    [
      { ...A, name: 'odd', repetition: 1, pages: [page(2, [3, ...int32(5, 7)], { header: { 3: { i: 4 } } })] },
      'has levels in the encoding BIT_PACKED, which is not read',
    ],
    [{ ...A, name: 'odd', chunk: { 1: { text: 'part' } } }, 'is in another file, "part", which is not read'],
    [{ ...A, name: 'odd', chunk: { 8: { struct: {} } } }, 'is encrypted, which is not read'],
  ]
  for (const [column, words] of odd) {
    for (const columns of [
      [A, column],
      [column, A],
    ]) {
      const data = parquetFile(2, columns)
      assert.equal(await read(data, ['a']), [{ a: 5 }, { a: 7 }])
      const rows = await read(data)
      assert.equal(
        rows.map(({ a }) => a),
        [5, 7],
      )
      const line = `f: column "odd" ${words}`
      await fails(async () => rows[1].odd, line)
      await fails(() => read(data, ['odd']), line)
      const { features } = await openParquet(memorySource('f', data), { labels: [], columns: ['a'] })
      assert.equal([...(await features.read(0, 2))], [5, 7])
    }
  }
  const twice = parquetFile(2, [A, { ...A, name: 'b' }, { ...A, name: 'b' }])
  assert.equal(await read(twice, ['a']), [{ a: 5 }, { a: 7 }])
  await fails(() => read(twice, ['b']), 'f: column "b" is there twice')
  // Old writers name an encoding of levels that are not there, and do not say that bytes are text.
  const levels = page(2, int32(5, 7), { header: { 3: { i: 4 }, 4: { i: 4 } } })
  assert.equal(await read(parquetFile(2, [{ ...A, pages: [levels] }])), [{ a: 5 }, { a: 7 }])
  const plain = parquetFile(1, [{ name: 't', type: 6, pages: [page(1, text)] }])
  assert.equal(await read(plain), [{ t: 'abc' }])
  const bad = parquetFile(1, [{ name: 't', type: 6, element: { 6: { i: 0 } }, pages: [page(1, [1, 0, 0, 0, 0xff])] }])
  await fails(() => read(bad, ['t']), 'f row 1: column "t" holds text that is not UTF-8')
})

test('repeated columns of old writers are lists; no bytes of other columns are read', async () => {
  // Rows [5, 6], [], [7]: repetition 0 1 0 0, definition 1 1 0 1, each as a packed group of one bit.
  const levels = [2, 0, 0, 0, 3, 0b0010, 2, 0, 0, 0, 3, 0b1011]
  const list = { name: 'l', type: 1, repetition: 2, values: 4, pages: [page(4, [...levels, ...int32(5, 6, 7)])] }
  assert.equal(await read(parquetFile(3, [list])), [{ l: [5, 6] }, { l: [] }, { l: [7] }])

  const many = Array.from({ length: 5000 }, (_, i) => i)
  const wide = ['a', 'b', 'c'].map((name) => ({ name, type: 1, pages: [page(5000, int32(...many))] }))
  const reads: number[] = []
  const data = parquetFile(5000, wide)
  const source = watchReads(memorySource('f', data), (bytes) => reads.push(bytes))
  let sum = 0
  for await (const { value } of readRecords(source, { columns: ['b'] })) sum += value.b as number
  assert.is(sum, 12497500)
  const values = reads.filter((bytes) => bytes >= 20000 && bytes < 20100)
  assert.is(values.length, 1, `${reads} of ${data.length}`)
  reads.length = 0
  for await (const _ of readRecords(source));
  assert.is(reads.filter((bytes) => bytes > 60000 && bytes < 60200).length, 1, `${reads}: chunks that lie together`)
})

test('differences of 32 bits wrap around; checksums of pages are checked where they are', async () => {
  for (const ends of [
    [0, -(2 ** 31), 10 - 2 ** 31, 5],
    [2 ** 31 - 1, -(2 ** 31), 2 ** 31 - 1, 0],
  ]) {
    const wrapping = [page(4, differences(ends), { encoding: 5 })]
    assert.equal(
      await read(parquetFile(4, [{ ...A, pages: wrapping }])),
      ends.map((a) => ({ a })),
    )
  }
  const checksum = crc32(Uint8Array.from(int32(5, 7)))
  assert.is(crc32(new TextEncoder().encode('123456789')), 0xcbf43926)
  const checked = (crc: number) => parquetFile(2, [{ ...A, pages: [page(2, int32(5, 7), { crc: crc | 0 })] }])
  assert.equal(await read(checked(checksum)), [{ a: 5 }, { a: 7 }])
  const line = 'f: column "a" cannot be read, the file may be damaged (the checksum of a page is wrong)'
  await fails(() => read(checked(checksum ^ 1)), line)
})

test('files that announce what they do not have end in one line, before memory is taken for it', async () => {
  const huge = 2 ** 31 - 1
  const text = { name: 'a', type: 6 }
  const cut = (line: RegExp) =>
    new RegExp(`^f: column "a" cannot be read, the file may be damaged \\(${line.source}\\)$`)
  const metadata = (line: RegExp) =>
    new RegExp(`^f: metadata cannot be read, the file may be damaged \\(${line.source}\\)$`)
  const column = (pages: number[][], more: Partial<WrittenColumn> = {}) => parquetFile(2, [{ ...A, pages, ...more }])
  // Definition levels of a run of 2^26 entries without a value, in six bytes.
  const nothing = [5, 0, 0, 0, 0x80, 0x80, 0x80, 0x40, 0]
  // Texts that are each the one before and a letter more.
  const [texts, first] = [2000, 60000]
  const grown = [
    ...differences(Array.from({ length: texts }, (_, i) => (i === 0 ? 0 : first + i - 1))),
    ...differences(Array.from({ length: texts }, (_, i) => (i === 0 ? first : 1))),
    ...Array.from({ length: first + texts }, () => 97),
  ]
  const broken: [string, Uint8Array, RegExp][] = [
    [
      'a page of 2 GB, not packed',
      column([page(2, int32(5, 7), { unpacked: huge })]),
      cut(/a page of 8 bytes claims to be 2147483647 bytes of UNCOMPRESSED when it is unpacked/),
    ],
    [
      'of gzip',
      column([page(2, int32(5, 7), { unpacked: huge })], { codec: 2 }),
      cut(/a page of 8 bytes claims to be 2147483647 bytes of GZIP when it is unpacked/),
    ],
    [
      'of Zstandard',
      column([page(2, int32(5, 7), { unpacked: huge })], { codec: 6 }),
      cut(/a page of 8 bytes claims to be 2147483647 bytes of ZSTD when it is unpacked/),
    ],
    [
      'of 4 GB',
      column([page(2, int32(5, 7), { unpacked: 2 ** 32 })]),
      cut(/a page of 8 bytes claims to be 4294967296 bytes of UNCOMPRESSED when it is unpacked/),
    ],
    [
      'values that are missing',
      column([page(2, int32(5))]),
      cut(/a page ends at byte 4, 8 bytes from 0 on are needed/),
    ],
    ['a page that is missing', column([page(1, int32(5))]), cut(/its pages end after 1 of 2 values/)],
    [
      'pages without values',
      column(Array.from({ length: 50 }, () => page(0, []))),
      cut(/its pages end after 0 of 2 values/),
    ],
    [
      'a page beyond the chunk',
      column([struct({ 1: { i: 0 }, 2: { i: 9 }, 3: { i: huge }, 5: { struct: { 1: { i: 2 }, 2: { i: 0 } } } })]),
      cut(/a page ends at byte \d+, 2147483647 bytes from \d+ on are needed/),
    ],
    [
      'a text beyond the page',
      parquetFile(1, [{ ...text, pages: [page(1, [255, 255, 255, 255, 0])] }]),
      cut(/a page ends at byte 5, 4294967295 bytes from 4 on are needed/),
    ],
    [
      'a dictionary of 2^31 texts',
      parquetFile(1, [{ ...text, pages: [dictionary(huge, [0, 0, 0, 0]), page(1, [1, 2, 0], { encoding: 8 })] }]),
      cut(/a page ends at byte 4, 4 bytes from 4 on are needed/),
    ],
    [
      'an index beyond the dictionary',
      parquetFile(1, [{ ...text, pages: [dictionary(1, [0, 0, 0, 0]), page(1, [3, 2, 7], { encoding: 8 })] }]),
      cut(/value 7 of a dictionary of 1 is asked for/),
    ],
    [
      'no dictionary',
      parquetFile(1, [{ ...text, pages: [page(1, [3, 2, 7], { encoding: 8 })] }]),
      cut(/a page needs a dictionary, and none is before it/),
    ],
    [
      'differences of 2^31 values',
      column([page(2, [0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 7, 0], { encoding: 5 })]),
      cut(/2147483647 values are announced, 2 are there/),
    ],
    [
      'differences in no parts',
      column([page(2, [0x80, 1, 0, 2, 0], { encoding: 5 })]),
      cut(/blocks of 128 differences in 0 parts/),
    ],
    [
      'texts that share their beginnings',
      parquetFile(texts, [{ ...text, pages: [page(texts, grown, { encoding: 7 })] }]),
      cut(/a page of \d+ bytes unpacks to texts of more than \d+/),
    ],
    [
      'a level beyond the schema',
      column([page(2, [2, 0, 0, 0, 4, 1, ...int32(5, 7)])], { repetition: 2, values: 2 }),
      cut(/a page ends at .*/),
    ],
    [
      '2^26 rows in a small file',
      parquetFile(2 ** 26, [{ ...A, repetition: 1, pages: [page(2 ** 26, nothing)] }]),
      metadata(/column "a" has 67108864 values in a row group of 67108864 rows/),
    ],
    [
      '2^40 rows',
      parquetFile(2 ** 40, [A]),
      metadata(/a row group has 1099511627776 rows, more than 67108864 are not read/),
    ],
    [
      'other numbers of rows',
      parquetFile(2, [A], { announced: 3 }),
      metadata(/3 rows are announced, the row groups have 2/),
    ],
    [
      'other numbers of values',
      parquetFile(3, [{ ...A, values: 2 }]),
      metadata(/column "a" has 2 values in a row group of 3 rows/),
    ],
    [
      'a chunk beyond the end',
      column([page(2, int32(5, 7))], { meta: { 9: { i: 1e6 } } }),
      metadata(/column "a" is at bytes 1000000 to \d+/),
    ],
    [
      'a chunk of 2^62 bytes',
      column([page(2, int32(5, 7))], { meta: { 7: { i: 2n ** 62n } } }),
      metadata(/column "a" is at bytes 4 to \d+/),
    ],
    [
      'a dictionary before the file',
      column([page(2, int32(5, 7))], { meta: { 9: { i: -4 } } }),
      metadata(/column "a" is at bytes -4 to \d+/),
    ],
    [
      'a list of 2^31 elements',
      closed(MAGIC, [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7]),
      metadata(/a list of 2147483647 is announced in 0 bytes/),
    ],
    [
      'lists in lists',
      closed(MAGIC, [0x19, ...Array.from({ length: 900 }, () => 0x19), 0]),
      metadata(/its parts are nested too deep/),
    ],
    [
      'structs in structs',
      closed(MAGIC, [...Array.from({ length: 90000 }, () => 0x1c), 0]),
      metadata(/its parts are nested too deep/),
    ],
  ]
  for (const [what, data, line] of broken) {
    try {
      await read(data)
    } catch (error) {
      assert.match((error as Error).message, line, what)
      continue
    }
    assert.unreachable(`${what}: is read`)
  }
})

test('cut off and damaged files end in one line that names the file', async () => {
  const draw = random(11)
  let [refused, rounds] = [0, 0]
  for (const written of files.filter(({ seed }) => seed % 6 === 0)) {
    const whole = bytesOf(written)
    for (let length = 0; length < whole.length; length += 100) {
      if (length >= 4) await fails(() => read(whole.slice(0, length)), /^f: [^\n]+$/)
    }
    for (let round = 0; round < 20; round++) {
      const damaged = whole.slice()
      for (const at of draw.integers(2, 4, whole.length)) damaged[at] ^= 1 << Math.floor(8 * draw.next())
      rounds++
      try {
        await read(damaged)
      } catch (error) {
        refused++
        assert.match((error as Error).message, /^f[: ][^\n]+$/)
        assert.not.match((error as Error).message, /undefined|is not a function|DataView|typed array|call stack/)
      }
    }
  }
  assert.ok(refused > rounds / 2, `${refused} of ${rounds} were refused`)
})

test.run()
