// Point estimates of all attributes by ridge regression, the penalty of each chosen on rows held out.
//
// Source: stage 1 of ArmoRM (stage-1_train.py): scikit-learn's Ridge without an intercept, penalties 1e-4 to 1e4 by decades, 80 % of
// the rows to fit and 20 % to choose by the mean squared error, and no further fit on all rows. Here:
// 1. rows are held out by a seeded hash of their number, not by a shuffle of scikit-learn's random numbers;
// 2. several ratings of a row count as that many rows (see src/solver/ridge.ts), and ratings may have weights.

import { randomBits } from '../data/random.ts'
import type { FeatureBlocks } from '../files/table.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import { Ridge } from '../solver/ridge.ts'
import { Team } from '../solver/team.ts'
import { fittedRows, originOf, type Problem, type Ratings } from './problem.ts'

/** The penalties of ArmoRM. */
export const RIDGE_ALPHAS: readonly number[] = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1e3, 1e4]

const HELD_OUT = 2 ** 20 + 1
// Bytes of features that are in memory at a time.
const BLOCK_BYTES = 16 * 2 ** 20

export interface RidgeOptions {
  /** Penalties on the squared weights, each above 0; default `RIDGE_ALPHAS`. */
  readonly alphas?: readonly number[]
  /** Share of the rows that choose the penalty, in (0, 1); default 0.2. */
  readonly validation?: number
  /** `train` keeps the weights fitted to the rows that are not held out, `all` fits the chosen penalty to all rows. */
  readonly refit?: 'train' | 'all'
  readonly seed?: number
  /** 1 to 64; default all cores. Results do not depend on it. */
  readonly threads?: number
  /** Called a few times for each group of attributes with the same rows. */
  readonly onProgress?: (progress: RidgeProgress) => void
  readonly signal?: AbortSignal
}

export interface RidgeProgress {
  readonly attributes: readonly string[]
  readonly doing: 'sums' | 'solving' | 'choosing'
  /** Of what is being done, rows or penalties. */
  readonly done: number
  readonly total: number
}

export interface AttributeRidge {
  readonly attribute: string
  readonly alpha: number
  /** Labels fitted, and held out, for the choice of the penalty. */
  readonly training: number
  readonly validation: number
  /** Mean squared error on the labels held out, by penalty, before any fit to all rows. */
  readonly path: readonly { readonly alpha: number; readonly mse: number }[]
}

/** Point estimates, as `encodeHeads` and whatever takes a `HeadsFile` take them, with what is known of each. */
export interface RidgeFit extends HeadsFile {
  readonly levels: null
  readonly fits: readonly AttributeRidge[]
  /** As a file of these heads says it: attributes, penalties, options, the model of the features. */
  readonly metadata: Readonly<Record<string, string>>
}

/** Labels of attributes that are there for the same lines, as sums by feature row. */
interface Group {
  /** Positions of the attributes [G]. */
  readonly which: readonly number[]
  readonly training: RowSums
  readonly validation: RowSums
}

interface RowSums {
  /** Ascending [R]. */
  readonly rows: Uint32Array
  /** Of the labels of a row: weights [R]; weights times labels, and times their squares, of each attribute [G][R]. */
  readonly weight: Float64Array
  readonly label: readonly Float64Array[]
  readonly square: readonly Float64Array[]
  readonly labels: number
}

/**
 * Fits all attributes; those that are there for the same labels share one matrix of sums and a factor for each penalty. Reads the
 * features three times a group. Throws where an attribute has no label to fit or none to choose by.
 */
export async function fitRidge(
  { features, ...ratings }: Ratings & Pick<Problem, 'features'> & Partial<Pick<Problem, 'metadata'>>,
  options: RidgeOptions = {},
): Promise<RidgeFit> {
  const { alphas = RIDGE_ALPHAS, validation = 0.2, refit = 'train', seed = 0, threads } = options
  if (alphas.length === 0 || !alphas.every((alpha) => alpha > 0 && alpha < Infinity)) {
    throw new Error(`ridge: alphas must be above 0 and finite, got ${alphas.join(', ') || 'none'}`)
  }
  if (!(validation > 0 && validation < 1))
    throw new Error(`ridge: validation must lie between 0 and 1, got ${validation}`)
  const held = (row: number) => randomBits(seed, HELD_OUT, row) < validation * 2 ** 32
  const fits = new Array<AttributeRidge>(ratings.attributes.length)
  const weight = new Float32Array(ratings.attributes.length * features.columns)
  for (const which of groupAttributes(ratings)) {
    const group: Group = {
      which,
      training: sumRows(ratings, which, (row) => !held(row)),
      validation: sumRows(ratings, which, held),
    }
    const name = ratings.attributes[which[0]]
    if (group.training.labels === 0 || group.validation.labels === 0) {
      const counts = `${group.training.labels} to fit and ${group.validation.labels} held out`
      throw new Error(`ridge: ${JSON.stringify(name)} needs labels on both sides of the split, got ${counts}`)
    }
    const team = await Team.open(threads)
    try {
      for (const { m, weights, fit } of await fitGroup(team, features, ratings, group, { ...options, alphas })) {
        fits[m] = fit
        weight.set(weights, m * features.columns)
      }
    } finally {
      await team.close()
    }
  }
  const { attributes, metadata = {} } = ratings
  const fitted = await fittedRows({ features, ...ratings }, null)
  return {
    name: `heads of ${features.name}`,
    attributes,
    levels: null,
    columns: features.columns,
    weight,
    bias: null,
    transform: null,
    fingerprint: metadata.fingerprint ?? null,
    fits,
    fitted,
    metadata: {
      point: 'true',
      attributes: JSON.stringify(attributes),
      alpha: JSON.stringify(Object.fromEntries(fits.map((fit) => [fit.attribute, fit.alpha]))),
      validation: String(validation),
      refit: JSON.stringify(refit),
      seed: String(seed),
      fitted_sha256: fitted.hash,
      ...originOf({ metadata }),
    },
  }
}

