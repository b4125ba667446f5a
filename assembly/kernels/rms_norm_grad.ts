// Adds the gradient through a norm whose weight is frozen to the gradient of the residual stream.

import { loadPart, madd, storePart, sumLanes } from '../math'

export function rms_norm_grad(
  x: usize,
  weight: usize,
  rstd: usize,
  dy: usize,
  dx: usize,
  N: u32,
  D: u32,
  start: u32,
  end: u32,
): void {
  for (let n: usize = start; n < end; n++) {
    const row = n * D * 4
    const r = v128.load_splat<f32>(rstd + n * 4)
    // x times rstd is at most sqrt(D) in size, so that no product overflows that the result does not.
    let sums = f32x4.splat(0)
    for (let d: u32 = 0; d < D; d += 4) {
      const at = row + d * 4
      const wdy = f32x4.mul(loadPart(weight + d * 4, D - d), loadPart(dy + at, D - d))
      sums = madd(sums, wdy, f32x4.mul(loadPart(x + at, D - d), r))
    }
    const mean = f32x4.splat(sumLanes(sums) / <f32>D)
    for (let d: u32 = 0; d < D; d += 4) {
      const at = row + d * 4
      const wdy = f32x4.mul(loadPart(weight + d * 4, D - d), loadPart(dy + at, D - d))
      const along = f32x4.mul(f32x4.mul(loadPart(x + at, D - d), r), mean)
      const own = f32x4.mul(r, f32x4.sub(wdy, along))
      storePart(dx + at, f32x4.add(loadPart(dx + at, D - d), own), D - d)
    }
  }
}
