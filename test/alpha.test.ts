// The penalty by cross-validation: against a naive loop over copied rows, and where the right answer is known.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fitQuantiles, type Labels, openSolver, type Solver, type Start } from '../src/index.ts'
import {
  type AlphaOptions,
  type AlphaProgress,
  type ChosenAlpha,
  chooseAlpha,
  dealLabels,
} from '../src/solver/alpha.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'
import type { DenseFeatures } from './solver_problems.ts'

async function chosen(
  features: DenseFeatures,
  labels: Labels | Float32Array,
  options: AlphaOptions,
  threads = 1,
): Promise<ChosenAlpha> {
  const solver = await openSolver(features, { threads })
  try {
    return await chooseAlpha(solver, labels, options)
  } finally {
    await solver.close()
  }
}

/** Labels from the first three of the columns, and noise. */
function linear(seed: number, rows: number, columns: number, signal: number, noise: number) {
  const draw = random(seed)
  const data = draw.normal(rows * columns)
  const labels = draw
    .normal(rows)
    .map((e, n) => noise * e + signal * (data[n * columns] - data[n * columns + 1] + 0.5 * data[n * columns + 2]))
  return { features: { data, rows, columns }, labels }
}

// Folds

test('labels are dealt by rows: together, evenly, by the seed, and only if they count', () => {
  const [count, rows] = [400, 90]
  const draw = random(1)
  const rowIndex = draw.integers(count, 0, rows)
  const values = draw.normal(count).map((value, i) => (i % 9 === 0 ? Number.NaN : value))
  const weights = draw.uniform(count).map((value, i) => (i % 11 === 0 ? 0 : value))
  const labels = { values, rowIndex, weights }
  for (const folds of [2, 5, 7]) {
    const dealt = dealLabels(labels, folds, 3)
    assert.equal(dealt, dealLabels(labels, folds, 3))
    assert.not.equal(dealt, dealLabels(labels, folds, 4))
    const foldOf = new Map<number, number>()
    for (const [i, fold] of dealt.entries()) {
      assert.is(fold < 0, i % 9 === 0 || i % 11 === 0, `label ${i}`)
      if (fold < 0) continue
      assert.is(foldOf.get(rowIndex[i]) ?? fold, fold, `row ${rowIndex[i]}`)
      foldOf.set(rowIndex[i], fold)
    }
    const sizes = Array.from({ length: folds }, (_, f) => [...foldOf.values()].filter((fold) => fold === f).length)
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `sizes ${sizes}`)
    assert.ok(Math.min(...sizes) > 0)
  }
  // Neither the order of the labels nor what they are changes the fold of a row.
  const plain = dealLabels({ values: new Float32Array(rows) }, 5, 3)
  const turned = dealLabels({ values: draw.normal(rows), rowIndex: Uint32Array.from(plain.keys()).reverse() }, 5, 3)
  assert.equal(turned.reverse(), plain)
  assert.ok(
    Array.from(plain.subarray(5)).some((fold, i) => fold !== plain[i]),
    'rows are dealt in turn',
  )
})

// Against the definition

/** Mean held-out losses, by fits to copies of the rows that are not held out, each from nothing. */
async function naive(
  { data, columns }: DenseFeatures,
  { values, rowIndex, weights }: Labels,
  { levels, alphas, intercept, tolerance, folds = 5, seed = 0 }: AlphaOptions,
) {
  const dealt = dealLabels({ values, rowIndex, weights }, folds, seed)
  const present = Array.from(dealt.keys()).filter((i) => dealt[i] >= 0)
  const rowOf = (i: number) => data.subarray((rowIndex?.[i] ?? i) * columns, ((rowIndex?.[i] ?? i) + 1) * columns)
  const shareOf = (which: number[]) => which.reduce((sum, i) => sum + (weights?.[i] ?? 1), 0)
  const steps = []
  for (const alpha of [...alphas!].sort((a, b) => b - a)) {
    const parts: { share: number; loss: number }[] = []
    for (let fold = 0; fold < folds; fold++) {
      const kept = present.filter((i) => dealt[i] !== fold)
      const copy = new Float32Array(kept.length * columns)
      for (const [n, i] of kept.entries()) copy.set(rowOf(i), n * columns)
      const training = {
        values: Float32Array.from(kept, (i) => values[i]),
        ...(weights && { weights: Float32Array.from(kept, (i) => weights[i]) }),
      }
      const features = { data: copy, rows: kept.length, columns }
      const fit = await fitQuantiles(features, training, { levels, alpha, intercept, tolerance, threads: 1 })
      const heldOut = present.filter((i) => dealt[i] === fold)
      let loss = 0
      for (const [k, level] of levels.entries()) {
        for (const i of heldOut) {
          const sum = rowOf(i).reduce((total, x, d) => total + x * fit.weights[k * columns + d], 0)
          const r = values[i] - sum - (fit.intercepts?.[k] ?? 0)
          loss += ((weights?.[i] ?? 1) * Math.max(level * r, (level - 1) * r)) / levels.length
        }
      }
      const share = shareOf(heldOut) / shareOf(present)
      parts.push({ share, loss: loss / shareOf(heldOut) })
    }
    const loss = parts.reduce((sum, part) => sum + part.share * part.loss, 0)
    const squares = parts.reduce((sum, part) => sum + (part.share * (part.loss - loss)) ** 2, 0)
    steps.push({ alpha, loss, error: Math.sqrt((squares * folds) / (folds - 1)) })
  }
  return steps
}

