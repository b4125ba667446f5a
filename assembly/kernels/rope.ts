// Rotates the pairs (x[n, h, 0, e], x[n, h, 1, e]) by the angle of their position, from a table of cosines and sines.

import { loadPart, storePart } from '../math'

export function rope(
  x: usize,
  cos: usize,
  sin: usize,
  position: usize,
  N: u32,
  H: u32,
  E: u32,
  P: u32,
  start: u32,
  end: u32,
): void {
  const whole = <usize>(E & ~3) * 4
  const rest = E & 3
  for (let n: usize = start; n < end; n++) {
    const row = <usize>min(load<u32>(position + n * 4), P - 1) * E * 4
    for (let h: usize = 0; h < H; h++) {
      let a = x + (n * H + h) * 2 * E * 4
      let b = a + E * 4
      let c = cos + row
      let s = sin + row
      for (const end = a + whole; a < end; a += 16, b += 16, c += 16, s += 16) {
        const u = v128.load(a)
        const v = v128.load(b)
        const p = v128.load(c)
        const q = v128.load(s)
        v128.store(a, turn(u, v, p, q))
        v128.store(b, turn(v, f32x4.neg(u), p, q))
      }
      if (rest) {
        const u = loadPart(a, rest)
        const v = loadPart(b, rest)
        const p = loadPart(c, rest)
        const q = loadPart(s, rest)
        storePart(a, turn(u, v, p, q), rest)
        storePart(b, turn(v, f32x4.neg(u), p, q), rest)
      }
    }
  }
}

// u cos - v sin.
@inline
function turn(u: v128, v: v128, cos: v128, sin: v128): v128 {
  return f32x4.sub(f32x4.mul(u, cos), f32x4.mul(v, sin))
}
