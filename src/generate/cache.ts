// The cache of keys and values: one tensor a layer, and how many tokens fit.
import type { Device } from '../device/device.ts'
import { BYTES, type Tensor } from '../device/tensor.ts'
import type { LlamaConfig } from '../llama/config.ts'

/** How keys and values are stored. f16 takes half the memory and rounds them to 11 bits. */
export type CacheStorage = 'f32' | 'f16'

/** Bytes of all layers for one token. */
export function tokenBytes({ layers, kvHeads, headDim }: LlamaConfig, storage: CacheStorage): number {
  return layers * 2 * kvHeads * headDim * BYTES[storage]
}

/** Makes the tensors [rows, 2 G C] of a cache. Throws, saying what it takes, where the device does not have the memory. */
export function makeCache(device: Device, config: LlamaConfig, rows: number, storage: CacheStorage): Tensor[] {
  const tensors: Tensor[] = []
  try {
    for (let layer = 0; layer < config.layers; layer++) {
      const shape = [rows, 2 * config.kvHeads * config.headDim]
      tensors.push(device.tensor(shape, { dtype: storage, label: `cache of layer ${layer}` }))
    }
    return tensors
  } catch (error) {
    for (const tensor of tensors) tensor.destroy()
    const size = Math.ceil((rows * tokenBytes(config, storage)) / 2 ** 20)
    throw new RangeError(
      `decoder: a cache of ${rows} tokens takes ${size} MiB (${config.layers} layers, ${storage}); lower maxTokens, slots or the number of new tokens${storage === 'f32' ? ', or store it as f16' : ''}: ${(error as Error).message}`,
      { cause: error },
    )
  }
}

/** Tokens that one tensor of a layer can hold on this device. */
export function mostTokens(device: Device, { kvHeads, headDim }: LlamaConfig, storage: CacheStorage): number {
  return Math.floor(device.backend.maxTensorBytes / (2 * kvHeads * headDim * BYTES[storage]))
}
