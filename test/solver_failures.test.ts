// Problems on which solvers of quantile regressions fail: each must end optimal, with a gap that the tests compute themselves.

import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Random, random } from './random.ts'
import { linearProgram } from './reference/quantile_highs.ts'
import { type Labels, objective } from './reference/quantile_regression.ts'
import { type Checked, checkedFit } from './solver_check.ts'
import {
  build,
  type DenseFeatures,
  type LabelKind,
  makeFeatures,
  makeLabels,
  matrix,
  type Problem,
  sampleProblem,
  states,
  wildProblem,
} from './solver_problems.ts'

interface Hard {
  readonly features: DenseFeatures
  readonly labels: Labels
  readonly alpha?: number
  readonly levels?: readonly number[]
  /** Default 1e-4 and 1e-6. */
  readonly tolerances?: readonly number[]
}

const LEVELS = [0.1, 0.5, 0.8]

/** Tests a problem without and with an intercept. */
function hard(name: string, make: (source: Random) => Hard): void {
  test(name, async () => {
    for (const intercept of [false, true]) {
      const { features, labels, alpha = 0.003, levels = LEVELS, tolerances = [1e-4, 1e-6] } = make(random(name.length))
      for (const tolerance of tolerances) {
        const title = `${name}${intercept ? ', intercept' : ''}, tolerance ${tolerance}`
        await checkedFit(title, features, labels, { levels, alpha, intercept, tolerance })
      }
    }
  })
}

function gaussian(source: Random, rows: number, columns: number, kind: LabelKind = 'continuous') {
  const features = makeFeatures(source, 'gaussian', rows, columns)
  return { features, labels: { values: makeLabels(source, kind, features) } }
}

/** Features whose value is a function of the old one. */
function change(
  { rows, columns, data }: DenseFeatures,
  value: (old: number, row: number, column: number) => number,
): DenseFeatures {
  return build(rows, columns, (n, d) => value(data[n * columns + d], n, d))
}

/** Leverage: few rows decide most weights. */
for (const [rows, columns, every, factor] of [
  [2000, 32, 500, 50],
  [600, 20, 60, 1000],
  [3000, 64, 500, 50],
]) {
  hard(`${rows} x ${columns}, every ${every}th row ${factor} times as large`, (source) => {
    const { features, labels } = gaussian(source, rows, columns)
    return { features: change(features, (x, n) => (n % every === 0 ? factor * x : x)), labels }
  })
}

hard('leverage rows among states, labels of five levels', (source) => {
  const features = states(source, 1500, 48)
  const labels = { values: makeLabels(source, 'five levels', features) }
  return { features: change(features, (x, n) => (n % 300 === 7 ? 50 * x : x)), labels }
})

/** Few rows: the optimum interpolates many labels. */
for (const [rows, columns] of [
  [40, 120],
  [5, 300],
  [1, 12],
  [300, 256],
  [100, 100],
]) {
  for (const kind of ['continuous', 'zeros and ones'] as const) {
    hard(`${rows} rows, ${columns} columns, ${kind}`, (source) => gaussian(source, rows, columns, kind))
  }
}

hard('fewer rows than columns, no penalty', (source) => ({ ...gaussian(source, 20, 50), alpha: 0 }))

/** Most residuals are exactly 0. */
hard('labels 0 and 1 at low levels', (source) => {
  const features = states(source, 2000, 48)
  const values = makeLabels(source, 'zeros and ones', features)
  return { features, labels: { values }, levels: [0.01, 0.05, 0.1] }
})

hard('labels 0 and 1 at high levels', (source) => {
  const { features, labels } = gaussian(source, 1200, 20, 'zeros and ones')
  return { features, labels, levels: [0.9, 0.97, 0.99] }
})

hard('three labels of 2000 are not 0', (source) => {
  const features = states(source, 2000, 24)
  return { features, labels: { values: Float32Array.from({ length: 2000 }, (_, n) => (n % 700 === 3 ? 1 : 0)) } }
})

for (const value of [0, 2.5, -1e-3]) {
  for (const alpha of [0, 0.003]) {
    hard(`all labels ${value}, penalty ${alpha}`, (source) => {
      const features = states(source, 400, 16)
      return { features, labels: { values: new Float32Array(400).fill(value) }, alpha }
    })
  }
}

hard('labels that weights fit exactly', (source) => {
  const { features } = gaussian(source, 300, 8)
  const values = Float32Array.from({ length: 300 }, (_, n) => features.data[8 * n] - 2 * features.data[8 * n + 3])
  return { features, labels: { values }, alpha: 0 }
})

hard('one label of 1e8', (source) => {
  const { features, labels } = gaussian(source, 300, 8)
  labels.values[17] = 1e8
  return { features, labels, alpha: 0.01 }
})

