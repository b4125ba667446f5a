// Adds y to x: the residual stream.

import { loadPart, storePart } from '../math'

export function add(x: usize, y: usize, N: u32, D: u32, start: u32, end: u32): void {
  let i: usize = start
  for (; i + 4 <= end; i += 4) {
    v128.store(x + i * 4, f32x4.add(v128.load(x + i * 4), v128.load(y + i * 4)))
  }
  const rest = end - <u32>i
  if (rest) storePart(x + i * 4, f32x4.add(loadPart(x + i * 4, rest), loadPart(y + i * 4, rest)), rest)
}
