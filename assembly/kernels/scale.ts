// x = x * factor.

import { loadPart, storePart } from '../math'

export function scale(x: usize, N: u32, factor: f32, start: u32, end: u32): void {
  for (let i = start; i < end; i += 4) {
    const at = x + <usize>i * 4
    storePart(at, f32x4.mul(loadPart(at, end - i), f32x4.splat(factor)), end - i)
  }
}
