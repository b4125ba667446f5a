// Batch normalisation with stored statistics (inference).

import { loadPart, madd, storePart } from '../math'

export function batch_norm(
  x: usize,
  mean: usize,
  variance: usize,
  weight: usize,
  bias: usize,
  y: usize,
  N: u32,
  D: u32,
  eps: f32,
  start: u32,
  end: u32,
): void {
  for (let n: usize = start; n < end; n++) {
    const from = x + n * D * 4
    const to = y + n * D * 4
    for (let d: u32 = 0; d < D; d += 4) {
      const at = <usize>d * 4
      const left = D - d
      const deviation = f32x4.sqrt(f32x4.add(loadPart(variance + at, left), f32x4.splat(eps)))
      const v = f32x4.div(f32x4.sub(loadPart(from + at, left), loadPart(mean + at, left)), deviation)
      storePart(to + at, madd(loadPart(bias + at, left), v, loadPart(weight + at, left)), left)
    }
  }
}
