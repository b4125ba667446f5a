// Writes a checkpoint: config.json, pinball.json, calibration, and the heads together with a backbone's tensors, in shards.
import { encodeSafetensors, readTensor, type TensorData, type TensorInfo } from '../files/safetensors.ts'
import type { Checkpoint } from './checkpoint.ts'
import { CALIBRATION_FILE, encodeCalibration } from './conformal.ts'
import { encodeFitted, FITTED_FILE } from './fitted.ts'
import { headShapes, layerNames } from './layouts.ts'
import { MANIFEST_FILE, manifestJson } from './manifest.ts'

/** The heads as tensors to be written, all F32; batch norms with counters, which loaders of the original layout expect. */
export function headTensors({ layout, regression, transform, gate, manifest }: Checkpoint): TensorData[] {
  const objectives = manifest.attributes.length
  const quantiles = manifest.levels.length
  const hidden = regression.weight.length / (objectives * quantiles)
  const depth = gate?.hidden.length ?? 0
  const width = gate?.hidden[0] ? gate.hidden[0].weight.length / hidden : 1
  const names = layerNames(layout, depth)
  const values = new Map<string, Float32Array | null>([
    ['score.weight', regression.weight],
    ['regression_layer.weight', regression.weight],
    ['regression_layer.bias', regression.bias],
    ['reward_transform_matrix', transform],
  ])
  const tensors: TensorData[] = []
  if (gate) {
    values.set('gating.logit_scale', Float32Array.of(gate.logitScale))
    values.set(`${names[depth].linear}.weight`, gate.weight)
    values.set(`${names[depth].linear}.bias`, gate.bias)
    for (const [i, { weight, bias, norm }] of gate.hidden.entries()) {
      values.set(`${names[i].linear}.weight`, weight)
      values.set(`${names[i].linear}.bias`, bias)
      if (norm === null) continue
      const at = names[i].norm
      values.set(`${at}.weight`, norm.weight)
      values.set(`${at}.bias`, norm.bias)
      values.set(`${at}.running_mean`, norm.mean)
      values.set(`${at}.running_var`, norm.variance)
      tensors.push({ name: `${at}.num_batches_tracked`, dtype: 'I64', shape: [], data: BigInt64Array.of(0n) })
    }
  }
  for (const [name, shape] of headShapes(
    layout,
    { objectives, quantiles, gateWidth: width, gateDepth: depth },
    hidden,
  )) {
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
 * Encodes a model directory file by file: config.json, pinball.json, calibration, what the heads were fitted to, then the heads together with the tensors of
 * `backbone` (from `openModelTensors`; see `backboneTensors`), whose bytes pass through unchanged. Tensors go to
 * model.safetensors, or, above `shardBytes`, to shards of about that size, of which one at a time is in memory, and an index.
 */
export async function* encodeCheckpoint(
  checkpoint: Checkpoint,
  backbone: ReadonlyMap<string, TensorInfo> = new Map(),
  shardBytes = SHARD_BYTES,
): AsyncGenerator<CheckpointFile> {
  const heads = headTensors(checkpoint)
  const infos = backboneTensors(backbone).kept
  yield { file: 'config.json', chunks: [jsonBytes(configJson(checkpoint))] }
  yield { file: MANIFEST_FILE, chunks: [jsonBytes(manifestJson(checkpoint.manifest))] }
  if (checkpoint.calibration) yield { file: CALIBRATION_FILE, chunks: encodeCalibration(checkpoint.calibration) }
  if (checkpoint.fitted)
    yield { file: FITTED_FILE, chunks: await encodeFitted(checkpoint.fitted, checkpoint.regression) }
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

// Heads, which others take the place of, and the output layer of a language model.
const HEAD_TENSOR = /^(score|lm_head|v_head|value_head|regression_layer|gating)\.|^reward_transform_matrix$/

/**
 * The tensors of a backbone under the names that they have in a reward model, "model." in front, and the names of those that are neither
 * its nor a head's. In a checkpoint of the bare backbone (AutoModel) nothing has "model." in front.
 */
export function backboneTensors(tensors: ReadonlyMap<string, TensorInfo>): {
  readonly kept: readonly TensorInfo[]
  readonly leftOut: readonly string[]
} {
  const bare = tensors.has('embed_tokens.weight')
  const kept: TensorInfo[] = []
  const leftOut: string[] = []
  for (const info of tensors.values()) {
    if (info.name.startsWith('model.')) kept.push(info)
    else if (bare && !HEAD_TENSOR.test(info.name)) kept.push({ ...info, name: `model.${info.name}` })
    else if (!HEAD_TENSOR.test(info.name)) leftOut.push(info.name)
  }
  return { kept, leftOut }
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

/** What config.json says about heads: of a backbone that had others nothing of it may stay. */
const HEAD_KEYS = ['num_objectives', 'num_quantiles', 'gating_temperature', 'gating_n_hidden', 'gating_hidden_dim']

function configJson(checkpoint: Checkpoint): Record<string, unknown> {
  const own = headConfig(checkpoint)
  const all = Object.entries({ ...checkpoint.config, ...own })
  // A gate without hidden layers has no width to say, and keeps what its configuration had.
  if (checkpoint.gate) own.gating_hidden_dim ??= checkpoint.config.gating_hidden_dim
  return Object.fromEntries(all.filter(([key]) => key in own || !HEAD_KEYS.includes(key)))
}

function headConfig({ layout, manifest, gate, regression }: Checkpoint): Record<string, unknown> {
  const outputs = manifest.attributes.length * manifest.levels.length
  const hidden = { hidden_size: regression.weight.length / outputs }
  if (layout === 'classifier') return { ...hidden, architectures: ['LlamaForSequenceClassification'], num_labels: 1 }
  return {
    ...hidden,
    architectures: ['LlamaForRewardModelWithGating'],
    num_objectives: manifest.attributes.length,
    ...(layout === 'qrm' && { num_quantiles: manifest.levels.length }),
    ...(gate && { gating_temperature: gate.temperature, gating_n_hidden: gate.hidden.length }),
    ...(gate?.hidden[0] && { gating_hidden_dim: gate.hidden[0].weight.length / hidden.hidden_size }),
  }
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)
}
