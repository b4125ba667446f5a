// Ratings as features with their labels, in one safetensors file or several that are read as one.
//
//   embeddings         [N, D]            state at the last token; F32, BF16, F16 or F64
//   labels             [L, M]            NaN where a rating is missing; L = N without label_rows
//   label_rows         [L], optional     feature row of each line of labels: several ratings of a row do not copy its features
//   label_weights      [L], optional     finite, at least 0
//   prompt_embeddings  [N, D], optional  state that the gate reads
//
// Source: what `pinball features` writes, and the ArmoRM scripts (stage-1_prepare.py: the first two).
import { parseJson, show } from '../files/json.ts'
import { openSafetensors, type Safetensors, type TensorInfo } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import {
  arrayBlocks,
  concatBlocks,
  type FeatureBlocks,
  readFloats,
  readRowNumbers,
  type StoredArray,
  tensorArray,
} from '../files/table.ts'
import { checkAlike } from './alike.ts'
import { attributeNames, isName } from './manifest.ts'

export interface RatingFile {
  /** What errors call it: the file, or the first of several and how many more there are. */
  readonly name: string
  /** [N, D], the files one after the other; read by rows, never held as a whole. */
  readonly features: FeatureBlocks
  /** M names. */
  readonly attributes: string[]
  /** [L, M]; NaN is a missing label, all others are finite. */
  readonly labels: Float32Array
  /** Feature row of each line of labels [L]; absent where line and row are the same. */
  readonly rowIndex?: Uint32Array
  /** Weight of each line of labels [L]. */
  readonly weights?: Float32Array
  /** States that the gate reads [N, D]; null where the files have none. */
  readonly prompts: FeatureBlocks | null
  /** Of the model that made the features; null where no file says. */
  readonly fingerprint: string | null
  /** Of the first file. */
  readonly metadata: Readonly<Record<string, string>>
}

export interface RatingOptions {
  /** Names of the attributes [M], for files that do not say them. */
  readonly attributes?: readonly string[]
}

interface Part {
  readonly source: Source
  readonly opened: Safetensors
  readonly rows: number
  readonly columns: number
  readonly features: FeatureBlocks
  readonly prompts: FeatureBlocks | null
  readonly attributes: string[]
  readonly labels: Float32Array
  readonly rowIndex: Uint32Array | null
  readonly weights: Float32Array | null
}

/**
 * Opens files of ratings as one matrix, in the order given; labels are read whole, features when they are asked for. The
 * sources stay the caller's to close, when nothing is read any more. Throws on tensors that are missing or of another shape or type,
 * labels that are infinite, and files that differ in columns, model or in which tensors they have. Attributes are those of all files, in the
 * order in which they come up; a file has no ratings of the others. A file without rows adds nothing.
 */
export async function openRatings(sources: readonly Source[], options: RatingOptions = {}): Promise<RatingFile> {
  if (sources.length === 0) throw new Error('ratings: at least one file is needed, got none')
  const parts: Part[] = []
  for (const source of sources) parts.push(await openPart(source, options))
  checkTogether(parts)
  const [{ source, opened }] = parts
  const attributes = [...new Set(parts.flatMap((part) => part.attributes))]
  const name = parts.length === 1 ? source.name : `${source.name} and ${parts.length - 1} more`
  const features = concatBlocks(
    parts.map((part) => part.features),
    name,
  )
  if (features.rows === 0) throw new Error(`${name}: embeddings are empty: ${show([0, features.columns])}`)
  const rowIndex = joinRows(parts)
  const prompts = parts.flatMap((part) => part.prompts ?? [])
  return {
    name,
    features,
    attributes,
    labels: joinFloats(parts.map((part) => labelsFor(part, attributes))),
    ...(rowIndex && { rowIndex }),
    ...(parts[0].weights && { weights: joinFloats(parts.map((part) => part.weights!)) }),
    prompts: prompts.length > 0 ? concatBlocks(prompts, name) : null,
    fingerprint: parts.map((part) => part.opened.metadata.fingerprint).find((text) => text !== undefined) ?? null,
    metadata: opened.metadata,
  }
}

const FLOATS = ['F32', 'BF16', 'F16', 'F64'] as const

async function openPart(source: Source, options: RatingOptions): Promise<Part> {
  const file = source.name
  const opened = await openSafetensors(source)
  const embeddings = find(opened, file, 'embeddings')
  const labels = find(opened, file, 'labels')
  const [rows, columns] = embeddings.shape
  if (columns === 0) throw new Error(`${file}: embeddings are empty: ${show(embeddings.shape)}`)
  const stored = opened.tensors.get('label_rows')
  const rowIndex = stored ? await readRowNumbers(tensorArray(stored, ['U32', 'I64', 'I32', 'U64']), rows) : null
  const count = rowIndex?.length ?? rows
  if (labels.shape[0] !== count || labels.shape[1] === 0) {
    const why = rowIndex ? `label_rows has ${count} entries` : `embeddings has ${rows} rows`
    throw new Error(`${file}: labels must be [${count}, M], as ${why}, got ${show(labels.shape)}`)
  }
  const prompt = opened.tensors.get('prompt_embeddings')
  if (prompt && show(prompt.shape) !== show(embeddings.shape)) {
    throw new Error(
      `${file}: prompt_embeddings must be ${show(embeddings.shape)}, as embeddings are, got ${show(prompt.shape)}`,
    )
  }
  const weighing = opened.tensors.get('label_weights')
  const attributes = readAttributes(opened.metadata.attributes, labels.shape[1], file, options)
  const values = await readFloats(tensorArray(labels, FLOATS), 0, count * attributes.length)
  checkFinite(values, attributes, file)
  return {
    source,
    opened,
    rows,
    columns,
    features: arrayBlocks(tensorArray(embeddings, FLOATS)),
    prompts: prompt ? arrayBlocks(tensorArray(prompt, FLOATS)) : null,
    attributes,
    labels: values,
    rowIndex,
    weights: weighing ? await readWeights(tensorArray(weighing, FLOATS), count) : null,
  }
}

