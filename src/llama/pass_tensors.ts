// The tensors of one pass, which are made one by one and freed together.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'

/** A tensor of f32 of the shape; its values are undefined. */
export type Make = (label: string, ...shape: number[]) => Tensor
/** A tensor of u32 of the shape that holds `data`. */
export type MakeIndex = (label: string, data: Uint32Array<ArrayBuffer>, ...shape: number[]) => Tensor

export interface PassTensors {
  readonly make: Make
  readonly index: MakeIndex
  /** A tensor of f32 [N] that holds the N values. */
  vector(label: string, values: Float32Array): Tensor
  /** Frees all that were made. */
  destroy(): void
}

export function passTensors(device: Device): PassTensors {
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  return {
    make: (label, ...shape) => own(device.tensor(shape, { label })),
    index: (label, data, ...shape) => own(device.tensor(shape, { label, dtype: 'u32', data })),
    vector: (label, data) => own(device.tensor([data.length], { label, data })),
    destroy() {
      for (const tensor of owned.splice(0)) tensor.destroy()
    },
  }
}