hard('one label only, the others missing', (source) => {
  const { features, labels } = gaussian(source, 60, 8)
  return { features, labels: { values: labels.values.map((value, n) => (n === 31 ? value : Number.NaN)) } }
})

hard('few rows with many contradicting labels', (source) => {
  const { features } = gaussian(source, 10, 6)
  const rowIndex = source.integers(1500, 0, 10)
  return { features, labels: { values: Float32Array.from(source.integers(1500, 1, 6)), rowIndex } }
})

hard('equal rows', (source) => {
  const row = source.normal(7)
  const features = build(200, 7, (_, d) => row[d])
  return { features, labels: { values: source.normal(200) } }
})

/** Dependent columns: the weights are not determined. */
for (const alpha of [0, 0.003]) {
  hard(`every column twice, penalty ${alpha}`, (source) => {
    const { features, labels } = gaussian(source, 400, 8)
    return { features: build(400, 16, (n, d) => features.data[8 * n + (d % 8)]), labels, alpha }
  })

  hard(`a column that is the sum of others, penalty ${alpha}`, (source) => {
    const small = source.integers(400 * 5, 0, 9)
    const value = (n: number, d: number) =>
      d < 5 ? small[5 * n + d] : small[5 * n] + small[5 * n + 1] - small[5 * n + 4]
    const features = build(400, 6, value)
    return { features, labels: { values: makeLabels(source, 'five levels', features) }, alpha }
  })

  hard(`a constant column beside the intercept, penalty ${alpha}`, (source) => {
    const { features, labels } = gaussian(source, 400, 6)
    return { features: change(features, (x, _, d) => (d === 2 ? 10_000 : x)), labels, alpha }
  })

  hard(`columns of zeros, penalty ${alpha}`, (source) => {
    const { features, labels } = gaussian(source, 300, 12)
    return { features: change(features, (x, _, d) => (d % 2 === 0 ? 0 : x)), labels, alpha }
  })

  hard(`nothing but zeros, penalty ${alpha}`, (source) => {
    const features = matrix(50, 4, new Float32Array(200))
    return { features, labels: { values: source.normal(50) }, alpha }
  })

  hard(`massive and tiny columns, penalty ${alpha}`, (source) => {
    const { features, labels } = gaussian(source, 900, 12)
    return { features: change(features, (x, _, d) => x * [1, 1e4, 1, 1e-3, 1, 1e3][d % 6]), labels, alpha }
  })
}

// Without a penalty, weights in f32 resolve 2^-24 of a fit, whose terms are larger than it by the inverse of the noise.
for (const [noise, tolerance] of [
  [1e-3, 1e-4],
  [3e-2, 1e-6],
]) {
  hard(`columns equal but for ${noise}, no penalty`, (source) => {
    const { features, labels } = gaussian(source, 500, 4)
    const extra = source.normal(2000, { deviation: noise })
    const value = (n: number, d: number) => features.data[4 * n + (d % 4)] + (d < 4 ? 0 : extra[4 * n + (d % 4)])
    return { features: build(500, 8, value), labels, alpha: 0, tolerances: [tolerance] }
  })
}

hard('few strong directions and little noise', (source) => {
  const factors = source.normal(800 * 3)
  const mix = source.normal(3 * 24)
  const noise = source.normal(800 * 24, { deviation: 3e-3 })
  const features = build(800, 24, (n, d) => {
    let sum = noise[24 * n + d]
    for (let k = 0; k < 3; k++) sum += factors[3 * n + k] * mix[24 * k + d]
    return sum
  })
  return { features, labels: { values: makeLabels(source, 'continuous', features) }, alpha: 0.001 }
})

for (const draw of [1, 2, 3, 4]) {
  hard(`massive indicators of groups at extreme levels, draw ${draw}`, () => {
    const source = random(draw)
    const group = source.integers(3000, 0, 60)
    const features = build(3000, 60, (n, d) => (d !== group[n] ? 0 : d % 10 === 0 ? 1000 : 1))
    return { features, labels: { values: makeLabels(source, 'continuous', features) }, levels: [0.01, 0.99] }
  })
}

for (const scale of [1e6, 1e-6]) {
  hard(`labels times ${scale}`, (source) => {
    const { features, labels } = gaussian(source, 700, 16)
    return { features, labels: { values: labels.values.map((value) => scale * value) } }
  })

  hard(`features times ${scale}`, (source) => {
    const { features, labels } = gaussian(source, 700, 16)
    return { features: change(features, (x) => scale * x), labels }
  })

  hard(`features and penalty times ${scale}`, (source) => {
    const { features, labels } = gaussian(source, 700, 16)
    return { features: change(features, (x) => scale * x), labels, alpha: 0.003 * scale }
  })
}

