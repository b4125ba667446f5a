// LoRA on a device: what an adapter adds to the linear maps of a block, forward and backward.
//
//   y += scaling * (dropout(x) A^T) B^T
//   dB += scaling * dy^T (dropout(x) A^T),  dA += (scaling * dy B)^T dropout(x),  dx += dropout(scaling * dy B A)
//
// B is kept transposed, [r, O]: then every product has its long side where threads divide it.
// Source: Hu et al. 2021, section 4.1; dropout where PEFT has it, before A.

import type { Calls } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { LlamaConfig } from './config.ts'
import { addLinearGradInput, linear, linearGradInput } from './linear.ts'
import type { Make } from './pass_tensors.ts'
import type { ProjectionName } from './weights.ts'

/** The two matrices of an adapted projection. */
export interface LoraMap {
  /** A [r, I] */
  readonly a: Tensor
  /** B transposed [r, O] */
  readonly b: Tensor
  readonly scaling: number
}

/** Absent: the projection is as the base has it. */
export type LoraLayer = Readonly<Partial<Record<ProjectionName, LoraMap>>>

/** Dropout on the branch: a share, and a key of each row that says which values go. */
export interface LoraDropout {
  /** From 0 to below 1. */
  readonly share: number
  /** [N] u32: a hash of the seed and of what the row is. */
  readonly keys: Tensor
}

/** Memory of one branch at a time. */
export interface LoraScratch {
  /** [N * r] of the largest rank */
  readonly low: Tensor
  /** The same, for the way back. */
  readonly dlow: Tensor | null
  /** [N * I] of the widest input, twice; only dropout needs them. */
  readonly wide: Tensor | null
  readonly dwide: Tensor | null
}

/** A branch as it is applied: its map, memory, dropout where it trains, and a number of its own among the branches. */
export interface LoraBranch {
  readonly map: LoraMap
  readonly scratch: LoraScratch
  readonly dropout: LoraDropout | null
  readonly stream: number
}

/** The branches of a layer. */
export type LoraBranches = Readonly<Partial<Record<ProjectionName, LoraBranch>>>

/**
 * Makes the branches of every layer over up to `rows` rows, with memory that they share; `backward`: a pass that goes back as well.
 */
export function makeBranches(
  layers: readonly LoraLayer[],
  { hidden, heads, headDim, intermediate }: LlamaConfig,
  rows: number,
  make: Make,
  { backward, dropout }: { readonly backward: boolean; readonly dropout: LoraDropout | null },
): readonly LoraBranches[] {
  const rank = Math.max(0, ...layers.flatMap((maps) => Object.values(maps).map(({ a }) => a.shape[0]!)))
  if (rank === 0) return layers.map(() => ({}))
  const width = Math.max(hidden, heads * headDim, intermediate)
  const scratch: LoraScratch = {
    low: make('LoRA', rows * rank),
    dlow: backward ? make('gradient of LoRA', rows * rank) : null,
    wide: dropout ? make('dropped out', rows * width) : null,
    dwide: dropout ? make('gradient of dropped out', rows * width) : null,
  }
  let stream = 0
  return layers.map((maps) =>
    Object.fromEntries(Object.entries(maps).map(([name, map]) => [name, { map, scratch, dropout, stream: stream++ }])),
  )
}

/** Adds the branch of x [N, I] to y [N, O]. */
export function addLora(device: Calls, branch: LoraBranch, x: Tensor, y: Tensor): void {
  addLinearGradInput(device, branchLow(device, branch, droppedInput(device, branch, x)), branch.map.b, y)
}

/**
 * Adds the gradients of the branch's matrices to `grads`, from dy [N, O] and the branch's input x [N, I], and that of x to dx
 * [N, I] unless that is null.
 */
export function addLoraGrad(
  device: Calls,
  branch: LoraBranch,
  grads: { readonly a: Tensor; readonly b: Tensor },
  x: Tensor,
  dy: Tensor,
  dx: Tensor | null,
): void {
  const { map, scratch, dropout, stream } = branch
  const [N, I] = x.shape as [number, number]
  const input = droppedInput(device, branch, x)
  const low = branchLow(device, branch, input)
  device.run('linear_grad_weight_add', { dy: low, x: dy, dweight: grads.b })
  const dlow = scratch.dlow!.view(low.shape)
  linear(device, dy, map.b, dlow)
  device.run('scale', { x: dlow.view([dlow.size]) }, { factor: map.scaling })
  device.run('linear_grad_weight_add', { dy: dlow, x: input, dweight: grads.a })
  if (!dx) return
  if (!dropout) {
    addLinearGradInput(device, dlow, map.a, dx)
    return
  }
  // The input that was dropped out is not needed any more.
  const [wide, dwide] = [scratch.wide!.view([N, I]), scratch.dwide!.view([N, I])]
  linearGradInput(device, dlow, map.a, wide)
  dropOut(device, dropout, stream, wide, dwide)
  device.run('add', { x: dx, y: dwide })
}

function droppedInput(device: Calls, { scratch, dropout, stream }: LoraBranch, x: Tensor): Tensor {
  if (!dropout) return x
  const wide = scratch.wide!.view(x.shape)
  dropOut(device, dropout, stream, x, wide)
  return wide
}

/** scaling * x A^T [N, r] */
function branchLow(device: Calls, { map, scratch }: LoraBranch, x: Tensor): Tensor {
  const low = scratch.low.view([x.shape[0]!, map.a.shape[0]!])
  linear(device, x, map.a, low)
  device.run('scale', { x: low.view([low.size]) }, { factor: map.scaling })
  return low
}

function dropOut(device: Calls, { share, keys }: LoraDropout, stream: number, x: Tensor, y: Tensor): void {
  device.run('dropout', { x, key: keys, y }, { stream, threshold: Math.floor(share * 2 ** 32), scale: 1 / (1 - share) })
}
