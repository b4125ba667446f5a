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
  const whole = <usize>(D & ~3) * 4
  const rest = D & 3
  const e = f32x4.splat(eps)
  for (let n: usize = start; n < end; n++) {
    const from = x + n * D * 4
    const to = y + n * D * 4
    for (let d: usize = 0; d < whole; d += 16) {
      const w = v128.load(weight + d)
      const b = v128.load(bias + d)
      v128.store(to + d, normalise(v128.load(from + d), v128.load(mean + d), v128.load(variance + d), e, w, b))
    }
    if (rest) {
      const v = loadPart(from + whole, rest)
      const w = loadPart(weight + whole, rest)
      const b = loadPart(bias + whole, rest)
      const m = loadPart(mean + whole, rest)
      storePart(to + whole, normalise(v, m, loadPart(variance + whole, rest), e, w, b), rest)
    }
  }
}

@inline
function normalise(x: v128, mean: v128, variance: v128, eps: v128, weight: v128, bias: v128): v128 {
  const deviation = f32x4.sqrt(f32x4.add(variance, eps))
  return madd(bias, f32x4.div(f32x4.sub(x, mean), deviation), weight)
}
