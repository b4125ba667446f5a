// Feature tables: .npy as NumPy writes it, Parquet as Arrow writes it, CSV; damaged and hostile files throw.
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readCsv } from '../src/files/csv.ts'
import { openNpy } from '../src/files/npy.ts'
import { openParquet } from '../src/files/parquet.ts'
import { encodeSafetensors, openSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import {
  arrayBlocks,
  type ColumnChoice,
  readFloats,
  readRowNumbers,
  type Table,
  tensorArray,
} from '../src/files/table.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'

type Fixtures = Record<'npy' | 'parquet', Record<string, string>>
const fixtures: Fixtures = JSON.parse(
  await readFile(fileURLToPath(new URL('fixtures/tables.json', import.meta.url)), 'utf8'),
)
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'base64'))
const npy = (bytes: Uint8Array) => openNpy(memorySource('x.npy', bytes))
const named = (name: string) => npy(bytesOf(fixtures.npy[name]))
const csv = (text: string, choice: ColumnChoice = { labels: ['y'] }, separator?: string) =>
  readCsv(memorySource('t.csv', new TextEncoder().encode(text)), choice, separator)
const parquet = (name: string, choice: ColumnChoice) =>
  openParquet(memorySource('t.parquet', bytesOf(fixtures.parquet[name])), choice)

const WHOLE = Array.from({ length: 15 }, (_, i) => (7 * Math.floor(i / 3) + 3 * (i % 3)) % 11)
const QUARTERS = WHOLE.map((value) => value / 4 - 1)

// Arrays

test('.npy: every type that NumPy writes, whole and by blocks', async () => {
  for (const type of ['f2', 'f4', 'f8', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'version 2', 'version 3']) {
    const array = await named(type)
    const expected = /^[iu]/.test(type) ? WHOLE : QUARTERS
    assert.equal(array.shape, [5, 3], type)
    close(await readFloats(array, 0, 15), expected, 0, type)
    const blocks = arrayBlocks(array)
    assert.equal([blocks.name, blocks.rows, blocks.columns, blocks.dtype], ['x.npy', 5, 3, 'f32'])
    close((await blocks.read(3, 2)) as Float32Array, expected.slice(9), 0, `${type}, rows 3 and 4`)
  }
  const vector = await named('vector')
  assert.equal(vector.shape, [5])
  assert.equal((await named('scalar')).shape, [])
})

test('.npy: row numbers are integers below the rows', async () => {
  const numbers = (type: string, values: ArrayBufferView, count: number) =>
    npy(encodeNpy(`{'descr': '${type}', 'fortran_order': False, 'shape': (${count},), }`, values))
  const read = async (type: string, values: ArrayBufferView) => readRowNumbers(await numbers(type, values, 3), 9)
  assert.equal(await read('<i8', BigInt64Array.of(8n, 0n, 8n)), Uint32Array.of(8, 0, 8))
  assert.equal(await read('<u4', Uint32Array.of(1, 2, 3)), Uint32Array.of(1, 2, 3))
  await fails(
    () => read('<i8', BigInt64Array.of(0n, 9n, 0n)),
    'x.npy must be below the 9 rows of the features, entry 1 is 9',
  )
  await fails(
    () => read('<i4', Int32Array.of(-1, 0, 0)),
    'x.npy must be below the 9 rows of the features, entry 0 is -1',
  )
  await fails(() => read('<u8', BigUint64Array.of(0n, 0n, 2n ** 63n)), /entry 2 is 9223372036854775808$/)
  await fails(() => read('<f4', Float32Array.of(0, 1, 2)), 'x.npy must hold integers, got f32')
  await fails(async () => readRowNumbers(await named('i4'), 9), 'x.npy must have one dimension, got [5,3]')
})

/** A .npy file of version 1 with this header. */
function encodeNpy(header: string, data: ArrayBufferView, length?: number): Uint8Array {
  const text = new TextEncoder().encode(`${header}\n`)
  const prefix = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 0, 0)
  new DataView(prefix.buffer).setUint16(8, length ?? text.length, true)
  return new Uint8Array(Buffer.concat([prefix, text, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]))
}

