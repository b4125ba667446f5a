// Rated features, in one safetensors file or several that are read as one.
//
//   embeddings     [N, D] F32, BF16 or F16
//   labels         [L, M]; NaN is a missing label; L = N where there are no label_rows
//   label_rows     [L] integers, optional: feature row of each label, for several ratings of one row
//   label_weights  [L], optional
//
// Attribute names are in the metadata. Source: what `pinball features` and the scripts of ArmoRM (stage-1_prepare.py) write.
import { parseJson, show } from '../files/json.ts'
import { openSafetensors, type Safetensors, type TensorInfo } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import {
  arrayBlocks,
  type FeatureBlocks,
  readFloats,
  readRowNumbers,
  type StoredArray,
  tensorArray,
} from '../files/table.ts'
import { attributeNames, isName } from './manifest.ts'

export interface Ratings {
  readonly features: FeatureBlocks
  /** [M] */
  readonly attributes: string[]
  /** [L, M]; NaN is a missing label. */
  readonly labels: Float32Array
  /** Feature row of each label [L]; absent where each row has one. */
  readonly rowIndex?: Uint32Array
  /** [L] */
  readonly weights?: Float32Array
  /** Of the first file. */
  readonly metadata: Record<string, string>
}

const FLOATS = ['F32', 'BF16', 'F16', 'F64'] as const

/**
 * Opens files of rated features as one, in the order given; the caller closes the sources. Throws on tensors that are missing or of
 * another shape or type, and on files whose columns, attributes or models differ.
 */
export async function openRatings(sources: readonly Source[]): Promise<Ratings> {
  const parts: Ratings[] = []
  for (const source of sources) parts.push(await openPart(source))
  if (parts.length === 0) throw new Error('features: at least one file is needed, got none')
  return parts.length === 1 ? parts[0] : join(parts)
}

async function openPart(source: Source): Promise<Ratings> {
  const file = source.name
  const opened = await openSafetensors(source)
  const embeddings = find(opened, file, 'embeddings')
  const labels = find(opened, file, 'labels')
  const [rows, columns] = embeddings.shape
  if (rows === 0 || columns === 0) throw new Error(`${file}: embeddings are empty: ${show(embeddings.shape)}`)
  const stored = opened.tensors.get('label_rows')
  const rowIndex = stored && (await readRowNumbers(tensorArray(stored, ['U32', 'I64', 'I32', 'U64']), rows))
  const count = rowIndex?.length ?? rows
  if (labels.shape[0] !== count || labels.shape[1] === 0) {
    const why = rowIndex ? `label_rows has ${count} entries` : `embeddings has ${rows} rows`
    throw new Error(`${file}: labels must be [${count}, M], as ${why}, got ${show(labels.shape)}`)
  }
  const weighing = opened.tensors.get('label_weights')
  const attributes = readAttributes(opened.metadata.attributes, labels.shape[1], file)
  return {
    features: arrayBlocks(tensorArray(embeddings, FLOATS)),
    attributes,
    labels: await readFloats(tensorArray(labels, FLOATS), 0, count * attributes.length),
    ...(rowIndex && { rowIndex }),
    ...(weighing && { weights: await readWeights(tensorArray(weighing, FLOATS), count) }),
    metadata: opened.metadata,
  }
}

function find({ tensors }: Safetensors, file: string, name: string): TensorInfo {
  const info = tensors.get(name)
  if (info === undefined) {
    throw new Error(`${file}: has no tensor "${name}"; make the file with "pinball features --labels ..."`)
  }
  if (info.shape.length !== 2) throw new Error(`${file}: ${name} must have two dimensions, got ${show(info.shape)}`)
  return info
}

function readAttributes(text: string | undefined, count: number, file: string): string[] {
  if (text === undefined) return attributeNames(count)
  const names = parseJson(text, `${file}: attributes in the metadata`)
  if (!Array.isArray(names) || !names.every(isName) || names.length !== count) {
    throw new Error(`${file}: attributes in the metadata must be a list of ${count} names, got ${show(names)}`)
  }
  return names
}

/** Reads weights [count]. Throws on others than finite numbers of at least 0. */
export async function readWeights(array: StoredArray, count: number): Promise<Float32Array> {
  if (array.shape.length !== 1 || array.shape[0] !== count) {
    throw new Error(`${array.name} must be [${count}], one weight a label, got ${show(array.shape)}`)
  }
  const weights = await readFloats(array, 0, count)
  const bad = weights.findIndex((weight) => !(weight >= 0 && weight < Infinity))
  if (bad >= 0) throw new Error(`${array.name} must be finite and at least 0, entry ${bad} is ${weights[bad]}`)
  return weights
}

function join(parts: readonly Ratings[]): Ratings {
  const [first] = parts
  for (const { features, attributes, metadata } of parts) {
    const differ = (what: string, found: unknown, wanted: unknown) => {
      if (show(found) === show(wanted)) return
      throw new Error(
        `${features.name}: ${what} must be ${show(wanted)}, as in ${first.features.name}, got ${show(found)}`,
      )
    }
    differ('the attributes', attributes, first.attributes)
    if (metadata.fingerprint !== undefined && first.metadata.fingerprint !== undefined)
      differ('the fingerprint of the model', metadata.fingerprint, first.metadata.fingerprint)
  }
  const features = joinBlocks(parts.map((part) => part.features))
  let start = 0
  const width = first.attributes.length
  const counts = parts.map(({ labels }) => labels.length / width)
  const total = counts.reduce((sum, count) => sum + count, 0)
  const labels = new Float32Array(total * width)
  const rowIndex = new Uint32Array(total)
  const weights = new Float32Array(total).fill(1)
  let at = 0
  for (const [p, part] of parts.entries()) {
    labels.set(part.labels, at * width)
    for (let i = 0; i < counts[p]; i++) rowIndex[at + i] = start + (part.rowIndex?.[i] ?? i)
    start += part.features.rows
    if (part.weights) weights.set(part.weights, at)
    at += counts[p]
  }
  return {
    features,
    attributes: first.attributes,
    labels,
    ...(parts.some((part) => part.rowIndex) && { rowIndex }),
    ...(parts.some((part) => part.weights) && { weights }),
    metadata: first.metadata,
  }
}

/** Features of several files as one matrix. Throws where columns or types differ. */
export function joinBlocks(parts: readonly FeatureBlocks[]): FeatureBlocks {
  const [first] = parts
  const { columns, dtype, name } = first
  const starts = [0]
  for (const part of parts) {
    if (part.columns !== columns || part.dtype !== dtype) {
      const [wanted, found] = [`${columns} columns of ${dtype}`, `${part.columns} of ${part.dtype}`]
      throw new Error(`${part.name}: embeddings must have ${wanted}, as those of ${name}, got ${found}`)
    }
    starts.push(starts[starts.length - 1] + part.rows)
  }
  if (parts.length === 1) return first
  return {
    name,
    rows: starts[parts.length],
    columns,
    dtype,
    async read(firstRow, count) {
      const out = dtype === 'bf16' ? new Uint16Array(count * columns) : new Float32Array(count * columns)
      for (const [p, part] of parts.entries()) {
        const from = Math.max(firstRow, starts[p])
        const to = Math.min(firstRow + count, starts[p + 1])
        if (from < to) out.set(await part.read(from - starts[p], to - from), (from - firstRow) * columns)
      }
      return out
    },
  }
}
