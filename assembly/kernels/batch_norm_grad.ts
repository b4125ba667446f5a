// Gradients of batch normalisation with the statistics of the batch, column by column, sums in the order of the rows.

import { loadPart, madd, storePart } from '../math'

export function batch_norm_grad(
  x: usize,
  mean: usize,
  variance: usize,
  weight: usize,
  dy: usize,
  dx: usize,
  dweight: usize,
  dbias: usize,
  N: u32,
  D: u32,
  eps: f32,
  start: u32,
  end: u32,
): void {
  const one = f32x4.splat(1)
  const rows = f32x4.splat(<f32>N)
  for (let d: usize = start; d < end; d += 4) {
    const count = end - <u32>d
    const m = loadPart(mean + d * 4, count)
    const rstd = f32x4.div(one, f32x4.sqrt(f32x4.add(loadPart(variance + d * 4, count), f32x4.splat(eps))))
    let sum = f32x4.splat(0)
    let product = sum
    for (let n: usize = 0; n < N; n++) {
      const at = (n * D + d) * 4
      const g = loadPart(dy + at, count)
      const h = f32x4.mul(f32x4.sub(loadPart(x + at, count), m), rstd)
      sum = f32x4.add(sum, g)
      product = madd(product, g, h)
    }
    storePart(dbias + d * 4, sum, count)
    storePart(dweight + d * 4, product, count)
    const factor = f32x4.mul(loadPart(weight + d * 4, count), rstd)
    const meanSum = f32x4.div(sum, rows)
    const meanProduct = f32x4.div(product, rows)
    for (let n: usize = 0; n < N; n++) {
      const at = (n * D + d) * 4
      const h = f32x4.mul(f32x4.sub(loadPart(x + at, count), m), rstd)
      const g = f32x4.sub(f32x4.sub(loadPart(dy + at, count), meanSum), f32x4.mul(h, meanProduct))
      storePart(dx + at, f32x4.mul(factor, g), count)
    }
  }
}
