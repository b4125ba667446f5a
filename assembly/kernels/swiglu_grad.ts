// Gradients of y = gate / (1 + exp(-gate)) * up.

import { exp, loadPart, storePart } from '../math'

export function swiglu_grad(
  gate: usize,
  up: usize,
  dy: usize,
  dgate: usize,
  dup: usize,
  N: u32,
  F: u32,
  start: u32,
  end: u32,
): void {
  const one = f32x4.splat(1)
  for (let i = start; i < end; i += 4) {
    const at = <usize>i * 4
    const count = end - i
    const g = loadPart(gate + at, count)
    const d = loadPart(dy + at, count)
    // With e = exp(-|g|), which cannot overflow, the logistic function of g is 1 / (1 + e) or e / (1 + e), that of -g the other.
    const e = exp(f32x4.neg(f32x4.abs(g)))
    const negative = f32x4.lt(g, f32x4.splat(0))
    const whole = f32x4.add(one, e)
    const s = f32x4.div(v128.bitselect(e, one, negative), whole)
    const t = f32x4.div(v128.bitselect(one, e, negative), whole)
    const slope = f32x4.mul(s, f32x4.add(one, f32x4.mul(g, t)))
    storePart(dgate + at, f32x4.mul(f32x4.mul(d, loadPart(up + at, count)), slope), count)
    storePart(dup + at, f32x4.mul(d, f32x4.mul(g, s)), count)
  }
}
