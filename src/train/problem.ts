// What heads are fitted to: features, and labels of several attributes with the rows and weights they have.
import { BlockHash, hex } from '../files/hash.ts'
import { show } from '../files/json.ts'
import { type FeatureBlocks, memoryBlocks } from '../files/table.ts'
import { type Fitted, fittedTo, labelledKeys, rowKeys } from '../reward/fitted.ts'
import { checkFinite, type RatingFile } from '../reward/rating_file.ts'
import { type Unit, unitWeights } from '../reward/unit.ts'
import type { Features } from '../solver/certificate.ts'

/** Labels of M attributes: L of each. */
export interface Ratings {
  /** [M] */
  readonly attributes: readonly string[]
  /** [L, M]; NaN is a missing label. */
  readonly labels: Float32Array
  /** Feature row of each label [L]; absent: label i belongs to row i. */
  readonly rowIndex?: Uint32Array
  /** Weight of each label [L]. */
  readonly weights?: Float32Array
}

/** What `fitHeads` and `fitRidge` take. Whoever opened the features closes what they are read from. */
export interface Problem extends Ratings {
  /** [N, D] */
  readonly features: FeatureBlocks
  /** Names of the feature columns [D], where they have any. */
  readonly columns: readonly string[] | null
  /** "model" and "fingerprint" go on to the files of heads; the rest is passed over. */
  readonly metadata: Readonly<Record<string, string>>
  /** SHA-256 that tells these features from others; absent: `fitHeads` makes one from the features, where it keeps its work. */
  readonly hash?: string
}

export interface ProblemOptions {
  /** Attributes to fit, in this order; all without it. */
  readonly select?: readonly string[]
  readonly columns?: readonly string[] | null
  readonly metadata?: Readonly<Record<string, string>>
  readonly hash?: string
  /** What errors call the labels; default: as the features. */
  readonly labelsName?: string
}

/**
 * Makes a problem of features, by blocks or in memory, and labels. Throws where shapes do not fit, a label is infinite, a row number
 * or weight is out of range, and where an attribute has no label, or none with a weight.
 */
export function makeProblem(
  features: FeatureBlocks | Features,
  ratings: Ratings,
  { select, columns = null, metadata = {}, hash, labelsName }: ProblemOptions = {},
): Problem {
  const blocks = 'data' in features ? memoryBlocks('features', features) : features
  const name = labelsName ?? blocks.name
  checkShapes(blocks, ratings, name)
  const { rowIndex, weights } = ratings
  const chosen = select === undefined ? ratings : selectAttributes(ratings, select, name)
  checkLabels(chosen, name)
  return {
    features: blocks,
    columns,
    attributes: chosen.attributes,
    labels: chosen.labels,
    ...(rowIndex && { rowIndex }),
    ...(weights && { weights }),
    metadata,
    ...(hash !== undefined && { hash }),
  }
}

/** Makes a problem of opened files of ratings; `select` names the attributes to fit. */
export function ratingsProblem(
  { features, attributes, labels, rowIndex, weights, metadata }: RatingFile,
  options: Pick<ProblemOptions, 'select' | 'hash'> = {},
): Problem {
  return makeProblem(features, { attributes, labels, rowIndex, weights }, { metadata, ...options })
}

function checkShapes(
  { rows, columns, name: features }: FeatureBlocks,
  { attributes, labels, rowIndex, weights }: Ratings,
  name: string,
): void {
  if (rows === 0 || columns === 0) throw new Error(`${features}: features are empty: ${show([rows, columns])}`)
  const twice = attributes.find((attribute, m) => attributes.indexOf(attribute) !== m)
  if (attributes.length === 0 || twice !== undefined) {
    throw new Error(`${name}: attributes must be different names, got ${show(attributes)}`)
  }
  const count = rowIndex?.length ?? rows
  if (labels.length !== count * attributes.length) {
    const why = rowIndex ? `as rowIndex has ${count} entries` : `one for each of the ${count} rows`
    throw new Error(
      `${name}: labels must be [${count}, ${attributes.length}], ${why}, got ${labels.length} values in all`,
    )
  }
  if (weights && weights.length !== count) {
    throw new Error(`${name}: weights must be [${count}], one for each label, got ${weights.length}`)
  }
  const light = weights?.findIndex((weight) => !(weight >= 0 && weight < Infinity)) ?? -1
  if (light >= 0)
    throw new Error(`${name}: weights must be finite and at least 0, entry ${light} is ${weights![light]}`)
  const far = rowIndex?.findIndex((row) => row >= rows) ?? -1
  if (far >= 0) {
    throw new Error(
      `${name}: rowIndex must be below the ${rows} rows of the features, entry ${far} is ${rowIndex![far]}`,
    )
  }
}

