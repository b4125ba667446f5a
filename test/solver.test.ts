// The quantile-regression solver: certificates recomputed, brute force, scikit-learn's objectives, invariances, errors.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { certify, type Features, type Labels } from '../src/reward/certificate.ts'
import { type FitOptions, fitQuantiles, openSolver, type QuantileFit } from '../src/reward/heads.ts'
import { fixtureJson } from './fixture.ts'
import { type Random, random } from './random.ts'
import { bruteForce, dualBound, objective, type Regression } from './reference/pinball.ts'

interface Case {
  readonly name: string
  readonly rows: number
  readonly columns: number
  readonly alpha: number
  readonly levels: number[]
  readonly x: string
  readonly y: string
  readonly objectives: { readonly plain: number[]; readonly intercept: number[] }
}

/** Asserts, with the numbers in the message. */
function within(actual: number, expected: number, limit: number, name: string): void {
  const error = Math.abs(actual - expected)
  assert.ok(error <= limit, `${name}: expected ${expected}, got ${actual}, off by ${error}, allowed ${limit}`)
}

function floats(text: string): Float32Array {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer)
}

/** The problem of level k with labels copied out to one row each. */
function regression(features: Features, labels: Labels, options: FitOptions, k: number): Regression {
  const present = [...labels.values.keys()].filter((i) => !Number.isNaN(labels.values[i]))
  const row = (n: number) => Array.from(features.data.subarray(n * features.columns, (n + 1) * features.columns))
  return {
    x: present.map((i) => row(labels.rowIndex ? labels.rowIndex[i] : i)),
    y: present.map((i) => labels.values[i]),
    level: options.levels[k],
    alpha: options.alpha ?? 0.003,
    intercept: options.intercept ?? false,
  }
}

/** Fits, and recomputes objective and bound of every level by the definition. */
async function fitAndCheck(
  name: string,
  features: Features,
  labels: Labels,
  options: FitOptions,
): Promise<QuantileFit> {
  const fit = await fitQuantiles(features, labels, { ...options, duals: true })
  const { columns } = features
  const n = labels.values.length
  for (const [k, level] of fit.fits.entries()) {
    const where = `${name}, level ${level.level}`
    const problem = regression(features, labels, options, k)
    const w = Array.from(fit.weights.subarray(k * columns, (k + 1) * columns))
    const claimed = objective(problem, w, fit.intercepts?.[k] ?? 0)
    const size = problem.y.reduce((sum, y) => sum + Math.abs(y), 0) / problem.y.length
    within(level.objective, claimed, 1e-10 * claimed + 1e-14 * size, `${where}: objective`)
    const u = Array.from(fit.duals!.subarray(k * n, (k + 1) * n)).filter((_, i) => !Number.isNaN(labels.values[i]))
    const { bound, imbalance } = dualBound(problem, u)
    within(imbalance, 0, 1e-6, `${where}: mean of the dual point`)
    // Without a penalty a dual point cannot be scaled, so only the recomputation of certify itself remains.
    if (problem.alpha > 0) within(level.dual, bound, 1e-5 * claimed + 1e-12 * size, `${where}: bound`)
    assert.ok(level.dual <= level.objective * (1 + 1e-12), `${where}: the bound must not exceed the objective`)
    assert.is(level.nonzeros, w.filter((v) => v !== 0).length, `${where}: nonzeros`)
    assert.is(level.status, 'optimal', `${where}: gap ${level.gap} after ${level.iterations} steps, ${level.method}`)
  }
  return fit
}

function features(rows: number, columns: number, data: Float32Array): Features {
  return { rows, columns, data }
}

/** Noise features, labels that depend on some of them. */
function problem(source: Random, rows: number, columns: number): { x: Features; y: Float32Array } {
  const data = source.normal(rows * columns)
  const w = source.normal(columns)
  const y = source.normal(rows)
  for (let n = 0; n < rows; n++) for (let d = 0; d < columns; d += 2) y[n] += w[d] * data[n * columns + d]
  return { x: features(rows, columns, data), y }
}

/** Features like the states of a language model: few strong directions, non-zero mean, massive columns, equal row norms. */
function states(source: Random, rows: number, columns: number): Float32Array {
  const strong = columns >> 2
  const mix = source.normal(strong * columns)
  const mean = source.normal(columns, { deviation: 0.7 })
  const data = source.normal(rows * columns, { deviation: 0.1 })
  for (let n = 0; n < rows; n++) {
    const row = data.subarray(n * columns, (n + 1) * columns)
    const z = source.normal(strong)
    for (let s = 0; s < strong; s++) {
      const size = z[s] / Math.sqrt(1 + s)
      for (let d = 0; d < columns; d++) row[d] += size * mix[s * columns + d]
    }
    let sum = 0
    for (let d = 0; d < columns; d++) {
      row[d] = (row[d] + mean[d]) * (d < 3 ? 10 : 1)
      sum += row[d] ** 2
    }
    for (let d = 0; d < columns; d++) row[d] *= 2 / Math.sqrt(sum / columns)
  }
  return data
}

