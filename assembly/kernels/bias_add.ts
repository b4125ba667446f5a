// Adds a bias to every row.

import { loadPart, storePart } from '../math'

export function bias_add(x: usize, bias: usize, N: u32, O: u32, start: u32, end: u32): void {
  for (let n: usize = start; n < end; n++) {
    const row = x + n * O * 4
    for (let o: u32 = 0; o < O; o += 4) {
      const at = <usize>o * 4
      storePart(row + at, f32x4.add(loadPart(row + at, O - o), loadPart(bias + at, O - o)), O - o)
    }
  }
}
