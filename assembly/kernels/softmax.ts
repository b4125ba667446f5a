// y = softmax(x / temperature) * scale over each row.

import { exp, loadPart, maxLanes, storePart, sumLanes } from '../math'

export function softmax(
  x: usize,
  y: usize,
  N: u32,
  D: u32,
  temperature: f32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  const t = f32x4.splat(temperature)
  for (let n: usize = start; n < end; n++) {
    const from = x + n * D * 4
    const to = y + n * D * 4
    let largest = f32x4.splat(-Infinity)
    for (let d: u32 = 0; d + 4 <= D; d += 4) largest = f32x4.max(largest, v128.load(from + d * 4))
    let top = maxLanes(largest)
    for (let d = D & ~3; d < D; d++) top = max(top, load<f32>(from + d * 4))
    let sums = f32x4.splat(0)
    for (let d: u32 = 0; d < D; d += 4) {
      const e = exp(f32x4.div(f32x4.sub(loadPart(from + d * 4, D - d), f32x4.splat(top)), t))
      storePart(to + d * 4, e, D - d)
      // Read back, because the unused lanes of a part are not zero in e.
      sums = f32x4.add(sums, loadPart(to + d * 4, D - d))
    }
    const factor = f32x4.splat(scale / sumLanes(sums))
    for (let d: u32 = 0; d < D; d += 4) {
      storePart(to + d * 4, f32x4.mul(loadPart(to + d * 4, D - d), factor), D - d)
    }
  }
}
