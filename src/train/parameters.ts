// What is trained: tensors with their gradients and both moments of AdamW, and what a model keeps beside them.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'

/** A trained tensor; `name` is that of the checkpoint. */
export interface Parameter {
  readonly name: string
  readonly value: Tensor
  readonly grad: Tensor
  readonly m: Tensor
  readonly v: Tensor
  /** Whether weight decay applies to it; to biases and norms of language models it does not. */
  readonly decay: boolean
}

/** A tensor that training changes by other means than gradients, such as a running mean. */
export interface Statistic {
  readonly name: string
  readonly value: Tensor
}

/** What a training changes: all of it is saved, and nothing else. */
export interface Trainable {
  readonly parameters: readonly Parameter[]
  readonly statistics: readonly Statistic[]
}

/** Makes a parameter of these values, with moments of zero. */
export function makeParameter(
  device: Device,
  name: string,
  shape: readonly number[],
  data: Float32Array,
  { decay = true }: { readonly decay?: boolean } = {},
): Parameter {
  const zeros = new Float32Array(data.length)
  return {
    name,
    value: device.tensor(shape, { label: name, data }),
    grad: device.tensor(shape, { label: `${name} gradient` }),
    m: device.tensor(shape, { label: `${name} first moment`, data: zeros }),
    v: device.tensor(shape, { label: `${name} second moment`, data: zeros }),
    decay,
  }
}

/** Frees the tensors of a parameter. */
export function destroyParameter({ value, grad, m, v }: Parameter): void {
  for (const tensor of [value, grad, m, v]) tensor.destroy()
}
