// Adds a bias to every row.

import { loadPart, storePart } from '../math'

export function bias_add(x: usize, bias: usize, N: u32, O: u32, start: u32, end: u32): void {
  const whole = <usize>(O & ~3) * 4
  const rest = O & 3
  for (let n: usize = start; n < end; n++) {
    const row = x + n * O * 4
    for (let at: usize = 0; at < whole; at += 16) {
      v128.store(row + at, f32x4.add(v128.load(row + at), v128.load(bias + at)))
    }
    if (rest) storePart(row + whole, f32x4.add(loadPart(row + whole, rest), loadPart(bias + whole, rest)), rest)
  }
}
