// Heads in a file of their own, as `pinball fit`, `pinball ridge` and `pinball debias` write them.
//
//   regression_layer.weight  [M K, D]  row = attribute * K + level; K = 1 for point estimates (metadata point: true)
//   regression_layer.bias    [M K]     optional
//   reward_transform_matrix  [M, M]    optional, rows = from
//   fitted_rows              [N] I64   optional, keys of the rows that they were fitted to (fitted.ts)
import { BlockHash, hex, sampleHash } from '../files/hash.ts'
import { parseJson, show } from '../files/json.ts'
import {
  encodeSafetensors,
  openSafetensors,
  readTensorF32,
  type Safetensors,
  type TensorData,
} from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import { checkLevels } from './distribution.ts'
import { FITTED_TENSOR, type Fitted, fittedOf, fittedParts } from './fitted.ts'
import { isName } from './manifest.ts'

export interface HeadsFile {
  /** What errors call it. */
  readonly name: string
  /** [M] */
  readonly attributes: readonly string[]
  /** [K]; null for point estimates, where K is 1. */
  readonly levels: readonly number[] | null
  /** D */
  readonly columns: number
  /** [M K, D] */
  readonly weight: Float32Array
  /** [M K] */
  readonly bias: Float32Array | null
  /** [M, M], rows = from; null: identity. */
  readonly transform: Float32Array | null
  /** Of the model whose features the heads were fitted to; null where the file does not say. */
  readonly fingerprint: string | null
  /** The rows that they were fitted to, where that is known. */
  readonly fitted?: Fitted | null
  /** SHA-256 of the file, of a large one of a sample; undefined for heads that were not read from one. */
  readonly fileHash?: string
  /** What else the file says about them, as it stands; absent where they come from no file. */
  readonly metadata?: Readonly<Record<string, string>>
}

const TENSORS = ['regression_layer.weight', 'regression_layer.bias', 'reward_transform_matrix', FITTED_TENSOR]

/** Reads a file of heads. Throws on missing, unexpected and mis-shaped tensors, NaN and infinity, and metadata that do not fit. */
export async function readHeadsFile(source: Source): Promise<HeadsFile> {
  const { name } = source
  const opened = await openSafetensors(source)
  for (const tensor of opened.tensors.keys()) {
    if (!TENSORS.includes(tensor))
      throw new Error(`${name}: unexpected tensor ${show(tensor)}; heads have ${TENSORS.join(', ')}`)
  }
  const attributes = readAttributes(opened, name)
  const levels = readLevels(opened, name)
  const outputs = attributes.length * (levels?.length ?? 1)
  const shape = opened.tensors.get('regression_layer.weight')?.shape
  if (shape === undefined) {
    throw new Error(
      `${name}: has no tensor "regression_layer.weight"; make heads with "pinball fit" or "pinball ridge"`,
    )
  }
  if (shape.length !== 2 || shape[0] !== outputs || shape[1] === 0) {
    throw new Error(
      `${name}: regression_layer.weight must be [${outputs}, D] for ${attributes.length} attributes at ${levels?.length ?? 1} levels, got ${show(shape)}`,
    )
  }
  return {
    name,
    attributes,
    levels,
    columns: shape[1],
    weight: (await readFinite(opened, name, 'regression_layer.weight', shape))!,
    bias: await readFinite(opened, name, 'regression_layer.bias', [outputs]),
    transform: await readFinite(opened, name, 'reward_transform_matrix', [attributes.length, attributes.length]),
    fingerprint: opened.metadata.fingerprint ?? null,
    fitted: await fittedOf(opened, name),
    fileHash: await sampleHash(source),
    metadata: opened.metadata,
  }
}

/** Heads as arrays: the part of a `HeadsFile` that becomes tensors. */
export type HeadsToWrite = Pick<HeadsFile, 'columns' | 'weight'> &
  Partial<Pick<HeadsFile, 'bias' | 'transform' | 'fitted' | 'metadata'>>

/**
 * Encodes a file of heads, F32. `metadata`, by default that of the heads, is written in its order, texts as they are and all else as JSON;
 * what is undefined is left out. `readHeadsFile` needs "attributes" [M] in it, and "levels" [K] or `point: 'true'`. Throws where sizes
 * do not fit, and where neither heads nor caller give metadata.
 */
