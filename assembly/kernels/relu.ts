// Replaces negative values by zero.

import { loadPart, storePart } from '../math'

export function relu(x: usize, N: u32, D: u32, start: u32, end: u32): void {
  const zero = f32x4.splat(0)
  let i: usize = start
  for (; i + 4 <= end; i += 4) v128.store(x + i * 4, f32x4.max(v128.load(x + i * 4), zero))
  const rest = end - <u32>i
  if (rest) storePart(x + i * 4, f32x4.max(loadPart(x + i * 4, rest), zero), rest)
}