/** Asserts the same path, with losses within `limit` of themselves. */
async function compare(features: DenseFeatures, labels: Labels, options: AlphaOptions, limit: number) {
  const { path } = await chosen(features, labels, options)
  const expected = (await naive(features, labels, options)).slice(0, path.length)
  const alphas = (steps: typeof expected) => steps.map(({ alpha }) => alpha)
  assert.equal(alphas(path), alphas(expected))
  for (const [i, { loss, error }] of path.entries()) {
    const name = `${features.rows} x ${features.columns}, seed ${options.seed}, alpha ${expected[i].alpha}`
    close([loss, error], [expected[i].loss, expected[i].error], limit * expected[i].loss, name)
  }
}

test('losses and standard errors are those of a loop over copied rows', async () => {
  const tolerance = 1e-8
  for (const seed of Array.from({ length: 12 }, (_, i) => i)) {
    const draw = random(100 + seed)
    const { features, labels: made } = linear(seed, 60, 4, 1, 1)
    // Every third problem has missing labels, every second weights, every fourth several labels a row.
    const rowIndex = seed % 4 === 0 ? draw.integers(90, 0, 60) : undefined
    const values = rowIndex ? Float32Array.from(rowIndex, (row) => made[row] + draw.next()) : made
    const labels: Labels = {
      values: seed % 3 === 0 ? values.map((value, i) => (i % 7 === 3 ? Number.NaN : value)) : values,
      ...(rowIndex && { rowIndex }),
      ...(seed % 2 === 0 && { weights: draw.uniform(values.length, 0.2, 2) }),
    }
    const options = {
      levels: [0.3, 0.8],
      alphas: [0.01, 0.3, 0.1, 0.03],
      intercept: seed % 2 === 1,
      tolerance,
      folds: 2 + (seed % 4),
      seed,
    }
    // Solutions are vertices, so that objectives this close leave only the rounding of the weights.
    await compare(features, labels, options, 2 ** -22)
  }
})

test('a rough search along the path finds the losses up to its tolerance', async () => {
  // For the proximal Newton method, which goes on from the penalty before.
  const { features, labels } = linear(5, 2400, 110, 1, 1)
  for (const intercept of [false, true]) {
    const options = { levels: [0.2, 0.5], alphas: [0.1, 0.03, 0.01], folds: 3, intercept, seed: 1 }
    const { path } = await chosen(features, labels, options)
    const expected = await naive(features, { values: labels }, { ...options, tolerance: 1e-7 })
    for (const [i, { loss }] of path.entries()) close([loss], [expected[i].loss], 1e-3 * expected[i].loss, `step ${i}`)
  }
})

