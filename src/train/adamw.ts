// AdamW on the device: parameters with their gradients and both moments.
//
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   w = w (1 - lr decay) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//
// Source: Loshchilov and Hutter 2019; constants and order of operations as in torch.optim.AdamW, which decays all parameters alike.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'

const BETA1 = 0.9
const BETA2 = 0.999
const EPS = 1e-8

/** A trained tensor; `name` is that of the checkpoint. */
export interface Parameter {
  readonly name: string
  readonly value: Tensor
  readonly grad: Tensor
  readonly m: Tensor
  readonly v: Tensor
}

/** Makes a parameter of these values, with moments of zero. */
export function makeParameter(device: Device, name: string, shape: readonly number[], data: Float32Array): Parameter {
  const zeros = new Float32Array(data.length)
  return {
    name,
    value: device.tensor(shape, { label: name, data }),
    grad: device.tensor(shape, { label: `${name} gradient` }),
    m: device.tensor(shape, { label: `${name} first moment`, data: zeros }),
    v: device.tensor(shape, { label: `${name} second moment`, data: zeros }),
  }
}

/** Frees the tensors of a parameter. */
export function destroyParameter({ value, grad, m, v }: Parameter): void {
  for (const tensor of [value, grad, m, v]) tensor.destroy()
}

/** One update of every parameter by its gradient; `step` counts from 0. */
export function adamw(
  device: Device,
  parameters: readonly Parameter[],
  { lr, weightDecay, step }: { readonly lr: number; readonly weightDecay: number; readonly step: number },
): void {
  const scalars = {
    lr,
    beta1: BETA1,
    beta2: BETA2,
    rest1: 1 - BETA1,
    rest2: 1 - BETA2,
    eps: EPS,
    weight_decay: weightDecay,
    correction1: 1 - BETA1 ** (step + 1),
    correction2: 1 - BETA2 ** (step + 1),
  }
  for (const { value, grad, m, v } of parameters) {
    const size = [value.size]
    device.run('adamw', { param: value.view(size), m: m.view(size), v: v.view(size), grad: grad.view(size) }, scalars)
  }
}