test('.npy: other types, damaged and hostile headers are refused', async () => {
  const four = new Float32Array(4)
  const header = (text: string, length?: number) => npy(encodeNpy(text, four, length))
  const good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"
  assert.equal((await header(good)).shape, [2, 2])
  assert.equal((await header("{'shape':(2L,2L),'descr':'<f4','fortran_order':False}")).shape, [2, 2])
  const each = 'the header must have descr, fortran_order and shape, each once'
  const broken: [string, string | RegExp][] = [
    ['', /^x.npy: the header must be a dictionary, the header is ""$/],
    ['{}', `x.npy: ${each}, the header is "{}"`],
    [good.replace("'shape'", "'descr'"), new RegExp(`^x.npy: ${each}`)],
    [good.replace('}', "'more': True}"), new RegExp(`^x.npy: ${each}`)],
    [good.replace('False', "'no'"), /^x.npy: fortran_order must be True or False/],
    [good.replace('(2, 2)', '(2 2)'), /^x.npy: shape must be whole numbers in parentheses/],
    [good.replace('(2, 2)', '(-2, -2)'), /^x.npy: the header must have/],
    [good.replace('(2, 2)', '(1e9,)'), /^x.npy: the header must have/],
    [good.replace('(2, 2)', `(${'9'.repeat(30)},)`), /^x.npy: shape is too large/],
    [good.replace('(2, 2)', `(${'1,'.repeat(17)})`), /^x.npy: shape is too large/],
    [good.replace('(2, 2)', '(4294967296, 4294967296)'), /^x.npy: <f4 \[4294967296,4294967296\] needs \d+ bytes/],
    [good.replace('(2, 2)', '(3, 2)'), 'x.npy: <f4 [3,2] needs 24 bytes, the file has 16'],
    [good.replace('(2, 2)', '(2, 1)'), 'x.npy: <f4 [2,1] needs 8 bytes, the file has 16'],
    [
      good.replace('<f4', '|V2'),
      'x.npy: numbers of type "|V2" cannot be read; bfloat16 can be read from safetensors files',
    ],
    [good.replace('<f4', 'constructor'), /^x.npy: numbers of type "constructor" cannot be read/],
    [good.replace("'<f4'", "[('a', '<f4')]"), /^x.npy: must hold plain numbers/],
    [`${good}; import os`, /^x.npy: the header must be a dictionary/],
  ]
  for (const [text, message] of broken) await fails(() => header(text), message)
  await fails(() => header(good, 65535), /^x.npy: header of 65535 bytes exceeds the file/)
  for (const name of ['big-endian', 'complex', 'bool', 'text']) {
    await fails(() => named(name), /^x.npy: numbers of type ".+" cannot be read; save x.astype\("float32"\) instead$/)
  }
  await fails(() => named('record'), /^x.npy: must hold plain numbers, it has the fields "\[\('a'/)
  await fails(() => named('fortran'), 'x.npy: is in Fortran order; save numpy.ascontiguousarray(x) instead')
  const whole = bytesOf(fixtures.npy.f4)
  for (let length = 0; length < whole.length; length++) await fails(() => npy(whole.slice(0, length)), /^x.npy: /)
  await fails(() => npy(new Uint8Array([...whole, 0])), 'x.npy: <f4 [5,3] needs 60 bytes, the file has 61')
  const other = whole.slice()
  other[6] = 4
  await fails(() => npy(other), 'x.npy: .npy versions 1.0, 2.0 and 3.0 can be read, this is 4.0')
  const long = bytesOf(fixtures.npy['version 2'])
  new DataView(long.buffer).setUint32(8, 2 ** 31, true)
  await fails(() => npy(long), 'x.npy: header of 2147483648 bytes is above the limit of 65536')
})

test('features of safetensors files by blocks: bf16 stays, f16 and f64 become f32, all must be finite', async () => {
  const open = async (dtype: 'F32' | 'F64' | 'F16' | 'BF16', data: ArrayBufferView) => {
    const file = Buffer.concat(encodeSafetensors([{ name: 'x', dtype, shape: [2, 2], data }]))
    const { tensors } = await openSafetensors(memorySource('f.safetensors', file))
    return arrayBlocks(tensorArray(tensors.get('x')!, ['F32', 'F64', 'F16', 'BF16']))
  }
  const bits = Uint16Array.of(0x3f80, 0xc000, 0x0001, 0x7f7f)
  const kept = await open('BF16', bits)
  assert.is(kept.dtype, 'bf16')
  assert.equal(await kept.read(0, 2), bits)
  assert.equal(await kept.read(1, 1), bits.slice(2))
  const halves = await (await open('F16', Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff))).read(0, 2)
  assert.equal(halves, Float32Array.of(1, -2, 2 ** -24, 65504))
  assert.equal(
    await (await open('F64', Float64Array.of(1, 2, 0.1, 4))).read(1, 1),
    Float32Array.of(Math.fround(0.1), 4),
  )
  const broken: [Promise<{ read(first: number, count: number): Promise<unknown> }>, string][] = [
    [open('F32', Float32Array.of(1, 2, 3, Number.NaN)), 'row 1 has NaN'],
    [open('F64', Float64Array.of(1, 1e39, 3, 4)), 'row 0 has Infinity'],
    [open('F16', Uint16Array.of(0, 0, 0xfc00, 0)), 'row 1 has -Infinity'],
    [open('BF16', Uint16Array.of(0, 0, 0, 0x7fc0)), 'row 1 has NaN'],
  ]
  for (const [blocks, message] of broken) {
    await fails(async () => (await blocks).read(0, 2), `f.safetensors: x must be finite, ${message}`)
  }
  const whole = Buffer.concat(encodeSafetensors([{ name: 'x', dtype: 'I8', shape: [1, 1], data: new Int8Array(1) }]))
  const { tensors } = await openSafetensors(memorySource('f.safetensors', whole))
  await fails(() => tensorArray(tensors.get('x')!, ['F32', 'F16']), 'f.safetensors: x must be one of F32, F16, got I8')
})