test('every fit starts from its own level and fold at the penalty before', async () => {
  const { features, labels } = linear(6, 80, 5, 1, 1)
  const solver = await openSolver(features, { threads: 1 })
  const last = new Map<string, Start>()
  let continued = 0
  const watched: Solver = {
    ...solver,
    async fit(given, options) {
      const fit = await solver.fit(given, options)
      const key = `${options.levels} ${(given as Labels).values.map((value) => (Number.isNaN(value) ? 1 : 0)).join('')}`
      const before = last.get(key)
      assert.equal(options.start && { ...options.start }, before, key)
      if (before) continued++
      const { nonzeros, objective } = fit.fits[0]
      const made = { weights: fit.weights, intercept: fit.intercepts![0], nonzeros, objective }
      last.set(key, made)
      return fit
    },
  }
  const alphas = [0.2, 0.1, 0.05]
  await chooseAlpha(watched, labels, { levels: [0.3, 0.7], alphas, folds: 4, intercept: true })
  await solver.close()
  assert.equal([last.size, continued], [4 * 2, 4 * 2 * 2])
})

test('a seed gives one choice, on any number of threads', async () => {
  const { features, labels } = linear(7, 2400, 110, 1, 3)
  const options = { levels: [0.5], alphas: [0.2, 0.1, 0.05, 0.02], folds: 3 }
  const first = await chosen(features, labels, { ...options, seed: 0 })
  assert.equal(await chosen(features, { values: labels }, options, 2), first)
  assert.not.equal((await chosen(features, labels, { ...options, seed: 1 })).path, first.path)
})

// The path

/** The smallest alpha at which w = 0 is best at a level, without an intercept and with no label 0: from the optimality condition. */
function vanishing({ data, rows, columns }: DenseFeatures, labels: Float32Array, level: number): number {
  const sums = new Float64Array(columns)
  for (let i = 0; i < data.length; i++)
    sums[i % columns] += data[i] * (labels[(i / columns) | 0] > 0 ? level : level - 1)
  return Math.max(...sums.map(Math.abs)) / rows
}

test('the path begins where all weights vanish, and goes down three decades', async () => {
  for (const [seed, scale, shift] of [
    [1, 1, 0],
    [2, 1e6, 0],
    [3, 1e-6, 0],
    [4, 1, 30],
  ]) {
    const { features, labels } = linear(seed, 70, 6, 1, 1)
    // Strongly correlated columns, as those of a language model are.
    const data = features.data.map((value) => scale * (value + shift))
    const moved = { ...features, data }
    const levels = [0.2, 0.5, 0.9]
    const exact = Math.max(...levels.map((level) => vanishing(moved, labels, level)))
    const { path } = await chosen(moved, labels, { levels, folds: 2 })
    const alphas = path.map(({ alpha }) => alpha)
    assert.ok(alphas[0] >= 0.998 * exact && alphas[0] <= 1.1 * exact, `begins at ${alphas[0]}, exact ${exact}`)
    const steps = alphas.map((_, i) => alphas[0] * 1000 ** (-i / 11))
    close(alphas, steps, 1e-12 * exact, 'path')
  }
})

test('problems without an answer end with one', async () => {
  const options = { levels: [0.2, 0.5], intercept: true, folds: 3 }
  const { features, labels } = linear(8, 40, 3, 1, 1)
  const tied: boolean[] = []
  const zero = { ...features, data: new Float32Array(features.data.length) }
  for (const [name, x, y] of [
    ['zero columns', zero, labels],
    ['constant columns', { ...features, data: features.data.map(() => 3) }, labels],
    ['constant labels', features, labels.map(() => 2)],
    ['zero labels', features, labels.map(() => 0)],
  ] as const) {
    for (const intercept of [true, false]) {
      const { alpha, path } = await chosen(x, y, { ...options, intercept })
      assert.ok(alpha > 0 && Number.isFinite(alpha), `${name}: ${alpha}`)
      if (path.every(({ loss }) => loss === path[0].loss)) tied.push(alpha === path[0].alpha)
      assert.ok(
        path.every(({ loss, error }) => Number.isFinite(loss) && Number.isFinite(error)),
        name,
      )
    }
  }
  assert.ok(tied.length > 0 && tied.every(Boolean), 'equal losses must take the largest penalty')
})

