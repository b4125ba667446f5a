// The quantile-regression solver as a library: the same bits however it is called, progress, abort, resuming, errors.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type FitOptions, fitQuantiles, openSolver, type QuantileFit } from '../src/index.ts'
import { random } from './random.ts'
import type { Labels } from './reference/quantile_regression.ts'
import { checkedFit } from './solver_check.ts'
import { makeFeatures, makeLabels, matrix, type Problem, sampleProblem, states } from './solver_problems.ts'

const LEVELS = [0.1, 0.5, 0.9]

/** Everything of a fit that does not depend on time, by place: a name or an index, and there the value. */
function bits({ weights, intercepts, duals, fits }: QuantileFit): Map<string, unknown> {
  const all = new Map<string, unknown>()
  for (const [k, { ms, ...rest }] of fits.entries()) {
    for (const [name, value] of Object.entries(rest)) all.set(`fit ${k}: ${name}`, value)
  }
  for (const [name, list] of Object.entries({ weights, intercepts, duals })) {
    all.set(`${name} there`, list !== null)
    for (const [i, value] of list?.entries() ?? []) all.set(`${name}[${i}]`, value)
  }
  return all
}

/** Asserts that two fits are the same, bit for bit; names the first place where they are not. */
function same(actual: QuantileFit, expected: QuantileFit, name: string): void {
  const theirs = bits(expected)
  const ours = bits(actual)
  assert.is(ours.size, theirs.size, `${name}: size`)
  for (const [place, value] of ours) {
    const other = theirs.get(place)
    assert.ok(Object.is(value, other), `${name}, ${place}: ${value} instead of ${other}`)
  }
}

/** The part of a fit that belongs to the levels at the places `which`. */
function levelsOf(fit: QuantileFit, which: readonly number[]): QuantileFit {
  const part = <T extends Float32Array | Float64Array>(list: T): T => {
    const width = list.length / fit.fits.length
    const rows = which.map((k) => [...list.subarray(k * width, (k + 1) * width)])
    return (list instanceof Float32Array ? Float32Array.from(rows.flat()) : Float64Array.from(rows.flat())) as T
  }
  return {
    ...fit,
    weights: part(fit.weights),
    intercepts: fit.intercepts && part(fit.intercepts),
    duals: fit.duals && part(fit.duals),
    fits: which.map((k) => fit.fits[k]),
  }
}

/** Problems for every method: states in the size of a small file, few rows, leverage, no penalty, weights, repeated rows. */
function problems(): (Problem & { tolerance: number })[] {
  const source = random(21)
  const wide = states(source, 2500, 96)
  const many = states(source, 9000, 60)
  const leverage = makeFeatures(source, 'gaussian', 900, 24)
  for (let i = 0; i < leverage.data.length; i++) if (Math.floor(i / 24) % 200 === 0) leverage.data[i] *= 50
  const common = { alpha: 0.003, levels: LEVELS, intercept: false, tolerance: 1e-4 }
  const zeroOne = makeLabels(source, 'zeros and ones', many)
  return [
    { ...common, name: 'wide states', features: wide, labels: { values: makeLabels(source, 'five levels', wide) } },
    {
      ...common,
      name: 'zeros and ones',
      features: many,
      labels: { values: zeroOne },
      intercept: true,
      tolerance: 1e-6,
    },
    { ...common, name: 'leverage', features: leverage, labels: { values: makeLabels(source, 'ties', leverage) } },
    ...[1, 5, 7, 8, 17, 26].map((seed) => ({ ...sampleProblem(seed), tolerance: 1e-6 })),
  ]
}

function optionsOf({ levels, alpha, intercept, tolerance }: Problem & { tolerance: number }) {
  return { levels, alpha, intercept, tolerance, duals: true }
}

test('one, two and three threads give the same bits', async () => {
  for (const problem of problems()) {
    const { name, features, labels } = problem
    const options = optionsOf(problem)
    const one = await fitQuantiles(features, labels, { ...options, threads: 1 })
    for (const threads of [1, 2, 3]) {
      same(await fitQuantiles(features, labels, { ...options, threads }), one, `${name}, ${threads} threads`)
    }
  }
})

