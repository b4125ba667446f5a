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
  const whole = <usize>(D & ~3) * 4
  const rest = D & 3
  for (let n: usize = start; n < end; n++) {
    const from = x + n * D * 4
    const to = y + n * D * 4
    const tail = rest ? loadPart(from + whole, rest) : f32x4.splat(0)
    let squares = f32x4.mul(tail, tail)
    for (let at: usize = 0; at < whole; at += 16) {
      const v = v128.load(from + at)
      squares = madd(squares, v, v)
    }
    const r: f32 = 1 / sqrt<f32>(sumLanes(squares) / <f32>D + eps)
    const scale = f32x4.splat(r)
    for (let at: usize = 0; at < whole; at += 16) {
      v128.store(to + at, f32x4.mul(f32x4.mul(v128.load(from + at), scale), v128.load(weight + at)))
    }
    if (rest) storePart(to + whole, f32x4.mul(f32x4.mul(tail, scale), loadPart(weight + whole, rest)), rest)
    store<f32>(rstd + n * 4, r)
  }
}
