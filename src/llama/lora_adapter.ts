// An adapter on a device: from the arrays of its file, and back.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { Adapter, LayerLora, LoraWeights } from './adapter_files.ts'
import type { LlamaConfig } from './config.ts'
import type { LoraLayer, LoraMap } from './lora.ts'
import { moduleOf, type ProjectionName, shapesOf } from './weights.ts'

/** An adapter whose matrices are on a device. */
export interface DeviceAdapter {
  readonly layers: readonly LoraLayer[]
  destroy(): void
}

/** The base as it is. */
export const NO_ADAPTER: DeviceAdapter = { layers: [], destroy() {} }

/** [rows, columns] to [columns, rows] */
export function transposed(values: Float32Array, rows: number): Float32Array<ArrayBuffer> {
  const columns = values.length / rows
  const turned = new Float32Array(values.length)
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c]!
  return turned
}

/** Puts an adapter on a device. */
export function loadAdapter(device: Device, { layers }: Pick<Adapter, 'layers'>, config: LlamaConfig): DeviceAdapter {
  const shapes = shapesOf(config)
  const owned: Tensor[] = []
  const destroy = (): void => {
    for (const tensor of owned.splice(0)) tensor.destroy()
  }
  const put = (label: string, shape: readonly number[], data: Float32Array): Tensor => {
    const tensor = device.tensor(shape, { label, data })
    owned.push(tensor)
    return tensor
  }
  try {
    const maps = layers.map((layer, l) =>
      Object.fromEntries(
        (Object.entries(layer) as [ProjectionName, LoraWeights][]).map(([name, { a, b, rank, scaling }]) => {
          const [O, I] = shapes[name]
          const at = `layers.${l}.${moduleOf(name)}`
          const map: LoraMap = {
            a: put(`${at}.lora_A`, [rank, I], a),
            b: put(`${at}.lora_B`, [rank, O], transposed(b, O)),
            scaling,
          }
          return [name, map]
        }),
      ),
    )
    return { layers: maps, destroy }
  } catch (error) {
    destroy()
    throw error
  }
}

/** Reads the matrices back, in the form of an adapter's file. */
export async function readLayers(layers: readonly LoraLayer[]): Promise<LayerLora[]> {
  const result: LayerLora[] = []
  for (const layer of layers) {
    const own: Partial<Record<ProjectionName, LoraWeights>> = {}
    for (const [name, { a, b, scaling }] of Object.entries(layer) as [ProjectionName, LoraMap][]) {
      const rank = a.shape[0]!
      own[name] = { rank, scaling, a: await a.readF32(), b: transposed(await b.readF32(), rank) }
    }
    result.push(own)
  }
  return result
}