function find({ tensors }: Safetensors, file: string, name: string): TensorInfo {
  const info = tensors.get(name)
  if (info === undefined) {
    throw new Error(`${file}: has no tensor "${name}"; make the file with "pinball features --labels ..."`)
  }
  if (info.shape.length === 3 && info.shape[1] === 2) {
    throw new Error(
      `${file}: ${name} must have two dimensions, got ${show(info.shape)}: it holds pairs, which are for "pinball gate"`,
    )
  }
  if (info.shape.length !== 2) throw new Error(`${file}: ${name} must have two dimensions, got ${show(info.shape)}`)
  return info
}

/** The names in the metadata, else those given, else numbers. */
function readAttributes(
  text: string | undefined,
  count: number,
  file: string,
  { attributes }: RatingOptions,
): string[] {
  if (text === undefined) {
    if (attributes === undefined) return attributeNames(count)
    if (attributes.length === count) return [...attributes]
    throw new Error(`${file}: labels have ${count} columns, --attributes gives ${attributes.length} names`)
  }
  const names = parseJson(text, `${file}: attributes in the metadata`)
  if (!Array.isArray(names) || !names.every(isName) || names.length !== count) {
    throw new Error(`${file}: attributes in the metadata must be a list of ${count} names, got ${show(names)}`)
  }
  return names
}

/** Throws unless labels [L, M] are finite or missing. */
export function checkFinite(labels: Float32Array, attributes: readonly string[], file: string): void {
  // The difference of infinities, and that of NaN, is NaN: what is left to look at are missing labels.
  const bad = labels.findIndex((label) => label - label !== 0 && !Number.isNaN(label))
  if (bad < 0) return
  const [row, m] = [Math.floor(bad / attributes.length), bad % attributes.length]
  throw new Error(`${file}: labels of ${show(attributes[m])} must be finite, row ${row} has ${labels[bad]}`)
}

/** Reads the weights [L] of labels. Throws where one is negative or not finite. */
export async function readWeights(array: StoredArray, count: number): Promise<Float32Array> {
  if (array.shape.length !== 1 || array.shape[0] !== count) {
    throw new Error(`${array.name} must be [${count}], one weight a label, got ${show(array.shape)}`)
  }
  const weights = await readFloats(array, 0, count)
  const bad = weights.findIndex((weight) => !(weight >= 0 && weight < Infinity))
  if (bad >= 0) throw new Error(`${array.name} must be finite and at least 0, entry ${bad} is ${weights[bad]}`)
  return weights
}

function checkTogether(parts: readonly Part[]): void {
  const [one] = parts
  for (const other of parts) {
    const [a, b] = [one.source.name, other.source.name]
    if (other.columns !== one.columns) {
      throw new Error(`${b}: features must be of ${one.columns} columns, as those of ${a} are, got ${other.columns}`)
    }
    // Numbers in the place of names say nothing of what they are.
    const named = [one, other].every(({ opened }) => opened.metadata.attributes !== undefined)
    if (!named && JSON.stringify(other.attributes) !== JSON.stringify(one.attributes)) {
      throw new Error(
        `${b}: attributes must be ${show(one.attributes)}, as those of ${a} are, got ${show(other.attributes)}; files that name theirs may differ`,
      )
    }
    checkAlike(one, other, ['label_weights', 'prompt_embeddings'])
  }
}

/** Feature rows of all labels, counted through the files; null where each label has the row of its number. */
function joinRows(parts: readonly Part[]): Uint32Array | null {
  if (parts.every((part) => part.rowIndex === null)) return null
  const all = new Uint32Array(parts.reduce((sum, { rowIndex, rows }) => sum + (rowIndex?.length ?? rows), 0))
  let [at, first] = [0, 0]
  for (const { rowIndex, rows } of parts) {
    for (let i = 0; i < (rowIndex?.length ?? rows); i++) all[at++] = first + (rowIndex ? rowIndex[i] : i)
    first += rows
  }
  return all
}

/** Labels [L, M] of a file with the columns of all attributes, NaN where it has none. */
function labelsFor({ attributes: own, labels }: Part, attributes: readonly string[]): Float32Array {
  if (own.length === attributes.length && own.every((name, m) => name === attributes[m])) return labels
  const count = labels.length / own.length
  const all = new Float32Array(count * attributes.length).fill(Number.NaN)
  for (const [m, name] of own.entries()) {
    const at = attributes.indexOf(name)
    for (let i = 0; i < count; i++) all[i * attributes.length + at] = labels[i * own.length + m]
  }
  return all
}

function joinFloats(arrays: readonly Float32Array[]): Float32Array {
  if (arrays.length === 1) return arrays[0]
  const all = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0))
  let at = 0
  for (const array of arrays) {
    all.set(array, at)
    at += array.length
  }
  return all
}
