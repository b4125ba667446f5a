// Random quantile-regression problems of every shape and label type, seeded.

import { type Random, random } from './random.ts'
import type { Features, Labels } from './reference/quantile_regression.ts'

/** Features in f32, as the generators make them. */
export interface DenseFeatures extends Features {
  readonly data: Float32Array<ArrayBuffer>
}

export interface Problem {
  readonly name: string
  readonly features: DenseFeatures
  readonly labels: Labels
  readonly alpha: number
  readonly intercept: boolean
  readonly levels: readonly number[]
}

export const LABEL_KINDS = [
  'continuous',
  'five levels',
  'three levels',
  'constant',
  'zeros and ones',
  'heavy tails',
  'ties',
] as const
export type LabelKind = (typeof LABEL_KINDS)[number]

export const FEATURE_KINDS = ['gaussian', 'states', 'whole numbers', 'heavy tails', 'indicators'] as const
export type FeatureKind = (typeof FEATURE_KINDS)[number]

export function matrix(rows: number, columns: number, data: Float32Array<ArrayBuffer>): DenseFeatures {
  return { rows, columns, data }
}

/** [rows, columns] computed value by value. */
export function build(rows: number, columns: number, value: (row: number, column: number) => number): DenseFeatures {
  const data = new Float32Array(rows * columns)
  for (let n = 0; n < rows; n++) for (let d = 0; d < columns; d++) data[n * columns + d] = value(n, d)
  return { rows, columns, data }
}

/** Features like the states of a language model: few strong directions, non-zero mean, massive columns, equal row norms. */
export function states(source: Random, rows: number, columns: number): DenseFeatures {
  const strong = Math.max(1, columns >> 2)
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
  return { rows, columns, data }
}

export function makeFeatures(source: Random, kind: FeatureKind, rows: number, columns: number): DenseFeatures {
  if (kind === 'states') return states(source, rows, columns)
  if (kind === 'gaussian') return matrix(rows, columns, source.normal(rows * columns))
  if (kind === 'heavy tails') return matrix(rows, columns, source.normal(rows * columns, { outliers: 0.02 }))
  if (kind === 'whole numbers') {
    return matrix(
      rows,
      columns,
      Float32Array.from(source.integers(rows * columns, 0, 4), (value) => value - 1),
    )
  }
  const which = source.integers(rows, 0, columns)
  return build(rows, columns, (n, d) => (d === which[n] ? 1 : 0))
}

/** Labels that depend on some of the features, about 1 in size unless the kind says otherwise. */
export function makeLabels(
  source: Random,
  kind: LabelKind,
  { rows, columns, data }: DenseFeatures,
): Float32Array<ArrayBuffer> {
  const w = source.normal(columns)
  const y = source.normal(rows)
  const score = y.map((noise, n) => {
    let sum = 0
    let squares = 0
    for (let d = 0; d < columns; d += 2) {
      sum += w[d] * data[n * columns + d]
      squares += data[n * columns + d] ** 2
    }
    return noise + sum / Math.sqrt(1 + squares)
  })
  if (kind === 'continuous') return score
  if (kind === 'five levels') return score.map((value) => Math.max(-2, Math.min(2, Math.round(value))))
  if (kind === 'three levels') return score.map((value) => (value > 0.8 ? 5 : value > -0.8 ? 3 : 1))
  if (kind === 'constant') return score.fill(2.5)
  if (kind === 'zeros and ones') return score.map((value) => (value > 0.7 ? 1 : 0))
  if (kind === 'heavy tails') return score.map((value, n) => value + Math.tan(1.5 * Math.tanh(y[(n * 7) % rows])))
  return score.map((value) => (Math.abs(value) < 0.7 ? 0 : Math.round(2 * value) / 2))
}

const SHAPES = [
  [6, 40],
  [30, 90],
  [40, 40],
  [64, 60],
  [200, 3],
  [300, 24],
  [500, 1],
  [900, 12],
  [1500, 40],
] as const

/**
 * Problem number `seed`; equal numbers give equal problems. With `plain`, every row has one label of weight 1; otherwise labels may
 * repeat rows, carry weights (some of them 0) and be missing.
 */