const LEVELS = [0.1, 0.5, 0.9]

test('agrees with scikit-learn on regular and degenerate problems, and certifies each', async () => {
  for (const item of await fixtureJson<Case[]>('solver/scikit_learn.json')) {
    const x = features(item.rows, item.columns, floats(item.x))
    for (const intercept of [false, true]) {
      const name = `${item.name}${intercept ? ', intercept' : ''}`
      const { levels, alpha } = item
      const values = floats(item.y)
      const fit = await fitAndCheck(name, x, { values }, { levels, alpha, intercept, tolerance: 1e-6 })
      const expected = intercept ? item.objectives.intercept : item.objectives.plain
      const size = values.reduce((sum, y) => sum + Math.abs(y), 0) / values.length
      for (const [k, level] of fit.fits.entries()) {
        // 1e-5 for what f32 weights and HiGHS's own tolerances cost; an absolute floor where the objective is 0.
        within(level.objective, expected[k], 1e-5 * expected[k] + 1e-6 * size, `${name}, level ${levels[k]}`)
      }
    }
  }
})

test('finds the best vertex of tiny problems', async () => {
  const source = random(1)
  for (let round = 0; round < 60; round++) {
    const rows = 1 + source.integers(1, 0, 8)[0]
    const columns = 1 + source.integers(1, 0, 2)[0]
    const discrete = round % 3 === 0
    const data = discrete ? Float32Array.from(source.integers(rows * columns, 0, 3)) : source.normal(rows * columns)
    const values = discrete ? Float32Array.from(source.integers(rows, 0, 3)) : source.normal(rows)
    const x = features(rows, columns, data)
    const options = {
      levels: LEVELS,
      alpha: [0.3, 0.01, 0.001][round % 3],
      intercept: round % 2 === 0,
      tolerance: 1e-6,
    }
    const fit = await fitAndCheck(`round ${round}`, x, { values }, options)
    for (let k = 0; k < LEVELS.length; k++) {
      const best = bruteForce(regression(x, { values }, options, k))
      within(fit.fits[k].objective, best, 2e-6 * best + 1e-6, `round ${round}, level ${LEVELS[k]}`)
    }
  }
})

test('proximal Newton certifies all levels of state-like features, warm from level to level', async () => {
  const source = random(2)
  const rows = 2500
  const columns = 96
  const data = states(source, rows, columns)
  const w = source.normal(columns, { deviation: 0.1 })
  const noise = source.normal(rows)
  const values = noise.map((e, n) => {
    let sum = e
    for (let d = 0; d < columns; d++) sum += w[d] * data[n * columns + d]
    return Math.max(-2, Math.min(2, Math.round(sum)))
  })
  const levels = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)
  for (const intercept of [false, true]) {
    const fit = await fitQuantiles(features(rows, columns, data), { values }, { levels, intercept })
    for (const level of fit.fits) {
      assert.is(level.method, 'proximal newton', `level ${level.level}`)
      assert.is(level.status, 'optimal')
      assert.ok(level.gap <= 1e-4)
    }
    // The optimum is concave in the level: a minimum over weights of functions linear in the level.
    for (let k = 1; k + 1 < levels.length; k++) {
      const chord = (fit.fits[k - 1].dual + fit.fits[k + 1].dual) / 2
      assert.ok(fit.fits[k].objective >= chord, `level ${levels[k]}: ${fit.fits[k].objective} below ${chord}`)
    }
    const zeroOne = values.map((v) => (v > 0 ? 1 : 0))
    const low = { levels: [0.05, 0.5, 0.95], intercept, tolerance: 1e-5 }
    await fitAndCheck('zeros and ones', features(rows, columns, data), { values: zeroOne }, low)
  }
})

