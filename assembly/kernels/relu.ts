// Replaces negative values by zero.

import { loadPart, storePart } from '../math'

export function relu(x: usize, N: u32, D: u32, start: u32, end: u32): void {
  for (let i = start; i < end; i += 4) {
    const at = <usize>i * 4
    storePart(x + at, f32x4.max(loadPart(x + at, end - i), f32x4.splat(0)), end - i)
  }
}