export function sampleProblem(seed: number, plain = false): Problem {
  const source = random(1000 + seed)
  const pick = <T>(list: readonly T[]) => list[source.integers(1, 0, list.length)[0]]
  const [rows, columns] = SHAPES[seed % SHAPES.length]
  const featureKind = pick(FEATURE_KINDS)
  const labelKind = LABEL_KINDS[(seed + Math.floor(seed / 7)) % LABEL_KINDS.length]
  const features = makeFeatures(source, featureKind, rows, columns)
  const alpha = pick(rows >= 8 * columns ? [0.1, 0.01, 0.003, 0.0005, 0] : [0.1, 0.01, 0.003, 0.0005])
  const intercept = source.next() < 0.5
  const levels = pick([
    [0.1, 0.5, 0.9],
    [0.03, 0.35],
    [0.5, 0.98],
  ])
  const name = `problem ${seed} (${rows} x ${columns} ${featureKind}, ${labelKind}, alpha ${alpha}${intercept ? ', intercept' : ''})`
  const values = makeLabels(source, labelKind, features)
  if (plain || source.next() < 0.3) return { name, features, labels: { values }, alpha, intercept, levels }
  const count = Math.ceil(rows * (0.5 + 1.5 * source.next()))
  const rowIndex = source.integers(count, 0, rows)
  const repeated = Float32Array.from(rowIndex, (n) => (source.next() < 0.05 ? Number.NaN : values[n]))
  for (let i = 0; i < count; i += 5) repeated[i] = values[(i * 3) % rows]
  const weights = source.next() < 0.6 ? Float32Array.from(source.integers(count, 0, 5), (v) => v / 2) : undefined
  if (weights) weights[0] = 1
  return {
    name: `${name} on ${count} labels`,
    features,
    labels: { values: repeated, rowIndex, weights },
    alpha,
    intercept,
    levels,
  }
}

/** What a wild problem does to the value in row n, column d of its features. */
const TWISTS: Record<string, (x: number, n: number, d: number, old: DenseFeatures) => number> = {
  'as they are': (x) => x,
  'leverage rows': (x, n) => (n % 37 === 1 ? 50 * x : x),
  'columns twice': (_, n, d, { data, columns }) => data[n * columns + (d >> 1)],
  'rows four times': (_, n, d, { data, columns }) => data[(n >> 2) * columns + d],
  'zero columns': (x, _, d) => (d % 3 === 0 ? 0 : x),
  'massive and tiny columns': (x, _, d) => x * [1, 1e4, 1e-3][d % 3],
  'a constant column': (x, _, d) => (d === 0 ? 1000 : x),
  'close columns': (x, n, _, { data, columns }) => data[n * columns] + 0.05 * x,
  'far from zero': (x) => x + 30,
}

/** Problem number `seed` of those that combine what is hard: any shape, dependent columns, no penalty, extreme levels and scales. */
export function wildProblem(seed: number): Problem {
  const source = random(770_000 + seed)
  const pick = <T>(list: readonly T[]) => list[source.integers(1, 0, list.length)[0]]
  const rows = pick([1, 2, 3, 5, 8, 20, 60, 150, 400, 1000])
  const columns = pick([1, 2, 3, 5, 8, 20, 60, 120])
  const featureKind = pick(FEATURE_KINDS)
  const old = makeFeatures(source, featureKind, rows, columns)
  const twist = pick(Object.keys(TWISTS))
  const features = build(rows, columns, (n, d) => TWISTS[twist](old.data[n * columns + d], n, d, old))
  const labelKind = pick(LABEL_KINDS)
  const values = makeLabels(source, labelKind, features)
  const alpha = pick([0, 0, 1e-5, 1e-3, 0.003, 0.03, 1])
  const scale = pick([1, 1, 1e6, 1e-6])
  const weights = source.next() < 0.3 ? Float32Array.from(source.integers(rows, 0, 4)) : undefined
  if (weights) weights[0] = 1
  const intercept = source.next() < 0.5
  const levels = pick([[0.01], [0.1, 0.5], [0.5], [0.95], [0.3, 0.999]])
  const what = `${rows} x ${columns} ${featureKind}, ${twist}; ${labelKind} times ${scale}`
  const name = `wild ${seed} (${what}; alpha ${alpha}${weights ? ', weights' : ''}${intercept ? ', intercept' : ''})`
  return { name, features, labels: { values: values.map((v) => v * scale), weights }, alpha, intercept, levels }
}
