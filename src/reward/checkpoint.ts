// The QRM checkpoint: reads, checks and writes the heads of a model directory, as plain arrays.
//
// Source: the layout of LlamaForRewardModelWithGating (the published QRM models). Tensors besides the backbone's model.*:
//   regression_layer.weight [M K, D], row = attribute * K + level; regression_layer.bias [M K], optional
//   reward_transform_matrix [M, M], optional: identity
//   gating.layers.{0, 3, ..}.weight [H, D or H], no bias; gating.layers.{2, 5, ..}: the batch norm after its ReLU [H];
//   gating.layers.{3 n}.weight [M, H] and .bias [M]; gating.logit_scale [1]
// lm_head.weight is passed over (a reward model reads the state below it); any other tensor is an error, and so is one missing.
import { parseJsonObject, show } from '../files/json.ts'
import {
  closeTensors,
  encodeSafetensors,
  openModelTensors,
  readTensor,
  readTensorF32,
  type TensorData,
  type TensorInfo,
} from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { type LlamaConfig, parseLlamaConfig } from '../llama/config.ts'
import { evenLevels } from './distribution.ts'
import { attributeNames, MANIFEST_FILE, type Manifest, manifestJson, readManifest } from './manifest.ts'

/** One hidden layer of the gate: linear without bias, ReLU, batch norm with running statistics. */
export interface GateLayer {
  /** [H, D] in the first layer, [H, H] after it. */
  readonly weight: Float32Array
  readonly norm: {
    readonly weight: Float32Array
    readonly bias: Float32Array
    readonly mean: Float32Array
    readonly variance: Float32Array
  }
}

export interface GateWeights {
  readonly temperature: number
  readonly logitScale: number
  readonly hidden: readonly GateLayer[]
  /** [M, H] */
  readonly weight: Float32Array
  /** [M] */
  readonly bias: Float32Array
}

export interface Checkpoint {
  /** The object of config.json as it stands. */
  readonly config: Readonly<Record<string, unknown>>
  /** With the names [M] and levels [K] filled in. */
  readonly manifest: Manifest & { readonly attributes: readonly string[]; readonly levels: readonly number[] }
  readonly regression: {
    /** [M K, D] */
    readonly weight: Float32Array
    /** [M K] */
    readonly bias: Float32Array | null
  }
  /** [M, M], rows = from; null: identity. */
  readonly transform: Float32Array | null
  readonly gate: GateWeights
}

// Far above the published models (19 and 19, three layers of 1024).
const HEAD_LIMIT = 1024
const GATE_WIDTH_LIMIT = 65536
const GATE_DEPTH_LIMIT = 16

interface HeadSizes {
  readonly objectives: number
  readonly quantiles: number
  readonly temperature: number
  readonly gateWidth: number
  readonly gateDepth: number
}

/** Reads config.json of a model directory: the object, and the backbone's sizes. */
export async function readConfig(files: ModelFiles): Promise<{ json: Record<string, unknown>; llama: LlamaConfig }> {
  const where = `${files.name}/config.json`
  const text = await readText(files, 'config.json')
  if (text === null) throw new Error(`${where}: is missing; a model directory needs it`)
  const json = parseJsonObject(text, where)
  return { json, llama: parseLlamaConfig(json, where) }
}

/**
 * Reads configuration, manifest and heads of a model directory; the backbone's tensors are not read. Throws on missing,
 * unexpected and mis-shaped tensors, other dtypes than floats, NaN and infinity, and impossible counts.
 */
export async function readCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const { json, llama } = await readConfig(files)
  const sizes = readSizes(json, `${files.name}/config.json`)
  const manifest = await readManifest(files)
  const { objectives, quantiles } = sizes
  checkCount(manifest.attributes, objectives, 'attributes', 'num_objectives', files)
  checkCount(manifest.levels, quantiles, 'levels', 'num_quantiles', files)
  const tensors = await openModelTensors(files)
  try {
    return {
      config: json,
      manifest: {
        ...manifest,
        attributes: manifest.attributes ?? attributeNames(objectives),
        levels: manifest.levels ?? evenLevels(quantiles),
      },
      ...(await readHeads(tensors, sizes, llama.hidden, files.name)),
    }
  } finally {
    await closeTensors(tensors)
  }
}

function readSizes(json: Record<string, unknown>, where: string): HeadSizes {
  const count = (key: string, least: number, limit: number, fallback?: number): number => {
    const value = json[key] ?? fallback
    if (value === undefined) throw new Error(`${where}: ${key} is missing; scoring needs a QRM model directory`)
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > limit) {
      throw new Error(`${where}: ${key} must be a whole number from ${least} to ${limit}, got ${show(value)}`)
    }
    return value as number
  }
  const temperature = json.gating_temperature ?? 10
  if (typeof temperature !== 'number' || !(temperature > 0 && temperature < Infinity)) {
    throw new Error(`${where}: gating_temperature must be a number above 0, got ${show(temperature)}`)
  }
  return {
    objectives: count('num_objectives', 1, HEAD_LIMIT),
    quantiles: count('num_quantiles', 1, HEAD_LIMIT),
    temperature,
    gateWidth: count('gating_hidden_dim', 1, GATE_WIDTH_LIMIT, 1024),
    gateDepth: count('gating_n_hidden', 0, GATE_DEPTH_LIMIT, 3),
  }
}

