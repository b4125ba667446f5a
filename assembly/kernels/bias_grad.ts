// dbias[o] = sum over n of dy[n, o], in the order of the rows.

import { loadPart, storePart } from '../math'

export function bias_grad(dy: usize, dbias: usize, N: u32, O: u32, start: u32, end: u32): void {
  for (let o: usize = start; o < end; o += 4) {
    const count = end - <u32>o
    let sum = f32x4.splat(0)
    for (let n: usize = 0; n < N; n++) sum = f32x4.add(sum, loadPart(dy + (n * O + o) * 4, count))
    storePart(dbias + o * 4, sum, count)
  }
}