/** Positions of attributes by which labels they have. */
function groupAttributes({ attributes, labels, weights }: Ratings): number[][] {
  const count = attributes.length
  const has = (i: number, m: number) => !Number.isNaN(labels[i * count + m])
  const alike = (m: number, other: number) => {
    for (let i = 0; i < labels.length / count; i++) {
      if (weights?.[i] !== 0 && has(i, m) !== has(i, other)) return false
    }
    return true
  }
  const groups: number[][] = []
  for (let m = 0; m < count; m++) {
    const group = groups.find(([first]) => alike(first, m))
    if (group) group.push(m)
    else groups.push([m])
  }
  return groups
}

function sumRows(
  { attributes, labels, rowIndex, weights }: Ratings,
  which: readonly number[],
  wanted: (row: number) => boolean,
): RowSums {
  const count = attributes.length
  const lines: number[] = []
  const rowOf = (i: number) => (rowIndex ? rowIndex[i] : i)
  for (let i = 0; i < labels.length / count; i++) {
    if (Number.isNaN(labels[i * count + which[0]]) || weights?.[i] === 0 || !wanted(rowOf(i))) continue
    lines.push(i)
  }
  if (rowIndex) lines.sort((a, b) => rowIndex[a] - rowIndex[b] || a - b)
  const rows: number[] = []
  const weight = new Float64Array(lines.length)
  const label = which.map(() => new Float64Array(lines.length))
  const square = which.map(() => new Float64Array(lines.length))
  for (const i of lines) {
    if (rows[rows.length - 1] !== rowOf(i)) rows.push(rowOf(i))
    const k = rows.length - 1
    const share = weights ? weights[i] : 1
    weight[k] += share
    for (const [g, m] of which.entries()) {
      const value = labels[i * count + m]
      label[g][k] += share * value
      square[g][k] += share * value * value
    }
  }
  return { rows: Uint32Array.from(rows), weight, label, square, labels: lines.length }
}

async function fitGroup(
  team: Team,
  features: FeatureBlocks,
  { attributes }: Ratings,
  { which, training, validation }: Group,
  { alphas, refit = 'train', onProgress, signal }: RidgeOptions & { readonly alphas: readonly number[] },
) {
  const { columns, dtype } = features
  const blockRows = Math.max(1, Math.min(features.rows, Math.floor(BLOCK_BYTES / (columns * 4))))
  const ridge = new Ridge(team, dtype, columns, which.length, blockRows)
  const names = which.map((m) => attributes[m])
  const tell = (doing: RidgeProgress['doing']) => (done: number, total: number) => {
    signal?.throwIfAborted()
    onProgress?.({ attributes: names, doing, done, total })
  }
  const add = async (sums: RowSums) =>
    eachBlock(ridge, features, sums, tell('sums'), ({ rows, from, to }) => {
      const part = (values: Float64Array) => values.subarray(from, to)
      const squares = Float64Array.from(sums.square, (values) => part(values).reduce((a, b) => a + b, 0))
      ridge.add(rows, part(sums.weight), sums.label.map(part), squares)
    })
  await add(training)
  const all = which.map((_, g) => g)
  const solved: Float64Array[][] = []
  for (const [a, alpha] of alphas.entries()) {
    solved.push(ridge.solve(alpha, all))
    tell('solving')(a + 1, alphas.length)
    // Solving keeps the thread: an interrupt may arrive now.
    await new Promise((resolve) => setTimeout(resolve))
  }
  const errors = alphas.map(() => new Float64Array(which.length))
  await eachBlock(ridge, features, validation, tell('choosing'), ({ rows, from }) => {
    for (const [a, weights] of solved.entries()) {
      for (const g of all) {
        const predicted = ridge.predict(rows, weights[g])
        for (let k = 0; k < rows.length; k++) {
          const [p, i] = [predicted[k], from + k]
          errors[a][g] += validation.square[g][i] - 2 * p * validation.label[g][i] + p * p * validation.weight[i]
        }
      }
    }
  })
  const total = validation.weight.reduce((a, b) => a + b, 0)
  const fits = all.map((g): AttributeRidge => {
    const path = alphas.map((alpha, a) => ({ alpha, mse: errors[a][g] / total }))
    const best = path.reduce((least, step) => (step.mse < least.mse ? step : least))
    const counts = { training: training.labels, validation: validation.labels }
    return { attribute: names[g], alpha: best.alpha, ...counts, path }
  })
  if (refit === 'all') await add(validation)
  return all.map((g) => {
    const { alpha } = fits[g]
    const weights = refit === 'all' ? ridge.solve(alpha, [g])[0] : solved[alphas.indexOf(alpha)][g]
    return { m: which[g], weights, fit: fits[g] }
  })
}

/** Reads the blocks of features that hold some of the rows; `work` gets those rows of a block, entries [from, to) of the sums. */
async function eachBlock(
  ridge: Ridge,
  features: FeatureBlocks,
  { rows }: RowSums,
  tell: (done: number, total: number) => void,
  work: (part: { readonly rows: Uint32Array; readonly from: number; readonly to: number }) => void,
): Promise<void> {
  for (let from = 0; from < rows.length; ) {
    const first = rows[from]
    const size = Math.min(ridge.blockRows, features.rows - first)
    let to = from
    while (to < rows.length && rows[to] < first + size) to++
    ridge.load(await features.read(first, rows[to - 1] - first + 1))
    work({ rows: rows.slice(from, to).map((row) => row - first), from, to })
    from = to
    tell(from, rows.length)
  }
}
