// pinball fit as a user runs it: feature files of every kind, and what does not go with what.
import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openSafetensors, readTensorF32, widenBF16 } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { choosing } from '../src/report/fit.ts'
import { chooseAlpha } from '../src/solver/alpha.ts'
import { openSolver } from '../src/solver/fit.ts'
import { close } from './assert.ts'
import { each, openWorkplace, tensor, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
  await writeProblems()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

/** The bytes of a .npy file as NumPy writes it. */
function npy(descr: string, shape: readonly number[], data: ArrayBufferView): Uint8Array {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`
  const text = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`
  const prefix = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, text.length & 255, text.length >> 8)
  return Buffer.concat([prefix, Buffer.from(text), new Uint8Array(data.buffer, data.byteOffset, data.byteLength)])
}

const [ROWS, COLUMNS] = [90, 4]
const X = random(1).normal(ROWS * COLUMNS)
const NOISE = random(2).normal(ROWS * 2)
/** [ROWS, 2]; the first row has no second label. */
const Y = NOISE.map((noise, i) => (i === 1 ? Number.NaN : noise + (i % 2 ? 1 : -1) * X[(i >> 1) * COLUMNS + (i % 2)]))
const NAMES = ['dull', 'kind']
const W = random(3).uniform(ROWS, 0.5, 2)

const save: Workplace['save'] = (...file) => place.save(...file)

async function writeProblems(): Promise<void> {
  const attributes = { attributes: '["dull","kind"]' }
  const embeddings = tensor('embeddings', [ROWS, COLUMNS], X)
  const labels = tensor('labels', [ROWS, 2], Y)
  await save('f.safetensors', [embeddings, labels, tensor('label_weights', [ROWS], W)], attributes)
  await writeFile(at('x.npy'), npy('<f4', [ROWS, COLUMNS], X))
  await writeFile(at('y.npy'), npy('<f8', [ROWS, 2], Float64Array.from(Y)))
  await writeFile(at('w.npy'), npy('<f4', [ROWS], W))
  const lines = Array.from({ length: ROWS }, (_, n) => {
    const cells = [...X.subarray(n * COLUMNS, (n + 1) * COLUMNS), Y[2 * n], W[n], Y[2 * n + 1]]
    return cells.map((value) => (Number.isNaN(value) ? '' : `"${value}"`))
  })
  await place.file('t.csv', `a,b,c,d,dull,weight,kind\r\n${lines.map((cells) => cells.join(',')).join('\r\n')}\r\n`)
  await place.file('t.tsv', `a\tb\tc\td\tdull\tweight\tkind\n${lines.map((cells) => cells.join('\t')).join('\n')}`)
}

interface Heads {
  weight: Float32Array
  bias: Float32Array | null
  metadata: Record<string, string>
}

async function heads(name: string): Promise<Heads> {
  const { tensors, metadata } = await openSafetensors(memorySource(name, await readFile(at(name))))
  const bias = tensors.get('regression_layer.bias')
  return {
    weight: await readTensorF32(tensors.get('regression_layer.weight')!),
    bias: bias ? await readTensorF32(bias) : null,
    metadata,
  }
}

/** Fits and gives what was printed and written. */
async function fit(...args: string[]) {
  const { code, out, err } = await place.pinball(['fit', '--out', 'h.safetensors', '--json', ...args])
  assert.equal([code, err], [0, ''], args.join(' '))
  return { report: JSON.parse(out), ...(await heads('h.safetensors')) }
}

const SOME = ['--levels', '0.2,0.5', '--intercept']

test('the same problem as safetensors, .npy, CSV and TSV gives the same heads', async () => {
  const first = await fit('--features', 'f.safetensors', ...SOME)
  assert.equal(Object.keys(first.report), ['rows', 'columns', 'alpha', 'fits', 'ms'])
  assert.equal([first.report.rows, first.report.columns, first.report.alpha], [ROWS, COLUMNS, 0.003])
  assert.is(first.metadata.attributes, '["dull","kind"]')
  assert.not.ok('columns' in first.metadata)
  const named = ['--labels', 'dull,kind', '--weights', 'weight']
  for (const args of [
    ['--features', 'x.npy', '--labels', 'y.npy', '--weights', 'w.npy'],
    ['--features', 't.csv', ...named],
    ['--features', 't.tsv', ...named, '--columns', 'a,b,c,d'],
  ]) {
    const other = await fit(...args, ...SOME)
    assert.equal([other.weight, other.bias], [first.weight, first.bias], args.join(' '))
    const { attributes, columns } = other.metadata
    assert.is(attributes, args[1] === 'x.npy' ? '["y_0","y_1"]' : '["dull","kind"]')
    assert.is(columns, args[1] === 'x.npy' ? undefined : '["a","b","c","d"]')
  }
  const some = await fit('--features', 't.csv', '--labels', 'kind', '--columns', 'd,b', ...SOME)
  assert.equal([some.metadata.columns, some.report.columns], ['["d","b"]', 2])
})

