// Folds a block of logits into the running softmax of its rows.

import { exp, loadPart, madd, maxLanes, sumLanes } from '../math'

export function cross_entropy(
  x: usize,
  wanted: usize,
  top: usize,
  total: usize,
  spread: usize,
  hit: usize,
  R: u32,
  B: u32,
  first: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  const factor = f32x4.splat(scale)
  const whole = <usize>(B & ~3) * 4
  const rest = B & 3
  for (let r: usize = start; r < end; r++) {
    const row = x + r * B * 4
    const before = load<f32>(top + r * 4)
    let most = f32x4.splat(before)
    for (let at: usize = 0; at < whole; at += 16) most = f32x4.max(most, f32x4.mul(factor, v128.load(row + at)))
    let after = maxLanes(most)
    for (let b = B - rest; b < B; b++) after = max(after, scale * load<f32>(row + <usize>b * 4))
    const shift = f32x4.splat(after)
    let sums = f32x4.splat(0)
    let products = f32x4.splat(0)
    for (let at: usize = 0; at < whole; at += 16) {
      const z = f32x4.sub(f32x4.mul(factor, v128.load(row + at)), shift)
      const e = exp(z)
      sums = f32x4.add(sums, e)
      products = madd(products, e, z)
    }
    if (rest) {
      // Lanes behind the row count nothing: their e is 0.
      const lanes = v128.load(MASKS + (4 - <usize>rest) * 4)
      const z = v128.and(f32x4.sub(f32x4.mul(factor, loadPart(row + whole, rest)), shift), lanes)
      const e = v128.and(exp(z), lanes)
      sums = f32x4.add(sums, e)
      products = madd(products, e, z)
    }
    // What the sums so far are worth relative to the new largest logit.
    const old = load<f32>(total + r * 4)
    const worth = f32x4.extract_lane(exp(f32x4.splat(before - after)), 0)
    store<f32>(spread + r * 4, worth * (load<f32>(spread + r * 4) + old * (before - after)) + sumLanes(products))
    store<f32>(total + r * 4, worth * old + sumLanes(sums))
    store<f32>(top + r * 4, after)
    const b = load<u32>(wanted + r * 4)
    if (b >= first && b - first < B) store<f32>(hit + r * 4, scale * load<f32>(row + <usize>(b - first) * 4))
  }
}

// Four lanes of ones, then four of zeros: read from a place in between, the first lanes are kept.
const MASKS = memory.data<u32>([0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0, 0, 0, 0])