test('keeps the objective under scaling, order, signs and repetition', async () => {
  const source = random(3)
  const { x, y } = problem(source, 60, 5)
  const { rows, columns, data } = x
  const options = { levels: [0.2, 0.6], alpha: 0.02, intercept: true, tolerance: 1e-7 }
  const objectives = async (name: string, f: Features, l: Labels, change: Partial<FitOptions> = {}) =>
    (await fitAndCheck(name, f, l, { ...options, ...change })).fits.map((fit) => fit.objective)
  const base = await objectives('base', x, { values: y })
  const same = (actual: number[], name: string, factor = 1) => {
    for (const [k, value] of actual.entries()) within(value / factor, base[k], 2e-6 * base[k], `${name}, level ${k}`)
  }
  same(await objectives('labels scaled', x, { values: y.map((v) => v * 1024) }), 'labels scaled', 1024)
  const wide = features(
    rows,
    columns,
    data.map((v) => v * 64),
  )
  same(await objectives('features scaled', wide, { values: y }, { alpha: 0.02 * 64 }), 'features scaled')
  const order = Array.from({ length: rows }, (_, n) => (n * 7) % rows)
  const permuted = Float32Array.from({ length: rows * columns }, (_, i) => {
    const n = order[Math.floor(i / columns)]
    return data[n * columns + (i % columns)]
  })
  same(
    await objectives('rows permuted', features(rows, columns, permuted), { values: y.map((_, i) => y[order[i]]) }),
    'rows',
  )
  const turned = data.map((_, i) => {
    const d = i % columns
    return (d % 2 === 0 ? -1 : 1) * data[i - d + (columns - 1 - d)]
  })
  same(await objectives('columns turned', features(rows, columns, turned), { values: y }), 'columns')
  const twice = { values: Float32Array.from([...y, ...y]), rowIndex: Uint32Array.from([...y.keys(), ...y.keys()]) }
  same(await objectives('labels twice', x, twice), 'labels twice')
  const mirrored = await objectives('mirrored', x, { values: y.map((v) => -v) }, { levels: [0.8, 0.4] })
  same(mirrored, 'mirrored')
  const padded = Float32Array.from({ length: rows * (columns + 1) }, (_, i) => {
    const d = i % (columns + 1)
    return d === columns ? 0 : data[Math.floor(i / (columns + 1)) * columns + d]
  })
  same(await objectives('zero column', features(rows, columns + 1, padded), { values: y }), 'zero column')
})

test('repeated labels equal copied rows, missing labels equal absent ones', async () => {
  const source = random(4)
  const { x } = problem(source, 40, 4)
  const count = 300
  const rowIndex = source.integers(count, 0, 40)
  const values = Float32Array.from(rowIndex, (n) => Math.round(2 * x.data[n * 4] + 2 * source.normal(1)[0]))
  for (let i = 0; i < count; i += 17) values[i] = Number.NaN
  const options = { levels: LEVELS, alpha: 0.01, intercept: true, tolerance: 1e-7 }
  const repeated = await fitAndCheck('repeated', x, { values, rowIndex }, options)
  const kept = [...values.keys()].filter((i) => !Number.isNaN(values[i]))
  const copied = Float32Array.from(
    kept.flatMap((i) => Array.from(x.data.subarray(rowIndex[i] * 4, rowIndex[i] * 4 + 4))),
  )
  const plain = { values: Float32Array.from(kept, (i) => values[i]) }
  const copies = await fitAndCheck('copied', features(kept.length, 4, copied), plain, options)
  for (let k = 0; k < LEVELS.length; k++) {
    const expected = copies.fits[k].objective
    within(repeated.fits[k].objective, expected, 1e-6 * expected, `level ${LEVELS[k]}`)
  }
})

test('an intercept leaves the share of the level below the fit', async () => {
  const { x, y } = problem(random(5), 400, 3)
  const fit = await fitAndCheck(
    'shares',
    x,
    { values: y },
    { levels: LEVELS, alpha: 0.01, intercept: true, tolerance: 1e-7 },
  )
  for (let k = 0; k < LEVELS.length; k++) {
    let below = 0
    let onIt = 0
    for (let n = 0; n < 400; n++) {
      let r = y[n] - fit.intercepts![k]
      for (let d = 0; d < 3; d++) r -= x.data[n * 3 + d] * fit.weights[k * 3 + d]
      if (Math.abs(r) < 1e-5) onIt++
      else if (r < 0) below++
    }
    const expected = LEVELS[k] * 400
    assert.ok(
      below <= expected + 1e-9 && expected <= below + onIt + 1e-9,
      `${below} below, ${onIt} on, expected ${expected}`,
    )
  }
})

test('a large penalty gives exact zeros, a larger one never a smaller objective', async () => {
  const { x, y } = problem(random(6), 80, 5)
  let last = 0
  for (const alpha of [0, 0.001, 0.01, 0.1, 1, 10]) {
    const options = { levels: [0.3], alpha, tolerance: 1e-6 }
    const [fit] = (await fitAndCheck(`alpha ${alpha}`, x, { values: y }, options)).fits
    assert.ok(fit.objective >= last * (1 - 1e-6), `alpha ${alpha}: ${fit.objective} after ${last}`)
    last = fit.objective
    if (alpha >= 1) assert.is(fit.nonzeros, 0)
  }
})

