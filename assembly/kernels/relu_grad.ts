// Lets a gradient pass where the ReLU's output is above zero.

import { loadPart, storePart } from '../math'

export function relu_grad(y: usize, dy: usize, N: u32, D: u32, start: u32, end: u32): void {
  const zero = f32x4.splat(0)
  for (let i: usize = start; i < end; i += 4) {
    const count = end - <u32>i
    const passes = f32x4.gt(loadPart(y + i * 4, count), zero)
    storePart(dy + i * 4, v128.and(loadPart(dy + i * 4, count), passes), count)
  }
}
