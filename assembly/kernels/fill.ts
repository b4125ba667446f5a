// Sets every element to one value.

import { storePart } from '../math'

export function fill(x: usize, N: u32, value: f32, start: u32, end: u32): void {
  const values = f32x4.splat(value)
  for (let i: usize = start; i < end; i += 4) storePart(x + i * 4, values, end - <u32>i)
}
