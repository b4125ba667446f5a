// Bradley-Terry loss of margins that are products of outputs and rewards, and its gradient.

import { exp, loadPart, log, madd, storePart, sumLanes } from '../math'

export function bradley_terry(
  g: usize,
  r: usize,
  margin: usize,
  loss: usize,
  dg: usize,
  B: u32,
  M: u32,
  margin_scale: f32,
  start: u32,
  end: u32,
): void {
  for (let b: usize = start; b < end; b++) {
    const at = b * M * 4
    let sums = f32x4.splat(0)
    for (let m: u32 = 0; m < M; m += 4) {
      sums = madd(sums, loadPart(g + at + m * 4, M - m), loadPart(r + at + m * 4, M - m))
    }
    const d: f32 = margin_scale * sumLanes(sums)
    // e = exp(-|d|) cannot overflow.
    const e = f32x4.extract_lane(exp(f32x4.splat(-abs(d))), 0)
    store<f32>(margin + b * 4, d)
      // The logarithm takes normal numbers only: a NaN stays one.
    store<f32>(loss + b * 4, d == d ? max<f32>(-d, 0) + log(1 + e) : d)
    const wrong: f32 = (d >= 0 ? e : <f32>1) / (1 + e)
    const factor = f32x4.splat((-wrong * margin_scale) / <f32>B)
    for (let m: u32 = 0; m < M; m += 4) {
      storePart(dg + at + m * 4, f32x4.mul(factor, loadPart(r + at + m * 4, M - m)), M - m)
    }
  }
}