test('an open solver keeps nothing of earlier fits, stopped ones included', async () => {
  const source = random(22)
  const features = states(source, 1200, 32)
  const values = (['five levels', 'continuous'] as const).map((kind) => makeLabels(source, kind, features))
  const options = { levels: LEVELS, duals: true }
  const alone = [
    await fitQuantiles(features, { values: values[0] }, options),
    await fitQuantiles(features, { values: values[1] }, options),
  ]
  const solver = await openSolver(features, { threads: 2 })
  try {
    assert.ok(solver.threads >= 1 && solver.threads <= 2)
    for (const k of [0, 1, 0]) same(await solver.fit({ values: values[k] }, options), alone[k], `labels ${k}`)
    const controller = new AbortController()
    const onLevel = () => controller.abort(new Error('enough'))
    await rejects(solver.fit({ values: values[1] }, { ...options, onLevel, signal: controller.signal }), 'enough')
    const weights = source.uniform(1200, 0, 2)
    const weighted = { levels: [0.3, 0.7], alpha: 0.01, intercept: true, tolerance: 1e-6, duals: true }
    await solver.fit({ values: values[0], weights }, weighted)
    same(await solver.fit({ values: values[0] }, options), alone[0], 'after a stopped and a weighted fit')
  } finally {
    await solver.close()
  }
  await assertRejects(solver.fit({ values: values[0] }, options), /^fit: /)
})

test('fits asked for at once wait for each other', async () => {
  const source = random(25)
  const features = states(source, 2500, 96)
  const tasks = [
    { kind: 'five levels', options: { levels: [0.1, 0.2, 0.4, 0.5, 0.7], tolerance: 1e-6 } },
    { kind: 'continuous', options: { levels: [0.4], tolerance: 1e-3 } },
    { kind: 'zeros and ones', options: { levels: [0.5], intercept: true, tolerance: 1e-3 } },
    { kind: 'heavy tails', options: { levels: [0.3], alpha: 0.01, tolerance: 1e-2 } },
  ] as const
  const labels = tasks.map(({ kind }) => ({ values: makeLabels(source, kind, features) }))
  const solver = await openSolver(features, { threads: 2 })
  try {
    const alone = []
    for (const [k, { options }] of tasks.entries()) alone.push(await solver.fit(labels[k], options))
    const wrong = failure(solver.fit(labels[0], { levels: [2] }))
    // The others begin amid the first, one after each level, and would end before it.
    const others: Promise<QuantileFit>[] = []
    const onLevel: FitOptions['onLevel'] = ({ index }) => {
      const k = index + 1
      if (k < tasks.length) others.push(solver.fit(labels[k], tasks[k].options))
    }
    const first = await solver.fit(labels[0], { ...tasks[0].options, onLevel })
    assert.is(await wrong, 'fit: levels must lie between 0 and 1, got 2')
    for (const [k, fit] of [first, ...(await Promise.all(others))].entries()) {
      same(fit, alone[k], tasks[k].kind)
    }
  } finally {
    await solver.close()
  }
})

test('a fit resumed from the weights of the level before goes on bit for bit', async () => {
  for (const problem of problems()) {
    const { name, features, labels } = problem
    const levels = [0.15, 0.3, 0.55, 0.6, 0.9]
    const options = { ...optionsOf(problem), levels }
    const whole = await fitQuantiles(features, labels, options)
    for (const from of [1, 3, 4]) {
      const { weights, intercepts } = levelsOf(whole, [from - 1])
      const start = { weights, intercept: intercepts?.[0] ?? null }
      const rest = await fitQuantiles(features, labels, { ...options, levels: levels.slice(from), start })
      same(rest, levelsOf(whole, [0, 1, 2, 3, 4].slice(from)), `${name}, from level ${levels[from]}`)
    }
  }
})

test('levels in another order give the same bits in that order', async () => {
  for (const problem of problems().slice(0, 4)) {
    const { name, features, labels } = problem
    const levels = [0.1, 0.4, 0.5, 0.85]
    const sorted = await fitQuantiles(features, labels, { ...optionsOf(problem), levels })
    const order = [2, 0, 3, 1]
    const mixed = await fitQuantiles(features, labels, { ...optionsOf(problem), levels: order.map((k) => levels[k]) })
    same(mixed, levelsOf(sorted, order), name)
  }
})

test('features in blocks give the bits of features in memory', async () => {
  const source = random(23)
  const { rows, columns, data } = states(source, 1100, 24)
  const half = Uint16Array.from(new Uint32Array(data.buffer), (word) => word >>> 16)
  const labels = { values: makeLabels(source, 'five levels', { rows, columns, data }) }
  const options = { levels: LEVELS, intercept: true, duals: true }
  for (const [dtype, values] of [['f32', data] as const, ['bf16', half] as const]) {
    const expected = await fitQuantiles({ rows, columns, data: values }, labels, options)
    const seen = new Uint8Array(rows)
    const read = async (first: number, count: number) => {
      assert.ok(first >= 0 && count >= 1 && first + count <= rows, `rows ${first} to ${first + count} of ${rows}`)
      seen.fill(1, first, first + count)
      return values.slice(first * columns, (first + count) * columns)
    }
    const blocks = { name: 'blocks', rows, columns, dtype, read }
    same(await fitQuantiles(blocks, labels, options), expected, dtype)
    assert.ok(seen.every((value) => value === 1))
  }
  const failing = {
    name: 'broken',
    rows,
    columns,
    dtype: 'f32' as const,
    read: () => Promise.reject(new Error('gone')),
  }
  await rejects(fitQuantiles(failing, labels, options), 'gone')
})

