// y = gate / (1 + exp(-gate)) * up, the activation of Llama's feed-forward block.

import { exp, loadPart, storePart } from '../math'

export function swiglu(gate: usize, up: usize, y: usize, N: u32, F: u32, start: u32, end: u32): void {
  let i: usize = start
  for (; i + 4 <= end; i += 4) {
    v128.store(y + i * 4, activate(v128.load(gate + i * 4), v128.load(up + i * 4)))
  }
  const rest = end - <u32>i
  if (rest) {
    const last = i * 4
    storePart(y + last, activate(loadPart(gate + last, rest), loadPart(up + last, rest)), rest)
  }
}

// With e = exp(-|gate|), which cannot overflow, the logistic function is 1 / (1 + e) or e / (1 + e).
@inline
function activate(gate: v128, up: v128): v128 {
  const one = f32x4.splat(1)
  const e = exp(f32x4.neg(f32x4.abs(gate)))
  const top = v128.bitselect(e, one, f32x4.lt(gate, f32x4.splat(0)))
  return f32x4.mul(f32x4.mul(gate, f32x4.div(top, f32x4.add(one, e))), up)
}