test('noise takes a large penalty and a short path, a strong signal a small one', async () => {
  const levels = [0.1, 0.5, 0.9]
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const noise = linear(seed, 200, 30, 0, 1)
    const none = await chosen(noise.features, noise.labels, { levels, intercept: true })
    const largest = none.path[0].alpha
    assert.ok(none.alpha > 0.2 * largest, `noise ${seed}: ${none.alpha} of ${largest}`)
    assert.ok(none.path.length <= 8, `noise ${seed}: ${none.path.length} steps`)
    const careful = await chosen(noise.features, noise.labels, { levels, intercept: true, rule: 'one standard error' })
    assert.is(careful.alpha, largest)
    const strong = linear(seed, 200, 3, 1, 0.01)
    const clear = await chosen(strong.features, strong.labels, { levels, intercept: true })
    assert.ok(clear.alpha < 0.1 * clear.path[0].alpha, `signal ${seed}: ${clear.alpha} of ${clear.path[0].alpha}`)
  }
})

test('the rules choose from the path: the least loss, or the largest penalty within its standard error', async () => {
  const { features, labels } = linear(9, 150, 20, 1, 3)
  const options = { levels: [0.5], intercept: true }
  const { alpha, path } = await chosen(features, labels, options)
  const careful = await chosen(features, labels, { ...options, rule: 'one standard error' })
  assert.equal(careful.path, path)
  const best = path.findIndex((step) => step.alpha === alpha)
  assert.is(path[best].loss, Math.min(...path.map(({ loss }) => loss)))
  const limit = path[best].loss + path[best].error
  const first = path.findIndex((step) => step.alpha === careful.alpha)
  assert.ok(first < best, `${first} before ${best}`)
  assert.ok(path[first].loss <= limit && path.slice(0, first).every(({ loss }) => loss > limit))
})

// Around it

test('progress names each step, and an abort ends it', async () => {
  const { features, labels } = linear(10, 60, 4, 1, 1)
  const seen: AlphaProgress[] = []
  const options = { levels: [0.25, 0.75], folds: 3, intercept: true }
  const { path } = await chosen(features, labels, { ...options, onProgress: (state) => seen.push(state) })
  const steps = seen.filter(({ index }) => index >= 0)
  assert.ok(steps.length < seen.length && seen[0].index === -1 && seen[0].alphas === 0)
  const expected = path.flatMap(({ alpha }, index) =>
    [0, 1, 2].flatMap((fold) => options.levels.map((level) => ({ index, alphas: 12, fold, alpha, folds: 3, level }))),
  )
  assert.equal(
    steps.filter((step, i) => i === 0 || JSON.stringify(step) !== JSON.stringify(steps[i - 1])),
    expected,
  )
  const controller = new AbortController()
  const onProgress = ({ index }: AlphaProgress) => index === 1 && controller.abort(new Error('enough'))
  await fails(() => chosen(features, labels, { ...options, signal: controller.signal, onProgress }), 'enough')
})

test('options and labels that cannot be used are refused', async () => {
  const { features, labels } = linear(11, 6, 3, 1, 1)
  const few = labels.map((value, i) => (i < 2 ? value : Number.NaN))
  const cases: [Float32Array | Labels, Partial<AlphaOptions>, string][] = [
    [labels, { folds: 1 }, 'alpha: folds must be a whole number of at least 2, got 1'],
    [labels, { seed: 0.5 }, 'alpha: seed must be a whole number, got 0.5'],
    [labels, { alphas: [] }, 'alpha: alphas must have at least one entry, got none'],
    [labels, { alphas: [1, -1] }, 'alpha: alphas must be 0 or more, got -1'],
    [labels, { levels: [] }, 'alpha: levels must have at least one entry, got none'],
    [labels, { levels: [2] }, 'fit: levels must lie between 0 and 1, got 2'],
    [labels, { rule: 'max' as 'min' }, 'alpha: rule must be "min" or "one standard error", got "max"'],
    [few, {}, 'alpha: 5 folds need at least as many rows with labels, found 2; take fewer folds, or set alpha'],
    [
      { values: labels, rowIndex: Uint32Array.of(0, 1, 2, 3, 4, 4e9) },
      {},
      'fit: rowIndex must be below the 6 feature rows, label 5 has 4000000000',
    ],
    [
      { values: labels, rowIndex: Uint32Array.of(0, 1, 2, 3, 4) },
      {},
      'fit: rowIndex must have one entry per label (6), got 5',
    ],
    [{ values: labels, weights: new Float32Array(6).fill(-1) }, {}, 'fit: weights must be 0 or more, label 0 has -1'],
  ]
  for (const [given, options, message] of cases) {
    await fails(() => chosen(features, given, { levels: [0.5], ...options }), message)
  }
})

test.run()