// Text

/** Features, labels and weights of a table as plain lists. */
async function contents(table: Table) {
  const { rows, columns } = table.features
  const features = Array.from(await table.features.read(0, rows))
  assert.is(features.length, rows * columns)
  return {
    columns: table.columns,
    features,
    labels: Array.from(table.labels),
    weights: table.weights && Array.from(table.weights),
  }
}

test('CSV: quotes, line ends, byte order marks, blank lines, missing labels, the choice of columns', async () => {
  const plain = await contents(await csv('a,y,b\n1,0.5,-2\n.5,,1e3\n+3., NA ,-4E-1\n'))
  assert.equal(plain, {
    columns: ['a', 'b'],
    features: [1, -2, 0.5, 1000, 3, Math.fround(-0.4)],
    labels: [0.5, Number.NaN, Number.NaN],
    weights: null,
  })
  const quoted = '\ufeff"a, ""one""",y,"b c"\r\n"1",0.5,"-2"\r\n\r\n" .5 ",NaN,1e3\r\n3,"",-0.4'
  assert.equal(await contents(await csv(quoted)), { ...plain, columns: ['a, "one"', 'b c'] })
  assert.equal(await contents(await csv('y\ta\n1\t2', { labels: ['y'] }, '\t')), {
    columns: ['a'],
    features: [2],
    labels: [1],
    weights: null,
  })
  const chosen = await csv('id,b,w,a,y,z\nx,1,0,2,3,4\ny,5,0.5,6,7,8\n', {
    labels: ['z', 'y'],
    weights: 'w',
    columns: ['a', 'b'],
  })
  assert.equal(await contents(chosen), {
    columns: ['a', 'b'],
    features: [2, 1, 6, 5],
    labels: [4, 3, 8, 7],
    weights: [0, 0.5],
  })
  chosen.release()
  await fails(() => chosen.features.read(0, 1), 't.csv: is closed')
})

test('CSV: a table of many pieces and blocks is the same as its numbers', async () => {
  const draw = random(5)
  const [rows, columns] = [9000, 37]
  const values = draw.normal(rows * columns)
  const lines = Array.from({ length: rows }, (_, n) => {
    const cells = Array.from(values.subarray(n * columns, (n + 1) * columns), (value) => String(value))
    return `${n % 3 === 0 ? '' : n / 4},${cells.join(',')}`
  })
  const text = `y,${Array.from({ length: columns }, (_, d) => `x${d}`).join(',')}\n${lines.join('\n')}\n`
  assert.ok(text.length > 5 * 2 ** 20)
  const { features, labels } = await csv(text)
  assert.equal([features.rows, features.columns], [rows, columns])
  close((await features.read(0, rows)) as Float32Array, values, 0, 'all')
  close((await features.read(7080, 30)) as Float32Array, values.subarray(7080 * columns, 7110 * columns), 0, 'some')
  close(
    labels,
    Array.from({ length: rows }, (_, n) => (n % 3 === 0 ? Number.NaN : n / 4)),
    0,
    'labels',
  )
})

