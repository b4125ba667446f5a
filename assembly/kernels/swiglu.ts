// y = gate / (1 + exp(-gate)) * up, the activation of Llama's feed-forward block.

import { exp, loadPart, storePart } from '../math'

export function swiglu(gate: usize, up: usize, y: usize, N: u32, F: u32, start: u32, end: u32): void {
  const one = f32x4.splat(1)
  for (let i = start; i < end; i += 4) {
    const at = <usize>i * 4
    const g = loadPart(gate + at, end - i)
    // With e = exp(-|g|), which cannot overflow, the logistic function is 1 / (1 + e) or e / (1 + e).
    const e = exp(f32x4.neg(f32x4.abs(g)))
    const top = v128.bitselect(e, one, f32x4.lt(g, f32x4.splat(0)))
    const logistic = f32x4.div(top, f32x4.add(one, e))
    storePart(y + at, f32x4.mul(f32x4.mul(g, logistic), loadPart(up + at, end - i)), end - i)
  }
}
