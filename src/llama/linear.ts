// Which kernel computes a linear map: chosen by the storage of the weight, and on a CPU by the number of rows.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'

/**
 * Up to this many rows a CPU sums without packing the weights; the bits are the same, so the result of a row does not depend on the
 * rows beside it. The GPU's kernel for few rows sums in another order than its tiles: there tiles compute any number of rows.
 */
const VEC_ROWS = 2

const TILED = { f32: 'linear', f16: 'linear_f16', bf16: 'linear_bf16' } as const
const VEC = { f32: 'linear_vec', f16: 'linear_vec_f16', bf16: 'linear_vec_bf16' } as const

/** y[n, o] = sum over d of x[n, d] * weight[o, d]; x [N, D] and y [N, O] f32, weight [O, D] f32, f16 or bf16. */
export function linear(device: Device, x: Tensor, weight: Tensor, y: Tensor): void {
  const { dtype } = weight
  if (dtype === 'u32') throw new TypeError(`linear: ${weight.label} must be f32, f16 or bf16, got u32`)
  const few = device.kind === 'wasm' && x.shape[0]! <= VEC_ROWS
  device.run(few ? VEC[dtype] : TILED[dtype], { x, weight, y })
}