export function encodeHeads(
  { columns, weight, bias, transform, fitted, metadata: own }: HeadsToWrite,
  metadata: Readonly<Record<string, unknown>> | undefined = own,
): Uint8Array[] {
  if (metadata === undefined)
    throw new Error('heads: metadata with the attributes are needed to write a file, got none')
  const outputs = weight.length / columns
  const f32 = (name: string, shape: number[], data: Float32Array): TensorData => ({ name, dtype: 'F32', shape, data })
  const tensors = [f32('regression_layer.weight', [outputs, columns], weight)]
  if (bias) tensors.push(f32('regression_layer.bias', [outputs], bias))
  if (transform) {
    const count = Math.sqrt(transform.length)
    tensors.push(f32('reward_transform_matrix', [count, count], transform))
  }
  const texts: Record<string, string> = {}
  for (const [key, value] of Object.entries(metadata)) {
    if (value !== undefined) texts[key] = typeof value === 'string' ? value : JSON.stringify(value)
  }
  if (fitted) {
    const parts = fittedParts(fitted)
    tensors.push(parts.tensor)
    Object.assign(texts, parts.metadata)
  }
  return encodeSafetensors(tensors, texts)
}

function readAttributes({ metadata }: Safetensors, file: string): string[] {
  const names = parseJson(metadata.attributes ?? 'null', `${file}: attributes in the metadata`)
  if (!Array.isArray(names) || names.length === 0 || !names.every(isName) || new Set(names).size < names.length) {
    throw new Error(`${file}: attributes in the metadata must be a list of different names, got ${show(names)}`)
  }
  return names
}

function readLevels({ metadata }: Safetensors, file: string): number[] | null {
  if (metadata.point === 'true') return null
  const levels = parseJson(metadata.levels ?? 'null', `${file}: levels in the metadata`)
  if (!Array.isArray(levels) || !levels.every((level) => typeof level === 'number')) {
    throw new Error(`${file}: levels in the metadata must be a list of numbers, got ${show(levels)}`)
  }
  checkLevels(levels, `${file}: levels in the metadata`)
  return levels
}

async function readFinite(
  { tensors }: Safetensors,
  file: string,
  name: string,
  shape: readonly number[],
): Promise<Float32Array | null> {
  const info = tensors.get(name)
  if (info === undefined) return null
  if (show(info.shape) !== show(shape))
    throw new Error(`${file}: ${name} must be ${show(shape)}, got ${show(info.shape)}`)
  const values = await readTensorF32(info)
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new Error(`${file}: ${name} must be finite, got ${values[bad]} at element ${bad}`)
  return values
}

/** What identifies heads to work that goes on: the hash of their file, or of what they hold. */
export async function headsHash(heads: HeadsFile): Promise<string> {
  if (heads.fileHash !== undefined) return heads.fileHash
  const { attributes, levels, columns, weight, bias, transform } = heads
  const about = { attributes, levels, columns, bias: bias !== null, transform: transform !== null }
  const hash = new BlockHash()
  await hash.update(new TextEncoder().encode(JSON.stringify(about)))
  for (const values of [weight, bias, transform]) {
    if (values) await hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  }
  return hex(await hash.result())
}

/**
 * The debiased expectation as one linear map: weight [M, D] and bias [M]. The mean over levels and the transform are linear, so
 * they are applied to the weights, in f64, once instead of to every row.
 */
export function expectationMap(heads: HeadsFile): { weight: Float32Array; bias: Float64Array } {
  const { attributes, levels, columns, transform } = heads
  const [count, depth] = [attributes.length, levels?.length ?? 1]
  const mean = new Float64Array(count * columns)
  const constant = new Float64Array(count)
  for (let j = 0; j < count; j++) {
    for (let k = 0; k < depth; k++) {
      const row = (j * depth + k) * columns
      for (let d = 0; d < columns; d++) mean[j * columns + d] += heads.weight[row + d] / depth
      constant[j] += (heads.bias?.[j * depth + k] ?? 0) / depth
    }
  }
  if (transform === null) return { weight: Float32Array.from(mean), bias: constant }
  const weight = new Float64Array(count * columns)
  const bias = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) {
      const share = transform[i * count + j]
      if (share === 0) continue
      for (let d = 0; d < columns; d++) weight[j * columns + d] += share * mean[i * columns + d]
      bias[j] += share * constant[i]
    }
  }
  return { weight: Float32Array.from(weight), bias }
}
