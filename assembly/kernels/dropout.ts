// y = keep ? x * scale : 0, with a mask made of whole numbers.

import { loadPart, storePart } from '../math'

export function dropout(
  x: usize,
  key: usize,
  y: usize,
  N: u32,
  D: u32,
  stream: u32,
  threshold: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  const factor = f32x4.splat(scale)
  const least = i32x4.splat(threshold)
  const step = i32x4.splat(4 * 0x9e3779b9)
  for (let n: usize = start; n < end; n++) {
    const own = i32x4.splat(load<u32>(key + n * 4) + stream * 0x85ebca6b)
    // (d + 1) times the golden ratio, for four columns d.
    let columns = i32x4.mul(i32x4(1, 2, 3, 4), i32x4.splat(0x9e3779b9))
    for (let d: u32 = 0; d < D; d += 4) {
      const at = (n * D + d) * 4
      let bits = v128.xor(columns, own)
      bits = i32x4.mul(v128.xor(bits, i32x4.shr_u(bits, 16)), i32x4.splat(0x85ebca6b))
      bits = i32x4.mul(v128.xor(bits, i32x4.shr_u(bits, 13)), i32x4.splat(0xc2b2ae35))
      bits = v128.xor(bits, i32x4.shr_u(bits, 16))
      const kept = v128.ge<u32>(bits, least)
      storePart(y + at, v128.and(f32x4.mul(loadPart(x + at, D - d), factor), kept), D - d)
      columns = i32x4.add(columns, step)
    }
  }
}