test('a table prints the coefficients of its few columns by name', async () => {
  const args = ['fit', '--features', 't.csv', '--labels', 'dull', '--columns', 'd,a', '--out', 'h.safetensors', ...SOME]
  const { code, out, err } = await place.pinball(args)
  assert.equal([code, err], [0, ''])
  const { weight, bias } = await heads('h.safetensors')
  const [, printed] = /\nattribute +level +\(intercept\) +d +a\n([\s\S]+)\n\nh\.safetensors: 2 heads over 2/.exec(out)!
  const numbers = printed.split('\n').map((line) => line.split(/ +/).slice(1).map(Number))
  const expected = [0, 1].map((k) => [[0.2, 0.5][k], bias![k], weight[2 * k], weight[2 * k + 1]])
  close(numbers.flat(), expected.flat(), 1e-5, 'coefficients')
})

test('--labels chooses attributes of a safetensors file', async () => {
  const all = await fit('--features', 'f.safetensors', ...SOME)
  const one = await fit('--features', 'f.safetensors', '--labels', 'kind', ...SOME)
  assert.is(one.metadata.attributes, '["kind"]')
  assert.equal(one.weight, all.weight.slice(2 * COLUMNS))
  const turned = await fit('--features', 'f.safetensors', '--labels', 'kind,dull', ...SOME)
  assert.equal(turned.weight.slice(2 * COLUMNS), all.weight.slice(0, 2 * COLUMNS))
})

test('several labels of one row are by rating the same as rows that are repeated, and by item as such with shared weights', async () => {
  const rowOf = Uint32Array.from({ length: 150 }, (_, i) => (i * 7) % ROWS)
  const labels = random(4).normal(150)
  const repeated = new Float32Array(150 * COLUMNS)
  for (const [i, row] of rowOf.entries()) repeated.set(X.subarray(row * COLUMNS, (row + 1) * COLUMNS), i * COLUMNS)
  await save('repeated.safetensors', [
    tensor('embeddings', [150, COLUMNS], repeated),
    tensor('labels', [150, 1], labels),
  ])
  const counts = rowOf.map((row) => rowOf.filter((other) => other === row).length)
  assert.ok(new Set(counts).size > 1)
  await save('shares.safetensors', [
    tensor('embeddings', [150, COLUMNS], repeated),
    tensor('labels', [150, 1], labels),
    tensor(
      'label_weights',
      [150],
      Float32Array.from(counts, (count) => 1 / count),
    ),
  ])
  const wanted = {
    rating: await fit('--features', 'repeated.safetensors', ...SOME),
    item: await fit('--features', 'shares.safetensors', ...SOME),
  }
  await save('shared.safetensors', [
    tensor('embeddings', [ROWS, COLUMNS], X),
    tensor('labels', [150, 1], labels),
    tensor('label_rows', [150], BigInt64Array.from(rowOf, BigInt), 'I64'),
  ])
  await writeFile(at('rows.npy'), npy('<u4', [150], rowOf))
  await writeFile(at('good.npy'), npy('<f4', [150], labels))
  for (const args of [
    ['--features', 'shared.safetensors'],
    ['--features', 'x.npy', '--labels', 'good.npy', '--label-rows', 'rows.npy'],
  ]) {
    for (const unit of ['rating', 'item'] as const) {
      const { report, metadata } = await fit(...args, ...SOME, '--unit', unit)
      assert.is(metadata.attributes, args[1] === 'x.npy' ? '["good"]' : '["objective_0"]')
      assert.is(metadata.unit, unit)
      assert.is(report.rows, ROWS)
      const objectives = (fits: { objective: number }[]) => fits.map(({ objective }) => objective)
      close(objectives(report.fits), objectives(wanted[unit].report.fits), 2e-4, `objectives by ${unit}`)
    }
  }
})

test('features in 16 bits are the numbers that they stand for', async () => {
  const bits = Uint16Array.from(new Uint32Array(X.buffer), (word) => word >>> 16)
  const wide = new Float32Array(bits.length)
  widenBF16(bits, wide)
  const labels = tensor('labels', [ROWS, 2], Y)
  await save('wide.safetensors', [tensor('embeddings', [ROWS, COLUMNS], wide), labels])
  await save('narrow.safetensors', [tensor('embeddings', [ROWS, COLUMNS], bits, 'BF16'), labels])
  await save('double.safetensors', [tensor('embeddings', [ROWS, COLUMNS], Float64Array.from(wide), 'F64'), labels])
  const expected = await fit('--features', 'wide.safetensors', ...SOME)
  for (const name of ['narrow.safetensors', 'double.safetensors']) {
    const { weight } = await fit('--features', name, ...SOME)
    close(weight, expected.weight, 0, name)
  }
})

