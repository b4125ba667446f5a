// Which kernel computes a linear map or its gradient: chosen by the weight's storage, and on a CPU by the number of rows.
import type { Calls } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { type KernelName, type Storage, storedKernels } from '../generated/kernels.ts'

/**
 * Up to this many rows a CPU sums without packing the weights; the bits are the same, so the result of a row does not depend on the
 * rows beside it. The GPU's kernel for few rows sums in another order than its tiles: there tiles compute any number of rows.
 */
const VEC_ROWS = 2

/** A matrix of which one tensor does not say all: its values, and the scales of a quantised one. */
export interface StoredMatrix {
  readonly storage: Storage
  readonly values: Tensor
  readonly scales?: Tensor
}

/** A matrix [O, D] in any storage type that the kernels read; a tensor alone is stored as its dtype says. */
export type Weight = Tensor | StoredMatrix

/** y[n, o] = sum over d of x[n, d] * weight[o, d]; x [N, D] and y [N, O] f32. */
export function linear(device: Calls, x: Tensor, weight: Weight, y: Tensor): void {
  const few = device.kind === 'wasm' && x.shape[0]! <= VEC_ROWS
  run(device, few ? storedKernels.linear_vec : storedKernels.linear, weight, { x, y })
}

/**
 * As `linear`, for few rows, of which reading the weights is the cost. Its sums have an order of their own on a GPU, whatever the
 * number of rows: so that no result depends on its company, rows of one kind must all be computed by it, or none.
 */
export function linearOfFew(device: Calls, x: Tensor, weight: Weight, y: Tensor): void {
  if (device.kind === 'wasm') linear(device, x, weight, y)
  else run(device, storedKernels.linear_vec, weight, { x, y })
}

/** dx[n, d] = sum over o of dy[n, o] * weight[o, d]; dy [N, O] and dx [N, D] f32, dx is overwritten. */
export function linearGradInput(device: Calls, dy: Tensor, weight: Weight, dx: Tensor): void {
  run(device, storedKernels.linear_grad_input, weight, { dy, dx })
}

/** dx[n, d] += sum over o of dy[n, o] * weight[o, d]; dy [N, O] and dx [N, D] f32. */
export function addLinearGradInput(device: Calls, dy: Tensor, weight: Weight, dx: Tensor): void {
  run(device, storedKernels.linear_grad_input_add, weight, { dy, dx })
}

function run(
  device: Calls,
  names: Readonly<Record<string, KernelName>>,
  weight: Weight,
  others: Readonly<Record<string, Tensor>>,
): void {
  const { storage, values, scales } = 'values' in weight ? weight : { storage: weight.dtype, values: weight }
  const name = names[storage]
  if (!name)
    throw new TypeError(
      `linear: ${values.label} must be stored as ${Object.keys(names).join(', ')}, got ${storage}; a quantised matrix is { storage, values, scales }`,
    )
  const tensors = { ...others, weight: values, ...(scales && { weight_scale: scales }) }
  const call = device.run.bind(device) as (name: KernelName, tensors: Readonly<Record<string, Tensor>>) => void
  call(name, tensors)
}