test('bf16 features of an odd number of rows are those of f32, and the Newton method keeps up with them', async () => {
  // Blocks of the working set are then no whole number of cache lines.
  const source = random(31)
  for (const rows of [3001, 3002, 2999]) {
    const { data } = states(source, rows, 420)
    const bf16 = Uint16Array.from(new Uint32Array(data.buffer, data.byteOffset, data.length), (word) => word >>> 16)
    const f32 = new Float32Array(Uint32Array.from(bf16, (half) => half << 16).buffer)
    const labels = makeLabels(source, 'continuous', matrix(rows, 420, f32))
    const options: FitOptions = { levels: [0.2, 0.5], alpha: 0.002, duals: true }
    const narrow = await fitQuantiles({ data: bf16, rows, columns: 420 }, labels, options)
    same(narrow, await fitQuantiles({ data: f32, rows, columns: 420 }, labels, options), `${rows} rows`)
    assert.equal([...new Set(narrow.fits.map(({ method }) => method))], ['proximal newton'])
  }
})

test('labels may be a plain array; inputs stay as they are', async () => {
  const source = random(24)
  const features = makeFeatures(source, 'gaussian', 200, 6)
  const values = makeLabels(source, 'continuous', features)
  values[3] = Number.NaN
  const weights = source.uniform(200, 0, 2)
  const before = [...features.data, ...values, ...weights]
  const options = { levels: LEVELS, intercept: true, duals: true }
  const plain = await fitQuantiles(features, values, options)
  same(await fitQuantiles(features, { values }, options), plain, 'plain array')
  const weighted = await fitQuantiles(features, values, { ...options, weights })
  same(await fitQuantiles(features, { values, weights }, options), weighted, 'weights as an option')
  assert.ok(weighted.weights.some((w, i) => w !== plain.weights[i]))
  assert.equal([...features.data, ...values, ...weights], before)
  assert.ok(plain.duals!.every((u, i) => i % 200 !== 3 || u === 0))
  assert.is((await fitQuantiles(features, values, { levels: LEVELS })).duals, null)
})

test('state-like features: 19 levels, each certified, at both tolerances', async () => {
  const source = random(2)
  const features = states(source, 4000, 80)
  const levels = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)
  for (const kind of ['five levels', 'zeros and ones'] as const) {
    const labels = { values: makeLabels(source, kind, features) }
    for (const tolerance of [1e-4, 1e-6]) {
      const { fit } = await checkedFit(`states, ${kind}`, features, labels, { levels, tolerance })
      for (const [phase, ms] of Object.entries(fit.phases)) assert.ok(ms >= 0, `${phase}: ${ms}`)
      const all = Object.values(fit.phases).reduce((sum, ms) => sum + ms, 0)
      const levelled = fit.fits.reduce((sum, { ms }) => sum + ms, 0)
      assert.ok(all >= 0.99 * levelled, `phases add up to ${all} ms, levels to ${levelled} ms`)
    }
  }
})

test('reports each level as it is finished, in ascending order of levels', async () => {
  const source = random(8)
  const features = states(source, 1500, 40)
  const labels = { values: makeLabels(source, 'continuous', features) }
  const levels = [0.7, 0.2, 0.9, 0.5]
  for (const intercept of [false, true]) {
    const done: Parameters<NonNullable<FitOptions['onLevel']>>[0][] = []
    const shown: Parameters<NonNullable<FitOptions['onProgress']>>[0][] = []
    const onLevel: FitOptions['onLevel'] = (level) => done.push({ ...level, weights: level.weights.slice() })
    const onProgress: FitOptions['onProgress'] = (state) => shown.push({ ...state })
    const fit = await fitQuantiles(features, labels, { levels, intercept, onLevel, onProgress })
    assert.equal(
      done.map(({ index }) => index),
      [1, 3, 0, 2],
    )
    for (const { index, fit: level, weights, intercept: constant } of done) {
      assert.equal(level, fit.fits[index])
      assert.equal([...weights], [...fit.weights.subarray(index * 40, (index + 1) * 40)])
      assert.is(constant, fit.intercepts ? fit.intercepts[index] : null)
    }
    for (const { index, levels: count, level, gap, nonzeros, iterations } of shown) {
      assert.is(count, 4)
      assert.is(level, levels[index])
      assert.ok(gap >= 0 && nonzeros >= 0 && nonzeros <= 40 && iterations >= 0, `${gap} ${nonzeros} ${iterations}`)
    }
  }
})