test('problems without a spread are certified: no spread, one label, zero features, exact fits', async () => {
  const source = random(7)
  const { x } = problem(source, 30, 4)
  const exact = Float32Array.from({ length: 30 }, (_, n) => x.data[n * 4] - 2 * x.data[n * 4 + 1])
  const zeros = features(30, 4, new Float32Array(120))
  const y = source.normal(30)
  for (const intercept of [false, true]) {
    for (const alpha of [0, 0.01]) {
      const options = { levels: LEVELS, alpha, intercept }
      const zero = await fitAndCheck('zero labels', x, { values: new Float32Array(30) }, options)
      assert.equal([...zero.weights], new Array(12).fill(0))
      await fitAndCheck('exact fit', x, { values: exact }, options)
      await fitAndCheck('zero features', zeros, { values: y }, options)
      await fitAndCheck('one label', x, { values: Float32Array.of(1.5), rowIndex: Uint32Array.of(7) }, options)
    }
  }
})

test('the certificate of a wrong claim says so', () => {
  const x = features(4, 1, Float32Array.of(1, 2, 3, 4))
  const labels = { values: Float32Array.of(1, 2, 3, 5) }
  const claim = { level: 0.5, alpha: 0.1, weights: Float32Array.of(0), intercept: null }
  const nothing = certify(x, labels, { ...claim, dual: new Float64Array(4) })
  assert.is(nothing.objective, 0.5 * (11 / 4))
  assert.is(nothing.dual, 0)
  assert.is(nothing.gap, 1)
  // u = 1/2 everywhere exceeds the penalty 12.5-fold, so the bound is y'u / 12.5.
  const scaled = certify(x, labels, { ...claim, dual: new Float64Array(4).fill(9) })
  within(scaled.dual, (0.5 * (11 / 4)) / 12.5, 1e-15, 'bound')
})

test('reports progress and stops when told', async () => {
  const { x, y } = problem(random(8), 50, 3)
  const seen: number[] = []
  const onProgress = ({ index, fit }: { index: number; fit: { level: number } }) => {
    assert.is(fit.level, LEVELS[index])
    seen.push(index)
  }
  await fitQuantiles(x, { values: y }, { levels: LEVELS, onProgress })
  assert.equal(seen, [0, 1, 2])
  const controller = new AbortController()
  const abort = () => controller.abort(new Error('enough'))
  await rejects(
    fitQuantiles(x, { values: y }, { levels: LEVELS, onProgress: abort, signal: controller.signal }),
    'enough',
  )
})

async function rejects(promise: Promise<unknown>, message: string): Promise<void> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (reason: Error) => reason,
  )
  assert.is(error.message, message)
}

test('refuses what cannot be fitted, and says why', async () => {
  const x = features(3, 2, Float32Array.of(1, 2, 3, 4, 5, 6))
  const values = Float32Array.of(1, 2, 3)
  const fails = (labels: Labels, options: Partial<FitOptions>, message: string) =>
    rejects(fitQuantiles(x, labels, { levels: [0.5], ...options }), message)
  await fails({ values }, { levels: [] }, 'fit: levels must have at least one entry, got none')
  await fails({ values }, { levels: [0.5, 1] }, 'fit: levels must lie between 0 and 1, got 1')
  await fails({ values }, { alpha: -1 }, 'fit: alpha must be 0 or more, got -1')
  await fails({ values }, { tolerance: 0 }, 'fit: tolerance must lie between 0 and 1, got 0')
  const nan = new Float32Array(3).fill(Number.NaN)
  await fails({ values: nan }, {}, 'fit: an attribute must have at least one label, found 3 missing ones')
  const infinite = Float32Array.of(1, Number.POSITIVE_INFINITY, 2)
  await fails({ values: infinite }, {}, 'fit: labels must be finite or NaN for missing, label 1 is Infinity')
  const short = values.subarray(1)
  await fails({ values: short }, {}, 'fit: labels must be one per feature row (3), got 2; pass rowIndex otherwise')
  const one = Uint32Array.of(0)
  await fails({ values, rowIndex: one }, {}, 'fit: rowIndex must have one entry per label (3), got 1')
  const far = Uint32Array.of(0, 3, 1)
  await fails({ values, rowIndex: far }, {}, 'fit: rowIndex must be below the 3 feature rows, label 1 has 3')
  const open = (rows: number, columns: number, data: Float32Array, message: string) =>
    assert.throws(
      () => openSolver({ rows, columns, data }),
      (error: Error) => error.message === message,
    )
  open(0, 2, values, 'fit: features must have at least one row and one column, got 0 x 2')
  open(2, 2, values, 'fit: features of 2 x 2 must have 4 values, got 3')
  open(1, 3, Float32Array.of(1, Number.NaN, 2), 'fit: features must be finite, row 0, column 1 is NaN')
})

test.run()