function checkCount(list: readonly unknown[] | null, count: number, key: string, field: string, files: ModelFiles) {
  if (list === null || list.length === count) return
  throw new Error(
    `${files.name}/${MANIFEST_FILE}: ${key} must be as many as ${field} of config.json, ${count}, got ${list.length}`,
  )
}

async function readHeads(
  tensors: Map<string, TensorInfo>,
  { objectives, quantiles, temperature, gateWidth, gateDepth }: HeadSizes,
  hidden: number,
  name: string,
): Promise<Pick<Checkpoint, 'regression' | 'transform' | 'gate'>> {
  const shapes = headShapes(objectives, quantiles, hidden, gateWidth, gateDepth)
  checkNames(tensors, shapes, gateDepth, name)
  const read = (key: string) => readHead(tensors.get(key), shapes.get(key)!)
  const required = async (key: string) => (await read(key))!
  const layers: GateLayer[] = []
  for (let i = 0; i < gateDepth; i++) {
    const norm = `gating.layers.${3 * i + 2}`
    layers.push({
      weight: await required(`gating.layers.${3 * i}.weight`),
      norm: {
        weight: await required(`${norm}.weight`),
        bias: await required(`${norm}.bias`),
        mean: await required(`${norm}.running_mean`),
        variance: checkVariance(await required(`${norm}.running_var`), tensors.get(`${norm}.running_var`)!),
      },
    })
  }
  return {
    regression: {
      weight: await required('regression_layer.weight'),
      bias: await read('regression_layer.bias'),
    },
    transform: await read('reward_transform_matrix'),
    gate: {
      temperature,
      logitScale: (await required('gating.logit_scale'))[0],
      hidden: layers,
      weight: await required(`gating.layers.${3 * gateDepth}.weight`),
      bias: await required(`gating.layers.${3 * gateDepth}.bias`),
    },
  }
}

const OPTIONAL = ['regression_layer.bias', 'reward_transform_matrix']

/** Every head tensor that holds floats, by name, in the order in which they are written. */
function headShapes(objectives: number, quantiles: number, hidden: number, width: number, depth: number) {
  const shapes = new Map<string, number[]>()
  const outputs = objectives * quantiles
  shapes.set('regression_layer.weight', [outputs, hidden])
  shapes.set('regression_layer.bias', [outputs])
  shapes.set('reward_transform_matrix', [objectives, objectives])
  shapes.set('gating.logit_scale', [1])
  for (let i = 0; i < depth; i++) {
    shapes.set(`gating.layers.${3 * i}.weight`, [width, i === 0 ? hidden : width])
    for (const part of ['weight', 'bias', 'running_mean', 'running_var']) {
      shapes.set(`gating.layers.${3 * i + 2}.${part}`, [width])
    }
  }
  shapes.set(`gating.layers.${3 * depth}.weight`, [objectives, depth === 0 ? hidden : width])
  shapes.set(`gating.layers.${3 * depth}.bias`, [objectives])
  return shapes
}

function checkNames(tensors: Map<string, TensorInfo>, shapes: Map<string, number[]>, depth: number, name: string) {
  const missing = [...shapes.keys()].filter((key) => !tensors.has(key) && !OPTIONAL.includes(key))
  if (missing.length > 0)
    throw new Error(`${name}: missing head ${tensorList(missing)}; a QRM checkpoint has all of them`)
  const counters = Array.from({ length: depth }, (_, i) => `gating.layers.${3 * i + 2}.num_batches_tracked`)
  const passedOver = new Set(['lm_head.weight', ...counters])
  const unexpected = [...tensors.keys()].filter(
    (key) => !key.startsWith('model.') && !shapes.has(key) && !passedOver.has(key),
  )
  if (unexpected.length > 0)
    throw new Error(`${name}: unexpected ${tensorList(unexpected)}; no part of a QRM checkpoint`)
}

function tensorList(names: string[]): string {
  const shown = names.slice(0, 4).map((name) => show(name))
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : ''
  return `${names.length === 1 ? 'tensor' : 'tensors'} ${shown.join(', ')}${more}`
}

async function readHead(info: TensorInfo | undefined, shape: readonly number[]): Promise<Float32Array | null> {
  if (info === undefined) return null
  const where = `${info.source.name}: tensor ${show(info.name)}`
  if (info.shape.length !== shape.length || info.shape.some((length, i) => length !== shape[i])) {
    throw new Error(`${where} must be [${shape.join(', ')}], got [${info.shape.join(', ')}]`)
  }
  const values = await readTensorF32(info)
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new Error(`${where} must be finite, got ${values[bad]} at element ${bad}`)
  return values
}

