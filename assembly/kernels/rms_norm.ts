// Scales every row to unit root mean square, then by a learned weight.

import { loadPart, madd, storePart, sumLanes } from '../math'

export function rms_norm(
  x: usize,
  weight: usize,
  y: usize,
  rstd: usize,
  N: u32,
  D: u32,
  eps: f32,
  start: u32,
  end: u32,
): void {
  for (let n: usize = start; n < end; n++) {
    const from = x + n * D * 4
    const to = y + n * D * 4
    let squares = f32x4.splat(0)
    for (let d: u32 = 0; d < D; d += 4) {
      const v = loadPart(from + d * 4, D - d)
      squares = madd(squares, v, v)
    }
    const r: f32 = 1 / sqrt<f32>(sumLanes(squares) / <f32>D + eps)
    store<f32>(rstd + n * 4, r)
    for (let d: u32 = 0; d < D; d += 4) {
      const v = f32x4.mul(loadPart(from + d * 4, D - d), f32x4.splat(r))
      storePart(to + d * 4, f32x4.mul(v, loadPart(weight + d * 4, D - d)), D - d)
    }
  }
}
