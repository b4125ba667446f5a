// Loads the tensors of a Llama checkpoint: names and shapes checked against the configuration, values checked to be finite,
// read in pieces so that no tensor is held twice.
import type { Device } from '../device/device.ts'
import type { DType, Tensor, TensorData } from '../device/tensor.ts'
import { readTensorF32, type TensorInfo } from '../files/safetensors.ts'
import type { LlamaConfig } from './config.ts'

/** The linear maps of a layer, [O, D] each, in the storage type of the file. */
export type ProjectionName = 'q_proj' | 'k_proj' | 'v_proj' | 'o_proj' | 'gate_proj' | 'up_proj' | 'down_proj'

export type LayerWeights = Record<ProjectionName | 'input_layernorm' | 'post_attention_layernorm', Tensor>

const STORAGE: Readonly<Record<string, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' }
/** Bytes read from the file at a time: large enough for full disk speed, small beside any model. */
const PIECE_BYTES = 2 ** 21

/** Where each tensor of the backbone is in the checkpoint. */
export interface LlamaTensors {
  readonly embedding: TensorInfo
  readonly norm: TensorInfo
  readonly layers: readonly Record<keyof LayerWeights, TensorInfo>[]
  /** Bytes of all layers as stored. */
  readonly layerBytes: number
}

/** Path of a module inside its layer. */
export const moduleOf = (name: keyof LayerWeights): string => {
  if (name.endsWith('layernorm')) return name
  return `${['gate_proj', 'up_proj', 'down_proj'].includes(name) ? 'mlp' : 'self_attn'}.${name}`
}

/** Shapes of the weights of one layer: [O, D] of linear maps, [D] of norms. */
export function shapesOf({ hidden: D, heads: H, kvHeads: G, headDim: C, intermediate: F }: LlamaConfig) {
  return {
    q_proj: [H * C, D],
    k_proj: [G * C, D],
    v_proj: [G * C, D],
    o_proj: [D, H * C],
    gate_proj: [F, D],
    up_proj: [F, D],
    down_proj: [D, F],
    input_layernorm: [D],
    post_attention_layernorm: [D],
  } satisfies Record<keyof LayerWeights, number[]>
}

/**
 * Finds every backbone tensor and checks names, shapes and types; throws with all missing or unexpected names (the first few)
 * or the first mismatch. Tensors outside the backbone (reward heads) are left to their reader.
 */
export function findTensors(
  tensors: ReadonlyMap<string, TensorInfo>,
  config: LlamaConfig,
  where: string,
): LlamaTensors {
  // Checkpoints of the bare backbone (AutoModel) have no "model." in front.
  const prefix = tensors.has('embed_tokens.weight') ? '' : 'model.'
  const missing: string[] = []
  const seen = new Set<string>()
  const find = (name: string, shape: readonly number[]): TensorInfo => {
    const full = `${prefix}${name}.weight`
    seen.add(full)
    const info = tensors.get(full)
    if (!info) {
      missing.push(full)
      return undefined as unknown as TensorInfo
    }
    if (info.shape.join() !== shape.join())
      throw new Error(
        `${info.source.name}: ${full} must be [${shape.join(', ')}] by config.json, found [${info.shape.join(', ')}]`,
      )
    if (!STORAGE[info.dtype])
      throw new Error(
        `${info.source.name}: ${full} must be F32, F16 or BF16, found ${info.dtype}; convert the checkpoint`,
      )
    return info
  }
  const embedding = find('embed_tokens', [config.vocab, config.hidden])
  const norm = find('norm', [config.hidden])
  const shapes = Object.entries(shapesOf(config)) as [keyof LayerWeights, number[]][]
  const layers = Array.from({ length: config.layers }, (_, layer) =>
    Object.fromEntries(shapes.map(([name, shape]) => [name, find(`layers.${layer}.${moduleOf(name)}`, shape)])),
  ) as Record<keyof LayerWeights, TensorInfo>[]
  if (missing.length > 0) throw new Error(`${where}: ${list(missing)} missing; is the download complete?`)
  const unexpected = [...tensors.keys()].filter(
    (name) => name.startsWith(prefix || 'layers.') && !seen.has(name) && !name.endsWith('rotary_emb.inv_freq'),
  )
  if (unexpected.length > 0)
    throw new Error(`${where}: ${list(unexpected)} not part of a Llama of ${config.layers} layers by config.json`)
  const layerBytes = layers.reduce(
    (sum, layer) => sum + Object.values(layer).reduce((bytes, info) => bytes + info.end - info.begin, 0),
    0,
  )
  return { embedding, norm, layers, layerBytes }
}