test('features that do not fit into the memory are refused with the file and the numbers', async () => {
  const [rows, columns] = [300_000, 4096]
  const begin = rows * columns * 4
  const header = JSON.stringify({
    embeddings: { dtype: 'F32', shape: [rows, columns], data_offsets: [0, begin] },
    labels: { dtype: 'F32', shape: [rows, 1], data_offsets: [begin, begin + rows * 4] },
  })
  const prefix = new Uint8Array(8)
  new DataView(prefix.buffer).setBigUint64(0, BigInt(header.length), true)
  await writeFile(at('large.safetensors'), Buffer.concat([prefix, Buffer.from(header)]))
  await truncate(at('large.safetensors'), 8 + header.length + begin + rows * 4) // a hole of 5 GB takes no room
  await place.refused(
    ['fit', '--features', 'large.safetensors', '--out', 'h.safetensors'],
    /large\.safetensors: .*300,?000.*4,?096.*G/,
  )
  await rm(at('large.safetensors'))
})

test('--alpha auto chooses a penalty for each attribute, writes it and shows what it was chosen from', async () => {
  const auto = ['--features', 'f.safetensors', ...SOME, '--alpha', 'auto']
  const { report, metadata, weight } = await fit(...auto)
  assert.equal(Object.keys(report), ['rows', 'columns', 'alpha', 'fits', 'ms', 'paths'])
  assert.equal([Object.keys(report.alpha), Object.keys(report.paths)], [NAMES, NAMES])
  assert.is(metadata.alpha, JSON.stringify(report.alpha))
  const solver = await openSolver({ data: X, rows: ROWS, columns: COLUMNS })
  for (const [m, name] of NAMES.entries()) {
    const path: { alpha: number; loss: number; error: number }[] = report.paths[name]
    assert.is(path.find(({ loss }) => loss === Math.min(...path.map((step) => step.loss)))!.alpha, report.alpha[name])
    // As the library chooses it, and as a fit with that penalty.
    const labels = { values: Y.filter((_, i) => i % 2 === m), weights: W }
    const chosen = await chooseAlpha(solver, labels, { levels: [0.2, 0.5], intercept: true })
    assert.equal(chosen, { alpha: report.alpha[name], path })
    const same = await fit('--features', 'f.safetensors', ...SOME, '--labels', name, '--alpha', String(chosen.alpha))
    assert.equal(same.weight, weight.slice(m * 2 * COLUMNS, (m + 1) * 2 * COLUMNS))
  }
  await solver.close()
  const { code, out, err } = await place.pinball(['fit', '--out', 'h.safetensors', ...auto])
  assert.equal([code, err], [0, ''])
  assert.match(out, /\nalpha by cross-validation: dull [\d.e-]+, kind [\d.e-]+\nh\.safetensors: 4 heads/)
  await writeFile(at('some.npy'), npy('<f4', [ROWS], Y.filter((_, i) => i % 2 === 0).fill(Number.NaN, 4)))
  await place.refused(
    ['fit', '--out', 'u.safetensors', '--features', 'x.npy', '--labels', 'some.npy', '--alpha', 'auto'],
    'labels "some": alpha: 5 folds need at least as many rows with labels, found 4; take fewer folds, or set alpha',
  )
})

test('the choice of a penalty says how far it is', async () => {
  const state = { index: 2, alphas: 12, alpha: 0.0123, fold: 1, folds: 5, level: 0.5 }
  assert.is(choosing(state), 'choosing alpha, 3 of 12 (0.0123), fold 2 of 5')
  assert.is(choosing({ ...state, index: -1 }), 'choosing alpha, first where it begins')
})

test('--non-crossing keeps the levels in order, and those of an attribute together', async () => {
  const many = ['--features', 'f.safetensors', '--levels', '9', '--labels', 'kind', '--alpha', '0.0005']
  const crossings = ({ weight }: Heads) => {
    let count = 0
    for (let n = 0; n < ROWS; n++) {
      if (Number.isNaN(Y[2 * n + 1])) continue
      const predicted = Array.from({ length: 9 }, (_, k) =>
        weight.subarray(k * COLUMNS, (k + 1) * COLUMNS).reduce((sum, w, d) => sum + w * X[n * COLUMNS + d], 0),
      )
      for (let k = 1; k < 9; k++) if (predicted[k] < predicted[k - 1] - 1e-5) count++
    }
    return count
  }
  const free = await fit(...many)
  const ordered = await fit(...many, '--non-crossing')
  assert.ok(crossings(free) > 0, 'nothing crosses, so nothing was tested')
  assert.is(crossings(ordered), 0)
  assert.equal([free.metadata.non_crossing, ordered.metadata.non_crossing], [undefined, 'true'])
})

