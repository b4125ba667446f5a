// Multi-attribute ridge regression against scikit-learn's Ridge, and what does not change its bits; then the command.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openSafetensors, readTensorF32 } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import type { FeatureBlocks } from '../src/files/table.ts'
import { fitRidge, RIDGE_ALPHAS } from '../src/train/multi_attribute.ts'
import type { Ratings } from '../src/train/problem.ts'
import { fails } from './assert.ts'
import { openWorkplace, tensor, type Workplace } from './command.ts'
import { fixtureJson } from './fixture.ts'
import { random } from './random.ts'

interface Problem {
  readonly name: string
  readonly rows: number
  readonly columns: number
  readonly attributes: number
  readonly seed: number
  readonly validation: number
  readonly x: string
  readonly labels: string
  readonly weights: string
  readonly rowIndex: number[]
  readonly fits: {
    readonly training: number
    readonly validation: number
    readonly alpha: number
    readonly path: { readonly alpha: number; readonly mse: number; readonly objective: number }[]
    readonly all: number
  }[]
}

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const floats = (text: string) => new Float32Array(new Uint8Array(Buffer.from(text, 'base64')).buffer)

function blocks(x: Float32Array | Uint16Array, columns: number): FeatureBlocks {
  const read = async (first: number, count: number) => x.subarray(first * columns, (first + count) * columns)
  return { name: 'x', rows: x.length / columns, columns, dtype: x instanceof Uint16Array ? 'bf16' : 'f32', read }
}

function ratingsOf({ attributes, labels, weights, rowIndex }: Problem): Ratings {
  return {
    attributes: Array.from({ length: attributes }, (_, m) => `a${m}`),
    labels: floats(labels),
    rowIndex: Uint32Array.from(rowIndex),
    weights: floats(weights),
  }
}

/** The objective of weights [D], in f64, on the labels whose rows `wanted` takes. */
function objective(
  { x, columns, ...problem }: Problem,
  m: number,
  w: Float32Array,
  alpha: number,
  wanted: (row: number) => boolean,
): number {
  const [values, ratings] = [floats(x), ratingsOf({ x, columns, ...problem })]
  let sum = 0
  for (const [i, row] of problem.rowIndex.entries()) {
    const y = ratings.labels[i * problem.attributes + m]
    if (Number.isNaN(y) || !wanted(row)) continue
    let r = y
    for (let d = 0; d < columns; d++) r -= values[row * columns + d] * w[d]
    sum += ratings.weights![i] * r * r
  }
  for (const value of w) sum += alpha * value * value
  return sum
}

const near = (actual: number, expected: number, share: number, name: string) =>
  assert.ok(Math.abs(actual - expected) <= share * Math.abs(expected), `${name}: got ${actual}, expected ${expected}`)

test('objectives, errors and chosen penalties are those of scikit-learn', async () => {
  for (const problem of await fixtureJson<Problem[]>('ridge.json')) {
    const { name, seed, validation, columns, fits } = problem
    const features = blocks(floats(problem.x), columns)
    const ratings = ratingsOf(problem)
    const found = await fitRidge({ features, ...ratings }, { seed, validation, refit: 'all' })
    for (const [m, expected] of fits.entries()) {
      const fit = found.fits[m]
      assert.equal([fit.training, fit.validation], [expected.training, expected.validation], name)
      assert.is(fit.alpha, expected.alpha, name)
      const weights = found.weight.subarray(m * columns, (m + 1) * columns)
      near(
        objective(problem, m, weights, fit.alpha, () => true),
        expected.all,
        1e-6,
        `${name}, all rows`,
      )
      for (const [a, { mse }] of expected.path.entries())
        near(fit.path[a].mse, mse, 1e-6, `${name}, error at ${RIDGE_ALPHAS[a]}`)
    }
    // The rows that are held out are those that the fixture's script holds out, or the objectives could not agree.
    const { held } = heldOut(problem)
    for (const [a, alpha] of RIDGE_ALPHAS.entries()) {
      const { weight } = await fitRidge({ features, ...ratings }, { seed, validation, alphas: [alpha] })
      for (const [m, { path }] of fits.entries()) {
        const weights = weight.subarray(m * columns, (m + 1) * columns)
        const value = objective(problem, m, weights, alpha, (row) => !held(row))
        const limit = 1e-6 * path[a].objective + rounding(problem, weights)
        assert.ok(Math.abs(value - path[a].objective) <= limit, `${name}, attribute ${m}, alpha ${alpha}: ${value}`)
      }
    }
  }
})

/** What rounding weights to float32 adds to a least objective at most: |X|^2 (2^-24 |w|)^2. It counts where nothing is left to explain. */
function rounding({ x, weights, rowIndex, columns }: Problem, w: Float32Array): number {
  const [values, q] = [floats(x), floats(weights)]
  let [size, squares] = [0, 0]
  for (const [i, row] of rowIndex.entries()) {
    for (let d = 0; d < columns; d++) squares += q[i] * values[row * columns + d] ** 2
  }
  for (const value of w) size += value * value
  return 2 ** -48 * squares * size
}

/** The split of the product, found from outside: a row is held out where a label of it alone cannot be fitted. */
function heldOut({ seed, validation }: Problem) {
  const mix = (bits: number) => {
    let h = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    return (h ^ (h >>> 16)) >>> 0
  }
  const key = mix(Math.imul(2 ** 20 + 2, 0x85ebca6b) ^ mix(seed + 1))
  return { held: (row: number) => mix(Math.imul(row + 1, 0x9e3779b9) ^ key) < validation * 2 ** 32 }
}

