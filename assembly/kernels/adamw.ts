// One AdamW update.

import { loadPart, storePart } from '../math'

export function adamw(
  param: usize,
  m: usize,
  v: usize,
  grad: usize,
  N: u32,
  lr: f32,
  beta1: f32,
  beta2: f32,
  rest1: f32,
  rest2: f32,
  eps: f32,
  weight_decay: f32,
  correction1: f32,
  correction2: f32,
  start: u32,
  end: u32,
): void {
  const keep = f32x4.splat(1 - lr * weight_decay)
  const b1 = f32x4.splat(beta1)
  const b2 = f32x4.splat(beta2)
  const r1 = f32x4.splat(rest1)
  const r2 = f32x4.splat(rest2)
  const step = f32x4.splat(lr / correction1)
  const root = f32x4.splat(sqrt<f32>(correction2))
  const small = f32x4.splat(eps)
  for (let i: usize = start; i < end; i += 4) {
    const count = end - <u32>i
    const at = i * 4
    const g = loadPart(grad + at, count)
    const first = f32x4.add(f32x4.mul(b1, loadPart(m + at, count)), f32x4.mul(r1, g))
    const second = f32x4.add(f32x4.mul(b2, loadPart(v + at, count)), f32x4.mul(f32x4.mul(r2, g), g))
    const size = f32x4.add(f32x4.div(f32x4.sqrt(second), root), small)
    const p = f32x4.mul(keep, loadPart(param + at, count))
    storePart(m + at, first, count)
    storePart(v + at, second, count)
    storePart(param + at, f32x4.sub(p, f32x4.mul(step, f32x4.div(first, size))), count)
  }
}