const usage: [string, string[], RegExp][] = [
  [
    'columns of an array',
    ['x.npy', '--labels', 'y.npy', '--columns', 'a'],
    /--columns does not go with an .npy file of features/,
  ],
  [
    'columns of tensors',
    ['f.safetensors', '--columns', 'a'],
    /--columns does not go with a safetensors file of features/,
  ],
  [
    'weights beside tensors',
    ['f.safetensors', '--weights', 'w.npy'],
    /--weights does not go .* holds label_rows and label_weights itself/,
  ],
  [
    'rows beside a table',
    ['t.csv', '--labels', 'dull', '--label-rows', 'r.npy'],
    /--label-rows does not go with a CSV file/,
  ],
  ['an array without labels', ['x.npy'], /--labels: must name the \.npy file of the labels/],
  ['a table without labels', ['t.csv'], /--labels: must name the columns that are labels, with commas/],
  ['a label twice', ['t.csv', '--labels', 'dull,dull'], /--labels: "dull" is there twice/],
  [
    'an empty column',
    ['t.csv', '--labels', 'dull', '--columns', 'a,,b'],
    /--columns: Must be names with commas, none empty/,
  ],
  ['alpha in words', ['t.csv', '--alpha', 'automatic'], /'automatic' is invalid/],
  ['threads in part', ['t.csv', '--threads', '1.5'], /Must be a whole number from 1 to 64/],
  ['an unknown device', ['t.csv', '--device', 'cuda'], /'cuda' is invalid/],
]
each('wrong usage:', usage, ([, args, message]) =>
  place.refused(['fit', '--out', 'u.safetensors', '--features', ...args], message, 2),
)

test('labels, rows and weights that do not fit are refused by file', async () => {
  await writeFile(at('short.npy'), npy('<f4', [3], new Float32Array(3)))
  await writeFile(at('nan.npy'), npy('<f4', [ROWS], new Float32Array(ROWS).fill(Number.NaN)))
  await writeFile(at('zero.npy'), npy('<f4', [ROWS], new Float32Array(ROWS)))
  await writeFile(at('minus.npy'), npy('<f4', [ROWS], new Float32Array(ROWS).fill(-1)))
  await writeFile(at('cube.npy'), npy('<f4', [ROWS, 1, 1], new Float32Array(ROWS)))
  await writeFile(at('far.npy'), npy('<i8', [1], BigInt64Array.of(90n)))
  const labelled = ['x.npy', '--labels', 'y.npy']
  const cases: [string[], string][] = [
    [['x.npy', '--labels', 'none.npy'], 'none.npy: no such file'],
    [['x.npy', '--labels', 'f.safetensors'], 'f.safetensors: not a .npy file; it must begin with \\x93NUMPY'],
    [['x.npy', '--labels', 'short.npy'], 'short.npy: labels must be [90] or [90, M], as x.npy has 90 rows, got [3]'],
    [['x.npy', '--labels', 'cube.npy'], 'cube.npy: labels must be [90] or [90, M], as x.npy has 90 rows, got [90,1,1]'],
    [['x.npy', '--labels', 'nan.npy'], 'nan.npy: labels of "nan" are all missing; leave it out of --labels'],
    [['y.npy', '--labels', 'y.npy'], 'y.npy must be finite, row 0 has NaN'],
    [['w.npy', '--labels', 'y.npy'], 'w.npy: features must have two dimensions, got [90]'],
    [[...labelled, '--label-rows', 'far.npy'], 'far.npy must be below the 90 rows of the features, entry 0 is 90'],
    [[...labelled, '--weights', 'short.npy'], 'short.npy must be [90], one weight a label, got [3]'],
    [[...labelled, '--weights', 'minus.npy'], 'minus.npy must be finite and at least 0, entry 0 is -1'],
    [[...labelled, '--weights', 'zero.npy'], 'y.npy: labels of "y_0" all have weight 0; leave it out of --labels'],
    [
      ['f.safetensors', '--labels', 'kind,warm'],
      'f.safetensors: has no labels "warm" (--labels), it has "dull", "kind"',
    ],
    [
      ['t.csv', '--labels', 'dull', '--columns', 'e'],
      't.csv: has no column "e" (--columns), it has "a", "b", "c", "d", "dull", "weight", "kind"',
    ],
    [
      ['t.csv', '--labels', 'dull'],
      't.csv line 2: feature "kind" is missing; leave the row or the column out (--columns a,b,c)',
    ],
  ]
  for (const [args, message] of cases) {
    await place.refused(['fit', '--out', 'u.safetensors', '--features', ...args], message)
  }
})

test.run()