const list = (names: readonly string[]): string =>
  names.length > 3
    ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more tensors are`
    : `${names.join(', ')} ${names.length === 1 ? 'is' : 'are'}`

/** The storage type of a tensor that `findTensors` accepted. */
export const storageOf = (info: TensorInfo): DType => STORAGE[info.dtype]!

/** Views bytes of the file as the elements of a storage type. */
export const elements = (bytes: Uint8Array<ArrayBuffer>, dtype: DType): TensorData =>
  dtype === 'f32'
    ? new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
    : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)

/** Throws with the tensor's name and the element's index when a value is NaN or infinite. */
export function checkFinite(data: TensorData, dtype: DType, info: TensorInfo, first = 0): void {
  // An exponent of all ones is what NaN and the infinities have in common.
  const [words, exponent] =
    data instanceof Uint16Array
      ? [data, dtype === 'f16' ? 0x7c00 : 0x7f80]
      : [new Uint32Array(data.buffer, data.byteOffset, data.length), 0x7f800000]
  for (let i = 0; i < words.length; i++) {
    if ((words[i]! & exponent) === exponent)
      throw new Error(
        `${info.source.name}: ${info.name} holds a NaN or an infinity at element ${first + i}; the file is damaged or the training diverged`,
      )
  }
}

/**
 * Calls `take` with consecutive pieces of a tensor and the index of their first element; every value is checked. A piece is
 * overwritten by the next one.
 */
export async function readPieces(info: TensorInfo, take: (data: TensorData, first: number) => void): Promise<void> {
  const dtype = storageOf(info)
  const width = dtype === 'f32' ? 4 : 2
  const buffer = new Uint8Array(Math.min(PIECE_BYTES, info.end - info.begin))
  for (let at = info.begin; at < info.end; at += PIECE_BYTES) {
    const bytes = await info.source.read(at, Math.min(PIECE_BYTES, info.end - at), buffer)
    const data = elements(bytes, dtype)
    const first = (at - info.begin) / width
    checkFinite(data, dtype, info, first)
    take(data, first)
  }
}

/** Loads a linear map as it is stored. */
export async function loadLinear(device: Device, info: TensorInfo, into?: Tensor): Promise<Tensor> {
  const tensor = into ?? device.tensor(info.shape, { dtype: storageOf(info), label: info.name })
  await readPieces(info, (data, first) => tensor.write(data, first))
  return tensor
}

/** Loads a vector (a norm's weight) widened to f32. */
export async function loadVector(device: Device, info: TensorInfo): Promise<Tensor> {
  const data = await readTensorF32(info)
  checkFinite(data, 'f32', info)
  return device.tensor(info.shape, { label: info.name, data })
}

/** Loads one layer; linear maps go into `reuse`'s tensors where it is given and the storage types agree. */
export async function loadLayer(
  device: Device,
  infos: Record<keyof LayerWeights, TensorInfo>,
  reuse?: LayerWeights,
): Promise<LayerWeights> {
  const weights = {} as LayerWeights
  for (const [name, info] of Object.entries(infos) as [keyof LayerWeights, TensorInfo][]) {
    const old = reuse?.[name]
    if (name.endsWith('layernorm')) {
      old?.destroy()
      weights[name] = await loadVector(device, info)
    } else if (old && old.dtype === storageOf(info)) weights[name] = await loadLinear(device, info, old)
    else {
      old?.destroy()
      weights[name] = await loadLinear(device, info)
    }
  }
  return weights
}
