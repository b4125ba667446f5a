// x = coefficient * scale * (softmax(scale * x) - one-hot of the target), for a block of the vocabulary.

import { exp, loadPart, storePart } from '../math'

export function cross_entropy_grad(
  x: usize,
  wanted: usize,
  lse: usize,
  coefficient: usize,
  R: u32,
  B: u32,
  first: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  const factor = f32x4.splat(scale)
  for (let r: usize = start; r < end; r++) {
    const row = x + r * B * 4
    const shift = v128.load_splat<f32>(lse + r * 4)
    const weight: f32 = load<f32>(coefficient + r * 4) * scale
    const b = load<u32>(wanted + r * 4) - first
    for (let at: u32 = 0; at < B; at += 4) {
      const to = row + <usize>at * 4
      const p = exp(f32x4.sub(f32x4.mul(factor, loadPart(to, B - at)), shift))
      storePart(to, f32x4.mul(f32x4.splat(weight), p), B - at)
    }
    if (b < B) store<f32>(row + <usize>b * 4, load<f32>(row + <usize>b * 4) - weight)
  }
}
