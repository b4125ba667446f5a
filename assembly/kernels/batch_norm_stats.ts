// Mean and variance of every column, in two passes in the order of the rows.

import { loadPart, madd, storePart } from '../math'

export function batch_norm_stats(
  x: usize,
  mean: usize,
  variance: usize,
  N: u32,
  D: u32,
  start: u32,
  end: u32,
): void {
  const rows = f32x4.splat(<f32>N)
  for (let d: usize = start; d < end; d += 4) {
    const count = end - <u32>d
    let sum = f32x4.splat(0)
    for (let n: usize = 0; n < N; n++) sum = f32x4.add(sum, loadPart(x + (n * D + d) * 4, count))
    const m = f32x4.div(sum, rows)
    let squares = f32x4.splat(0)
    for (let n: usize = 0; n < N; n++) {
      const off = f32x4.sub(loadPart(x + (n * D + d) * 4, count), m)
      squares = madd(squares, off, off)
    }
    storePart(mean + d * 4, m, count)
    storePart(variance + d * 4, f32x4.div(squares, rows), count)
  }
}
