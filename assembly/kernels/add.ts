// Adds y to x: the residual stream.

import { loadPart, storePart } from '../math'

export function add(x: usize, y: usize, N: u32, D: u32, start: u32, end: u32): void {
  for (let i = start; i < end; i += 4) {
    const at = <usize>i * 4
    storePart(x + at, f32x4.add(loadPart(x + at, end - i), loadPart(y + at, end - i)), end - i)
  }
}
