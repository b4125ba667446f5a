// Moves running statistics towards those of a batch.

import { loadPart, storePart } from '../math'

export function batch_norm_update(
  mean: usize,
  variance: usize,
  running_mean: usize,
  running_variance: usize,
  D: u32,
  momentum: f32,
  rows: u32,
  start: u32,
  end: u32,
): void {
  const keep = f32x4.splat(1 - momentum)
  const take = f32x4.splat(momentum)
  const unbiased = f32x4.splat(momentum * (<f32>rows / <f32>(rows - 1)))
  for (let d: usize = start; d < end; d += 4) {
    const count = end - <u32>d
    const m = f32x4.add(
      f32x4.mul(keep, loadPart(running_mean + d * 4, count)),
      f32x4.mul(take, loadPart(mean + d * 4, count)),
    )
    const v = f32x4.add(
      f32x4.mul(keep, loadPart(running_variance + d * 4, count)),
      f32x4.mul(unbiased, loadPart(variance + d * 4, count)),
    )
    storePart(running_mean + d * 4, m, count)
    storePart(running_variance + d * 4, v, count)
  }
}