function checkVariance(values: Float32Array, info: TensorInfo): Float32Array {
  const bad = values.findIndex((value) => value < 0)
  if (bad < 0) return values
  throw new Error(
    `${info.source.name}: tensor ${show(info.name)} must not be negative, got ${values[bad]} at element ${bad}`,
  )
}

/** The heads as tensors to be written, all F32; with batch counters, which loaders of the original layout expect. */
export function headTensors({ regression, transform, gate, manifest, config }: Checkpoint): TensorData[] {
  const objectives = manifest.attributes.length
  const width = gate.hidden.length > 0 ? gate.hidden[0].norm.weight.length : 1
  const depth = gate.hidden.length
  const hidden = parseLlamaConfig(config, 'config.json').hidden
  const values = new Map<string, Float32Array | null>([
    ['regression_layer.weight', regression.weight],
    ['regression_layer.bias', regression.bias],
    ['reward_transform_matrix', transform],
    ['gating.logit_scale', Float32Array.of(gate.logitScale)],
    [`gating.layers.${3 * depth}.weight`, gate.weight],
    [`gating.layers.${3 * depth}.bias`, gate.bias],
  ])
  const tensors: TensorData[] = []
  for (const [i, { weight, norm }] of gate.hidden.entries()) {
    const at = `gating.layers.${3 * i + 2}`
    values.set(`gating.layers.${3 * i}.weight`, weight)
    values.set(`${at}.weight`, norm.weight)
    values.set(`${at}.bias`, norm.bias)
    values.set(`${at}.running_mean`, norm.mean)
    values.set(`${at}.running_var`, norm.variance)
    tensors.push({ name: `${at}.num_batches_tracked`, dtype: 'I64', shape: [], data: BigInt64Array.of(0n) })
  }
  for (const [name, shape] of headShapes(objectives, manifest.levels.length, hidden, width, depth)) {
    const data = values.get(name)
    if (data) tensors.push({ name, dtype: 'F32', shape, data })
  }
  return tensors
}

/** A file of a model directory to be written: its name and its bytes in order. */
export interface CheckpointFile {
  readonly file: string
  readonly chunks: readonly Uint8Array[]
}

const SHARD_BYTES = 2 ** 30

/**
 * Encodes a QRM model directory file by file: config.json, pinball.json, then the heads together with the tensors of
 * `backbone` (from `openModelTensors`; those outside model.* are left out), whose bytes pass through unchanged. Tensors go to
 * model.safetensors, or, above `shardBytes`, to shards of about that size, of which one at a time is in memory, and an index.
 */
export async function* encodeCheckpoint(
  checkpoint: Checkpoint,
  backbone: ReadonlyMap<string, TensorInfo> = new Map(),
  shardBytes = SHARD_BYTES,
): AsyncGenerator<CheckpointFile> {
  const heads = headTensors(checkpoint)
  const infos = [...backbone.values()].filter((info) => info.name.startsWith('model.'))
  yield { file: 'config.json', chunks: [jsonBytes(configJson(checkpoint))] }
  yield { file: MANIFEST_FILE, chunks: [jsonBytes(manifestJson(checkpoint.manifest))] }
  const shards = splitShards(infos, shardBytes, heads)
  const weightMap: Record<string, string> = {}
  let total = 0
  for (const [i, shard] of shards.entries()) {
    const tensors: TensorData[] = []
    for (const tensor of shard) {
      const { name, dtype, shape } = tensor
      tensors.push({ name, dtype, shape, data: 'data' in tensor ? tensor.data : await readTensor(tensor) })
    }
    const number = (n: number) => String(n).padStart(5, '0')
    const file =
      shards.length === 1 ? 'model.safetensors' : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
    for (const { name, data } of tensors) {
      weightMap[name] = file
      total += data.byteLength
    }
    yield { file, chunks: encodeSafetensors(tensors, { format: 'pt' }) }
  }
  if (shards.length === 1) return
  const index = { metadata: { total_size: total }, weight_map: weightMap }
  yield { file: 'model.safetensors.index.json', chunks: [jsonBytes(index)] }
}

function splitShards(infos: readonly TensorInfo[], limit: number, heads: TensorData[]): (TensorInfo | TensorData)[][] {
  const shards: (TensorInfo | TensorData)[][] = [[]]
  let bytes = 0
  const add = (tensor: TensorInfo | TensorData, size: number) => {
    if (bytes > 0 && bytes + size > limit) {
      shards.push([])
      bytes = 0
    }
    shards[shards.length - 1].push(tensor)
    bytes += size
  }
  for (const info of infos) add(info, info.end - info.begin)
  for (const head of heads) add(head, head.data.byteLength)
  return shards
}

function configJson({ config, manifest, gate }: Checkpoint): Record<string, unknown> {
  return {
    ...config,
    architectures: ['LlamaForRewardModelWithGating'],
    num_objectives: manifest.attributes.length,
    num_quantiles: manifest.levels.length,
    gating_temperature: gate.temperature,
    ...(gate.hidden.length > 0 && { gating_hidden_dim: gate.hidden[0].norm.weight.length }),
    gating_n_hidden: gate.hidden.length,
  }
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)
}