test('CSV: what is no table of numbers is refused by line and column', async () => {
  const choose = 'choose the feature columns with --columns a,b,c'
  const broken: [string, ColumnChoice, string | RegExp][] = [
    ['', { labels: ['y'] }, 't.csv: is empty; it must begin with a line of column names'],
    ['a,y\n', { labels: ['y'] }, 't.csv: has no rows after the header line'],
    [
      'a,y\n1,2\nParis,3\n',
      { labels: ['y'] },
      `t.csv line 3: feature "a" must be a finite number, got "Paris"; ${choose}`,
    ],
    ['a,y\n0x10,2\n', { labels: ['y'] }, `t.csv line 2: feature "a" must be a finite number, got "0x10"; ${choose}`],
    ['a,y\n1e39,2\n', { labels: ['y'] }, `t.csv line 2: feature "a" must be a finite number, got "1e39"; ${choose}`],
    ['a,y\n"1,5",2\n', { labels: ['y'] }, `t.csv line 2: feature "a" must be a finite number, got "1,5"; ${choose}`],
    [
      'a,y\n,2\n',
      { labels: ['y'] },
      't.csv line 2: feature "a" is missing; leave the row or the column out (--columns a,b,c)',
    ],
    ['a,y\n1,high\n', { labels: ['y'] }, 't.csv line 2: label "y" must be a finite number or empty, got "high"'],
    ['a,y\n1,inf\n', { labels: ['y'] }, 't.csv line 2: label "y" must be a finite number or empty, got "inf"'],
    [
      'a,y,w\n1,2,-1\n',
      { labels: ['y'], weights: 'w' },
      't.csv line 2: weight "w" must be a number of at least 0, got "-1"',
    ],
    [
      'a,y,w\n1,2,\n',
      { labels: ['y'], weights: 'w' },
      't.csv line 2: weight "w" must be a number of at least 0, got ""',
    ],
    ['a,y\n1,2\n1,2,3\n', { labels: ['y'] }, 't.csv line 3: must have 2 cells like the header, got 3'],
    ['a,y\n1\n', { labels: ['y'] }, 't.csv line 2: must have 2 cells like the header, got 1'],
    ['a,y\n1,"2\n', { labels: ['y'] }, /^t.csv line \d: a quote is open at the end of the file$/],
    ['a,y\n1,"2"3\n', { labels: ['y'] }, /^t.csv line 2: is not CSV: Invalid Closing Quote/],
    [
      'a;y\n1;2\n',
      { labels: ['y'] },
      't.csv: columns must be separated by commas (by tabs in a .tsv file), the header is "a;y"',
    ],
    ['a,a,y\n1,2,3\n', { labels: ['y'] }, 't.csv: column "a" is there twice'],
    [',a,y\n1,2,3\n', { labels: ['y'] }, `t.csv: column 1 has no name, so it may be an index; ${choose}`],
    ['y\n1\n', { labels: ['y'] }, 't.csv: has no feature columns beside "y"'],
    ['a,y\n1,2\n', { labels: ['z'] }, 't.csv: has no column "z" (--labels), it has "a", "y"'],
    ['a,y\n1,2\n', { labels: ['y'], weights: 'v' }, 't.csv: has no column "v" (--weights), it has "a", "y"'],
    ['a,y\n1,2\n', { labels: ['y'], weights: 'y' }, 't.csv: column "y" is in --labels and --weights'],
    ['a,y\n1,2\n', { labels: ['y'], columns: ['y'] }, 't.csv: column "y" is in --columns and in --labels or --weights'],
    ['a,y\n1,2\n', { labels: ['y'], columns: ['b'] }, 't.csv: has no column "b" (--columns), it has "a", "y"'],
    ['a\u001b,y\n1,2\n', { labels: ['y'] }, `t.csv: column "a\\u001b" has control characters; ${choose}`],
    [
      '1,2,3,4,5,6,7,8,9,10\n',
      { labels: ['y'] },
      't.csv: has no column "y" (--labels), it has "1", "2", "3", "4", "5", "6", "7", "8" and 2 more',
    ],
  ]
  for (const [text, choice, message] of broken) await fails(() => csv(text, choice), message)
  await fails(
    () => readCsv(memorySource('t.csv', Uint8Array.of(0xff, 44, 121, 10, 49, 44, 50)), { labels: ['y'] }),
    /UTF-8 text/,
  )
  const open = `a,y\n1,"${'2,3\n'.repeat(4.2 * 2 ** 20)}`
  await fails(() => csv(open), /^t.csv line \d+: is longer than 16777216 bytes; a quote may be open$/)
})

// Parquet

const N = Array.from({ length: 13 }, (_, n) => n)
const CHOICE: ColumnChoice = { labels: ['y'], weights: 'w', columns: ['a', 'b', 'i', 'u', 'h', 'm'] }
const ROWS = N.flatMap((n) => [n / 4 - 1, -n / 8, n - 5, Math.fround(4294967295 - n), n / 2, n / 4])

