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
  for (let n: usize = start; n < end; n++) {
    const row = <usize>min(load<u32>(position + n * 4), P - 1) * E * 4
    for (let h: usize = 0; h < H; h++) {
      const a = x + (n * H + h) * 2 * E * 4
      const b = a + E * 4
      for (let e: u32 = 0; e < E; e += 4) {
        const at = <usize>e * 4
        const left = E - e
        const c = loadPart(cos + row + at, left)
        const s = loadPart(sin + row + at, left)
        const u = loadPart(a + at, left)
        const v = loadPart(b + at, left)
        storePart(a + at, f32x4.sub(f32x4.mul(u, c), f32x4.mul(v, s)), left)
        storePart(b + at, f32x4.add(f32x4.mul(v, c), f32x4.mul(u, s)), left)
      }
    }
  }
}