test('stops when told: before, between and inside levels', async () => {
  const source = random(9)
  const features = states(source, 4000, 96)
  const labels = { values: makeLabels(source, 'continuous', features) }
  const levels = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)
  await rejects(fitQuantiles(features, labels, { levels, signal: AbortSignal.abort(new Error('before')) }), 'before')
  const between = new AbortController()
  let finished = 0
  const onLevel = () => {
    finished++
    if (finished === 2) between.abort(new Error('between'))
  }
  await rejects(fitQuantiles(features, labels, { levels, onLevel, signal: between.signal }), 'between')
  assert.is(finished, 2)
  const inside = new AbortController()
  finished = 0
  setTimeout(() => inside.abort(new Error('inside')), 1)
  const options = { levels, tolerance: 1e-6, onLevel: () => finished++, signal: inside.signal }
  await rejects(fitQuantiles(features, labels, options), 'inside')
  assert.ok(finished < 19)
})

async function rejects(promise: Promise<unknown>, message: string): Promise<void> {
  assert.is(await failure(promise), message)
}

async function assertRejects(promise: Promise<unknown>, message: RegExp): Promise<void> {
  assert.match(await failure(promise), message)
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (reason: Error) => reason,
  )
  return error.message
}

test('refuses what cannot be fitted, and says why', async () => {
  const x = matrix(3, 2, Float32Array.of(1, 2, 3, 4, 5, 6))
  const values = Float32Array.of(1, 2, 3)
  const fails = (labels: Labels, options: Partial<FitOptions>, message: string) =>
    rejects(fitQuantiles(x, labels, { levels: [0.5], ...options }), message)
  await fails({ values }, { levels: [] }, 'fit: levels must have at least one entry, got none')
  await fails({ values }, { levels: [0.5, 1] }, 'fit: levels must lie between 0 and 1, got 1')
  await fails({ values }, { alpha: -1 }, 'fit: alpha must be 0 or more, got -1')
  await fails({ values }, { tolerance: 0 }, 'fit: tolerance must lie between 0 and 1, got 0')
  const nan = new Float32Array(3).fill(Number.NaN)
  await fails({ values: nan }, {}, 'fit: an attribute must have at least one label, found 3 missing or without weight')
  const infinite = Float32Array.of(1, Number.POSITIVE_INFINITY, 2)
  await fails({ values: infinite }, {}, 'fit: labels must be finite or NaN for missing, label 1 is Infinity')
  const short = values.subarray(1)
  await fails({ values: short }, {}, 'fit: labels must be one per feature row (3), got 2; pass rowIndex otherwise')
  const one = Uint32Array.of(0)
  await fails({ values, rowIndex: one }, {}, 'fit: rowIndex must have one entry per label (3), got 1')
  const far = Uint32Array.of(0, 3, 1)
  await fails({ values, rowIndex: far }, {}, 'fit: rowIndex must be below the 3 feature rows, label 1 has 3')
  for (const weights of [
    [1, 1],
    [1, -1, 1],
    [1, Number.NaN, 1],
    [1, Number.POSITIVE_INFINITY, 1],
    [0, 0, 0],
  ]) {
    const promise = fitQuantiles(x, { values, weights: Float32Array.from(weights) }, { levels: [0.5] })
    await assertRejects(promise, /^fit: .*weight/)
  }
  const start = (weights: number[]) => ({ weights: Float32Array.from(weights), intercept: null })
  await fails({ values }, { start: start([1, 2, 3]) }, 'fit: start must have 2 weights, got 3')
  const bare = { start: start([1, 2]), intercept: true }
  await fails({ values }, bare, 'fit: start must have an intercept, as the fit has one')
  const open = (rows: number, columns: number, data: Float32Array | Uint16Array, message: string) =>
    rejects(openSolver({ rows, columns, data }), message)
  await open(0, 2, values, 'fit: features must have at least one row and one column, got 0 x 2')
  await open(2, 2, values, 'fit: features of 2 x 2 must have 4 values, got 3')
  await open(1, 3, Float32Array.of(1, Number.NaN, 2), 'fit: features must be finite, row 0, column 1 is NaN')
  await open(3, 1, Uint16Array.of(0x3f80, 0, 0xff80), 'fit: features must be finite, row 2, column 0 is -Infinity')
})

test.run()
