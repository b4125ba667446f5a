// Which kernel computes a linear map: chosen by the storage of the weight and the number of rows.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'

/** Up to this many rows the weights are read once for all rows; above, tiles of rows and outputs pay off. */
const VEC_ROWS = 8

const TILED = { f32: 'linear', f16: 'linear_f16', bf16: 'linear_bf16' } as const
const VEC = { f32: 'linear_vec', f16: 'linear_vec_f16', bf16: 'linear_vec_bf16' } as const

/** y[n, o] = sum over d of x[n, d] * weight[o, d]; x [N, D] and y [N, O] f32, weight [O, D] f32, f16 or bf16. */
export function linear(device: Device, x: Tensor, weight: Tensor, y: Tensor): void {
  const { dtype } = weight
  if (dtype === 'u32' || dtype === 'i8')
    throw new TypeError(`linear: ${weight.label} must be f32, f16 or bf16, got ${dtype}`)
  device.run(x.shape[0]! <= VEC_ROWS ? VEC[dtype] : TILED[dtype], { x, weight, y })
}