/** The labels of some attributes, in the order of `names`. */
function selectAttributes(ratings: Ratings, names: readonly string[], file: string): Ratings {
  const { attributes, labels } = ratings
  const places = names.map((name) => {
    const m = attributes.indexOf(name)
    if (m >= 0) return m
    throw new Error(`${file}: has no labels ${show(name)} (--labels), it has ${attributes.map(show).join(', ')}`)
  })
  const count = labels.length / attributes.length
  const chosen = new Float32Array(count * places.length)
  for (let n = 0; n < count; n++) {
    for (const [at, m] of places.entries()) chosen[n * places.length + at] = labels[n * attributes.length + m]
  }
  return { ...ratings, attributes: names, labels: chosen }
}

function checkLabels({ labels, attributes, weights }: Ratings, file: string): void {
  const count = attributes.length
  checkFinite(labels, attributes, file)
  for (const [m, name] of attributes.entries()) {
    let [found, weight] = [false, 0]
    for (let at = m, n = 0; at < labels.length; at += count, n++) {
      if (Number.isNaN(labels[at])) continue
      found = true
      weight += weights ? weights[n] : 1
    }
    if (!found) throw new Error(`${file}: labels of ${show(name)} are all missing; leave it out of --labels`)
    if (!(weight > 0)) throw new Error(`${file}: labels of ${show(name)} all have weight 0; leave it out of --labels`)
  }
}

/** Labels of one attribute, as the solver takes them, with the weights by which a unit counts. */
export function labelsOf({ labels, attributes, rowIndex, weights }: Ratings, m: number, unit: Unit = 'rating') {
  const count = attributes.length
  const values = new Float32Array(labels.length / count)
  for (let i = 0; i < values.length; i++) values[i] = labels[i * count + m]
  return {
    values,
    rowIndex,
    weights: unitWeights(unit, { ratings: values, rows: rowIndex, weights }) as Float32Array | undefined,
  }
}

/** The rows that have a label of some attribute, for whoever measures the heads. */
export async function fittedRows(
  { features, labels, attributes, rowIndex, weights }: Ratings & Pick<Problem, 'features'>,
  unit: Unit | null,
): Promise<Fitted> {
  return fittedTo(labelledKeys(await rowKeys(features), labels, attributes.length, rowIndex, weights), unit)
}

/** The model that the features are of, as far as it is known. */
export function originOf({ metadata }: Pick<Problem, 'metadata'>): Record<string, string> {
  return Object.fromEntries(['model', 'fingerprint'].flatMap((key) => (key in metadata ? [[key, metadata[key]]] : [])))
}

/** SHA-256 over all labels with their rows and weights. */
export async function hashLabels({ labels, rowIndex, weights }: Ratings): Promise<string> {
  const hash = new BlockHash()
  for (const array of [labels, rowIndex, weights]) {
    await hash.update(new TextEncoder().encode(`${array?.length ?? 'none'} `))
    if (array) await hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
  }
  return hex(await hash.result())
}

// Features up to this many blocks are hashed whole, of larger ones as many, evenly spread, the first and the last among them.
const BLOCKS = 64
const BLOCK_BYTES = 2 ** 20

/** SHA-256 of features, or of a sample of many. */
export async function hashFeatures({ rows, columns, dtype, read }: FeatureBlocks): Promise<string> {
  const step = Math.max(1, Math.floor(BLOCK_BYTES / (columns * (dtype === 'bf16' ? 2 : 4))))
  const blocks = Math.ceil(rows / step)
  const hash = new BlockHash()
  await hash.update(new TextEncoder().encode(`${rows} ${columns} ${dtype} `))
  for (let i = 0; i < Math.min(blocks, BLOCKS); i++) {
    const block = blocks <= BLOCKS ? i : Math.floor(((blocks - 1) * i) / (BLOCKS - 1))
    const data = await read(block * step, Math.min(step, rows - block * step))
    await hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  }
  return hex(await hash.result())
}
