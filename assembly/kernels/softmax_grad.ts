// dx = y / temperature * (dy - sum of dy * y / scale) over each row, for y = softmax(x / temperature) * scale.

import { loadPart, madd, storePart, sumLanes } from '../math'

export function softmax_grad(
  y: usize,
  dy: usize,
  dx: usize,
  N: u32,
  D: u32,
  temperature: f32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  const t = f32x4.splat(temperature)
  for (let n: usize = start; n < end; n++) {
    const at = n * D * 4
    let sums = f32x4.splat(0)
    for (let d: u32 = 0; d < D; d += 4) {
      sums = madd(sums, loadPart(dy + at + d * 4, D - d), loadPart(y + at + d * 4, D - d))
    }
    const mean = f32x4.splat(sumLanes(sums) / scale)
    for (let d: u32 = 0; d < D; d += 4) {
      const p = f32x4.div(loadPart(y + at + d * 4, D - d), t)
      storePart(dx + at + d * 4, f32x4.mul(p, f32x4.sub(loadPart(dy + at + d * 4, D - d), mean)), D - d)
    }
  }
}