test('threads, blocks and attributes fitted beside it do not change the bits of an attribute', async () => {
  const draw = random(3)
  const [rows, columns] = [700, 130]
  const x = draw.normal(rows * columns)
  const labels = draw.normal(rows * 3)
  for (let i = 0; i < 200; i++) labels[3 * i + 1] = Number.NaN
  const ratings: Ratings = { attributes: ['a', 'b', 'c'], labels }
  const one = await fitRidge({ features: blocks(x, columns), ...ratings }, { threads: 1 })
  assert.equal(await fitRidge({ features: blocks(x, columns), ...ratings }, { threads: 3 }), one)
  const alone: Ratings = { attributes: ['c'], labels: Float32Array.from({ length: rows }, (_, i) => labels[3 * i + 2]) }
  const c = await fitRidge({ features: blocks(x, columns), ...alone })
  assert.equal(c.weight, one.weight.slice(2 * columns))
  assert.equal(c.fits[0], one.fits[2])
})

test('a rating that comes twice is one of twice the weight', async () => {
  const draw = random(4)
  const [rows, columns] = [60, 7]
  const features = blocks(draw.normal(rows * columns), columns)
  const labels = draw.normal(rows)
  const weights = draw.uniform(rows, 0.5, 2)
  const rowIndex = Uint32Array.from({ length: 2 * rows }, (_, i) => i >> 1)
  const doubled = (values: Float32Array) => Float32Array.from({ length: 2 * rows }, (_, i) => values[i >> 1])
  const twice = await fitRidge({
    features,
    attributes: ['a'],
    labels: doubled(labels),
    weights: doubled(weights),
    rowIndex,
  })
  const heavier = await fitRidge({ features, attributes: ['a'], labels, weights: weights.map((w) => 2 * w) })
  for (const [j, w] of twice.weight.entries()) near(w, heavier.weight[j], 1e-6, `weight ${j}`)
})

test('options and labels that cannot be are refused', async () => {
  const features = blocks(new Float32Array(20).fill(1), 2)
  const ratings = { attributes: ['a'], labels: new Float32Array(10).fill(1) }
  await fails(
    () => fitRidge({ features, ...ratings }, { alphas: [] }),
    'ridge: alphas must be above 0 and finite, got none',
  )
  await fails(
    () => fitRidge({ features, ...ratings }, { alphas: [1, 0] }),
    'ridge: alphas must be above 0 and finite, got 1, 0',
  )
  await fails(
    () => fitRidge({ features, ...ratings }, { validation: 1 }),
    'ridge: validation must lie between 0 and 1, got 1',
  )
  const few = { attributes: ['a'], labels: new Float32Array(10).fill(Number.NaN, 1) }
  await fails(
    () => fitRidge({ features, ...few }),
    /^ridge: "a" needs labels on both sides of the split, got \d to fit and \d held out$/,
  )
})

test('pinball ridge writes point heads that say what they are', async () => {
  const draw = random(5)
  const [rows, columns] = [300, 11]
  const x = draw.normal(rows * columns)
  const labels = new Float32Array(rows * 2)
  for (let n = 0; n < rows; n++) {
    labels[2 * n] = x[n * columns] + draw.normal(1)[0]
    labels[2 * n + 1] = n % 3 === 0 ? Number.NaN : x[n * columns + 1] - x[n * columns + 2]
  }
  const metadata = { attributes: '["helpful","brief"]', fingerprint: 'f'.repeat(64) }
  await place.save(
    'ratings.safetensors',
    [tensor('embeddings', [rows, columns], x), tensor('labels', [rows, 2], labels)],
    metadata,
  )
  const args = ['ridge', '--features', 'ratings.safetensors', '--out', 'heads.safetensors']
  const { code, out, err } = await place.pinball([...args, '--json'])
  assert.equal([code, err], [0, ''])
  const document = JSON.parse(out)
  assert.equal(
    document.fits.map((fit: { attribute: string }) => fit.attribute),
    ['helpful', 'brief'],
  )
  const bytes = await readFile(join(place.folder, 'heads.safetensors'))
  const file = await openSafetensors(memorySource('heads', new Uint8Array(bytes)))
  assert.is(file.metadata.point, 'true')
  assert.is(file.metadata.attributes, metadata.attributes)
  assert.is(file.metadata.fingerprint, metadata.fingerprint)
  assert.equal(JSON.parse(file.metadata.alpha).brief, document.fits[1].alpha)
  const info = file.tensors.get('regression_layer.weight')!
  assert.equal(info.shape, [2, columns])
  const expected = await fitRidge({ features: blocks(x, columns), attributes: ['helpful', 'brief'], labels })
  assert.equal(await readTensorF32(info), expected.weight)
  const text = await place.pinball([...args, '--threads', '1'])
  assert.equal([text.code, text.err], [0, ''])
  assert.match(text.out, /^attribute +alpha +training +validation +mean squared error\nhelpful /)
  assert.ok(Buffer.compare(await readFile(join(place.folder, 'heads.safetensors')), bytes) === 0, 'threads change bits')
  await place.refused([...args, '--alphas', '1,0'], /--alphas.*Must be a number above 0/, 2)
  await place.refused([...args, '--alphas', '1,1'], /Must be different numbers/, 2)
  const own = ['ridge', '--features', 'ratings.safetensors', '--out', 'ratings.safetensors']
  await place.refused(own, /--out: must not be what --features reads, got ratings.safetensors/, 2)
  await place.refused([...args, '--validation', '0'], /Must be a number between 0 and 1/, 2)
})

test.run()
