// Labels of one attribute, sorted by feature row, with equal labels of a row merged into one that weighs more.

import type { Labels } from './certificate.ts'

/** Labels as a solver reads them; N merged labels over R feature rows. */
export interface LabelSet {
  /** Feature rows that carry labels, ascending [R]. */
  readonly rows: Uint32Array
  /** Position in `rows` of each merged label, ascending [N]. */
  readonly rowOf: Uint32Array
  /** Values [N]. */
  readonly values: Float64Array
  /** Shares of the mean loss [N]; they add to 1. */
  readonly weights: Float64Array
  /** Merged label of each label as given; MISSING for NaN. */
  readonly index: Uint32Array
}

export const MISSING = 0xffffffff

/** Labels as they may be given; throws unless they are a Float32Array, or an object with one. */
export function givenLabels(labels: Float32Array | Labels): Labels {
  const given = labels instanceof Float32Array ? { values: labels } : labels
  if (given?.values instanceof Float32Array) return given
  throw new Error('fit: labels must be a Float32Array, or { values } with one; make one by Float32Array.from(labels)')
}

/** Weight of a label in the loss; 0 for a missing one. */
export function weightOf({ values, weights }: Labels, i: number): number {
  return Number.isNaN(values[i]) ? 0 : weights ? weights[i] : 1
}

/**
 * Sorts and merges labels. Label i belongs to feature row rowIndex[i], or i without `rowIndex`; NaN drops the label, and
 * so does a weight of 0.
 *
 * Throws where shapes or indices do not fit, a label is infinite, or none is left.
 */
export function mergeLabels(given: Labels, featureRows: number): LabelSet {
  const { values, rowIndex } = given
  const order = sortedLabels(given, featureRows)
  let total = 0
  for (const i of order) total += weightOf(given, i)
  if (order.length === 0)
    throw new Error(`fit: an attribute must have at least one label, found ${values.length} missing or without weight`)
  const index = new Uint32Array(values.length).fill(MISSING)
  const rows = new Uint32Array(order.length)
  const rowOf = new Uint32Array(order.length)
  const merged = new Float64Array(order.length)
  const weights = new Float64Array(order.length)
  let labels = 0
  let groups = 0
  for (const i of order) {
    const row = rowIndex ? rowIndex[i] : i
    const share = weightOf(given, i) / total
    if (groups === 0 || rows[groups - 1] !== row) rows[groups++] = row
    else if (merged[labels - 1] === values[i]) {
      weights[labels - 1] += share
      index[i] = labels - 1
      continue
    }
    rowOf[labels] = groups - 1
    merged[labels] = values[i]
    weights[labels] = share
    index[i] = labels++
  }
  return {
    rows: rows.slice(0, groups),
    rowOf: rowOf.slice(0, labels),
    values: merged.slice(0, labels),
    weights: weights.slice(0, labels),
    index,
  }
}

/** The labels of every `step`-th row, with targets y [N] to match; weights add to 1 again. `index` is left out. */
export function takeRows(set: LabelSet, y: Float64Array, step: number): { labels: LabelSet; y: Float64Array } {
  const kept = Uint32Array.from(set.rowOf.keys()).filter((i) => set.rowOf[i] % step === 0)
  let total = 0
  for (const i of kept) total += set.weights[i]
  const labels = {
    rows: set.rows.filter((_, k) => k % step === 0),
    rowOf: Uint32Array.from(kept, (i) => set.rowOf[i] / step),
    values: Float64Array.from(kept, (i) => set.values[i]),
    weights: Float64Array.from(kept, (i) => set.weights[i] / total),
    index: new Uint32Array(0),
  }
  return { labels, y: Float64Array.from(kept, (i) => y[i]) }
}

/** Smallest v with at least `level` of the total weight at or below it. */
export function weightedQuantile(values: Float64Array, weights: Float64Array, level: number): number {
  const order = Uint32Array.from(values, (_, i) => i).sort((a, b) => values[a] - values[b])
  let sum = 0
  for (const i of order) {
    sum += weights[i]
    if (sum >= level - 1e-12) return values[i]
  }
  return values[order[order.length - 1]]
}

function sortedLabels({ values, rowIndex, weights }: Labels, featureRows: number): Uint32Array {
  if (!rowIndex && values.length !== featureRows) {
    throw new Error(
      `fit: labels must be one per feature row (${featureRows}), got ${values.length}; pass rowIndex otherwise`,
    )
  }
  if (rowIndex && rowIndex.length !== values.length) {
    throw new Error(`fit: rowIndex must have one entry per label (${values.length}), got ${rowIndex.length}`)
  }
  if (weights && weights.length !== values.length) {
    throw new Error(`fit: weights must have one entry per label (${values.length}), got ${weights.length}`)
  }
  const present: number[] = []
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (Number.isNaN(value)) continue
    const weight = weights ? weights[i] : 1
    if (!(weight >= 0 && weight < Infinity)) throw new Error(`fit: weights must be 0 or more, label ${i} has ${weight}`)
    if (weight === 0) continue
    if (!Number.isFinite(value))
      throw new Error(`fit: labels must be finite or NaN for missing, label ${i} is ${value}`)
    if (rowIndex && !(Number.isInteger(rowIndex[i]) && rowIndex[i] >= 0 && rowIndex[i] < featureRows)) {
      throw new Error(`fit: rowIndex must be below the ${featureRows} feature rows, label ${i} has ${rowIndex[i]}`)
    }
    present.push(i)
  }
  const order = Uint32Array.from(present)
  return rowIndex ? order.sort((a, b) => rowIndex[a] - rowIndex[b] || values[a] - values[b] || a - b) : order
}