hard('levels close to 0 and 1', (source) => ({ ...gaussian(source, 400, 10), levels: [0.001, 0.01, 0.99, 0.999] }))

hard('labels far from 0', (source) => {
  const { features, labels } = gaussian(source, 500, 10)
  return { features, labels: { values: labels.values.map((value) => 1000 + value) } }
})

hard('columns far from 0', (source) => {
  const { features, labels } = gaussian(source, 500, 6)
  return { features: change(features, (x) => x + 100), labels }
})

hard('weights from 1e-4 to 1e4', (source) => {
  const { features, labels } = gaussian(source, 600, 12)
  const weights = Float32Array.from({ length: 600 }, () => 10 ** (8 * source.next() - 4))
  return { features, labels: { ...labels, weights } }
})

hard('weights of 1e-30, one label with weight in ten', (source) => {
  const { features, labels } = gaussian(source, 400, 12, 'ties')
  const weights = Float32Array.from({ length: 400 }, (_, n) => (n % 10 === 0 ? 1e-30 : 0))
  return { features, labels: { ...labels, weights } }
})

hard('heavy-tailed features and labels', (source) => {
  const tail = () => Math.tan(Math.PI * (source.next() - 0.5))
  const features = build(800, 16, () => tail())
  return { features, labels: { values: Float32Array.from({ length: 800 }, tail) } }
})

/**
 * Asserts that where a fit did not reach its tolerance f32 weights are to blame: even the optimum of HiGHS, once rounded, is as far
 * from itself, within the factor that is luck.
 */
async function excused({ fit, problems, name }: Checked, tolerance: number): Promise<void> {
  for (const [k, { status, gap }] of fit.fits.entries()) {
    if (status === 'optimal') continue
    const { weights, intercept } = await linearProgram(problems[k])
    const best = objective(problems[k], weights, intercept)
    const rounded = objective(problems[k], Float32Array.from(weights), Math.fround(intercept))
    const shown = `${name}, level ${problems[k].level}: gap ${gap}`
    assert.ok(
      rounded - best > 0.25 * tolerance * rounded,
      `${shown}; HiGHS rounded to f32: ${(rounded - best) / rounded}`,
    )
  }
}

/** Fits a problem that combines many of these, at both tolerances. */
async function combined({ name, features, labels, alpha, intercept, levels }: Problem): Promise<void> {
  for (const tolerance of [1e-4, 1e-6]) {
    const options = { levels, alpha, intercept, tolerance }
    await excused(await checkedFit(name, features, labels, options, { hopeless: true }), tolerance)
  }
}

test('many of these at once, in small problems', async () => {
  for (let seed = 0; seed < 50; seed++) await combined(wildProblem(seed))
})

/** Seeds on which some version of the solver failed. */
const WILD = [
  51, 88, 112, 128, 133, 266, 304, 375, 383, 390, 395, 428, 534, 670, 716, 890, 1140, 1198, 1464, 1579, 1650, 1863,
  1905, 2296, 2328, 2619, 4367, 4457, 4642, 4944,
]
const SAMPLES = [518, 635, 1018]

for (const problem of [...WILD.map(wildProblem), ...SAMPLES.map((seed) => sampleProblem(seed))]) {
  test(`${problem.name}, which failed once`, () => combined(problem))
}

// Dependent columns without a penalty, or weights whose rounding to f32 costs more than the tolerance where a vertex would lose nothing.
const UNSOLVED = [...[3408, 3440, 3836, 4950].map(wildProblem), sampleProblem(3105)]

for (const { name, features, labels, alpha, intercept, levels } of UNSOLVED) {
  test(`${name}, is not solved, and says so`, async () => {
    const options = { levels, alpha, intercept, tolerance: 1e-6 }
    const { fit } = await checkedFit(name, features, labels, options, { hopeless: true })
    assert.ok(
      fit.fits.some(({ status }) => status === 'tolerance not reached'),
      'solved now: to be moved to those that failed once',
    )
  })
}

test('what f32 weights cannot express is not called optimal', async () => {
  const source = random(99)
  const { features, labels } = gaussian(source, 300, 3)
  const extra = source.normal(900, { deviation: 1e-6 })
  const close = build(300, 6, (n, d) => features.data[3 * n + (d % 3)] + (d < 3 ? 0 : extra[3 * n + (d % 3)]))
  const options = { levels: LEVELS, alpha: 0, tolerance: 1e-6 }
  const { fit, evidence } = await checkedFit('almost equal columns', close, labels, options, { hopeless: true })
  for (const [k, { gap }] of evidence.entries()) {
    if (gap > 1e-5) assert.is(fit.fits[k].status, 'tolerance not reached', `level ${LEVELS[k]}: gap ${gap}`)
  }
})

test.run()
