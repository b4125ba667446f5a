// Heads applied to rows of features: quantile values or point predictions, block by block.
import type { Device } from '../device/device.ts'
import { widenBF16 } from '../files/safetensors.ts'
import type { FeatureBlocks } from '../files/table.ts'
import { linear } from '../llama/linear.ts'

const BLOCK = 512

export interface LinearHeads {
  /** [O, D] */
  readonly weight: Float32Array
  /** [O] */
  readonly bias: ArrayLike<number> | null
}

export interface PredictOptions {
  /** Called after each block of rows. */
  readonly onProgress?: (done: number, rows: number) => void
  readonly signal?: AbortSignal
}

/** x weight^T + bias for all rows of features [N, D]: [N, O]. One block of features is in memory. Throws on another width. */
export async function predictRows(
  device: Device,
  features: FeatureBlocks,
  { weight, bias }: LinearHeads,
  { onProgress, signal }: PredictOptions = {},
): Promise<Float32Array> {
  const { rows, columns, name } = features
  const outputs = weight.length / columns
  if (!Number.isSafeInteger(outputs)) {
    throw new Error(`${name}: must have as many columns as the heads are for, got ${columns}`)
  }
  const all = new Float32Array(rows * outputs)
  const count = Math.min(BLOCK, rows)
  const w = device.tensor([outputs, columns], { label: 'heads', data: weight })
  const x = device.tensor([count, columns], { label: 'features' })
  const y = device.tensor([count, outputs], { label: 'predictions' })
  try {
    for (let first = 0; first < rows; first += count) {
      signal?.throwIfAborted()
      const size = Math.min(count, rows - first)
      const [from, to] = [x.view([size, columns]), y.view([size, outputs])]
      from.write(toF32(await features.read(first, size)))
      linear(device, from, w, to)
      const values = await to.readF32()
      if (bias) for (let i = 0; i < values.length; i++) values[i] += bias[i % outputs]
      all.set(values, first * outputs)
      onProgress?.(first + size, rows)
    }
    return all
  } finally {
    for (const tensor of [w, x, y]) tensor.destroy()
  }
}

/** A block of features as f32. */
function toF32(block: Float32Array | Uint16Array): Float32Array {
  if (block instanceof Float32Array) return block
  const values = new Float32Array(block.length)
  widenBF16(block, values)
  return values
}