test('Parquet: every compression and encoding, by rows that cross row groups', async () => {
  const names = Object.keys(fixtures.parquet).filter((name) => name !== 'index' && name !== 'empty')
  assert.is(names.length, 10)
  for (const name of names) {
    const { features, labels, weights, columns, release } = await parquet(name, CHOICE)
    assert.equal([features.rows, features.columns, features.dtype], [13, 6, 'f32'])
    assert.equal(columns, CHOICE.columns)
    close((await features.read(0, 13)) as Float32Array, ROWS, 0, name)
    close((await features.read(4, 7)) as Float32Array, ROWS.slice(24, 66), 0, `${name}, rows 4 to 10`)
    release()
    close((await features.read(12, 1)) as Float32Array, ROWS.slice(72), 0, `${name}, the last row`)
    close(
      labels,
      N.map((n) => (n % 4 === 3 ? Number.NaN : n / 2)),
      0,
      `${name}, labels`,
    )
    close(
      weights!,
      N.map((n) => n % 3),
      0,
      `${name}, weights`,
    )
  }
  assert.is((await parquet('none', { labels: ['y'], columns: ['a'] })).weights, null)
})

test('Parquet: columns that hold no numbers, nulls and indices are refused', async () => {
  const choose = 'choose the feature columns with --columns a,b,c'
  const broken: [ColumnChoice, string | RegExp][] = [
    [{ labels: ['y'] }, `t.parquet: column "city" must hold numbers, it holds STRING; ${choose}`],
    [{ labels: ['y'], columns: ['flag'] }, `t.parquet: column "flag" must hold numbers, it holds BOOLEAN; ${choose}`],
    [{ labels: ['y'], columns: ['day'] }, `t.parquet: column "day" must hold numbers, it holds DATE; ${choose}`],
    [{ labels: ['y'], columns: ['list'] }, `t.parquet: column "list" must hold numbers, it holds LIST; ${choose}`],
    [{ labels: ['city'], columns: ['a'] }, 't.parquet: column "city" must hold numbers, it holds STRING'],
    [{ labels: ['wild'], columns: ['a'] }, 't.parquet: label "wild" must be finite or null, row 8 has Infinity'],
    [{ labels: ['y'], weights: 'y', columns: ['a'] }, 't.parquet: column "y" is in --labels and --weights'],
    [
      { labels: ['y'], weights: 'hole', columns: ['a'] },
      't.parquet: weight "hole" must be a number of at least 0, row 7 has null',
    ],
    [
      { labels: ['y'], weights: 'i', columns: ['a'] },
      't.parquet: weight "i" must be a number of at least 0, row 0 has -5',
    ],
    [
      { labels: ['nothing'], columns: ['a'] },
      /^t.parquet: has no column "nothing" \(--labels\), it has "a", .* and 6 more$/,
    ],
  ]
  for (const [choice, message] of broken) await fails(() => parquet('none', choice), message)
  const read = async (column: string) =>
    (await parquet('none', { labels: ['y'], columns: ['a', column] })).features.read(0, 13)
  await fails(() => read('hole'), 't.parquet: feature "hole" must have a value, row 7 has none')
  await fails(() => read('wild'), 't.parquet: feature "wild" must be finite, row 8 has Infinity')
  await fails(() => parquet('index', { labels: ['y'] }), `t.parquet: column "__index_level_0__" is an index; ${choose}`)
  await fails(() => parquet('empty', { labels: ['y'], columns: ['x'] }), 't.parquet: has no rows')
})

test('Parquet: damaged files throw errors of one line that name the file', async () => {
  const draw = random(6)
  const whole = bytesOf(fixtures.parquet.zstd)
  const plain = bytesOf(fixtures.parquet.none)
  const read = async (bytes: Uint8Array) => {
    const { features } = await openParquet(memorySource('t.parquet', bytes), CHOICE)
    await features.read(0, features.rows)
  }
  await read(whole)
  await fails(() => read(whole.slice(0, 8)), 't.parquet: not a Parquet file, it has only 8 bytes')
  const footer = whole.slice()
  new DataView(footer.buffer).setUint32(footer.length - 8, 2 ** 31, true)
  await fails(() => read(footer), /^t.parquet: metadata of 2147483648 bytes exceed the file/)
  for (let length = 0; length < whole.length; length += 61)
    await fails(() => read(whole.slice(0, length)), /^t.parquet: /)
  let refused = 0
  for (let round = 0; round < 400; round++) {
    const bytes = (round % 2 ? whole : plain).slice()
    for (const at of draw.integers(3, 0, bytes.length)) bytes[at] ^= 1 << Math.floor(8 * draw.next())
    try {
      await read(bytes)
    } catch (error) {
      refused++
      await fails(() => Promise.reject(error), /^t.parquet: [^\n]+$/)
    }
  }
  assert.ok(refused > 200, `${refused} of 400 were refused`)
})

test.run()
