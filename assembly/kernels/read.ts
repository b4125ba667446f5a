// Sums rows of 4096 numbers: the bound of reading memory for benchmarks.

import { sumLanes } from '../math'

const ROW: usize = 4096

export function read(x: usize, sums: usize, B: u32, start: usize, end: usize): void {
  for (let row = start; row < end; row++) {
    const first = x + row * ROW * 4
    // Eight chains of sums wait for the memory, not for each other.
    let a = f32x4.splat(0)
    let b = a
    let c = a
    let d = a
    let e = a
    let f = a
    let g = a
    let h = a
    for (let from = first; from < first + ROW * 4; from += 128) {
      a = f32x4.add(a, v128.load(from))
      b = f32x4.add(b, v128.load(from, 16))
      c = f32x4.add(c, v128.load(from, 32))
      d = f32x4.add(d, v128.load(from, 48))
      e = f32x4.add(e, v128.load(from, 64))
      f = f32x4.add(f, v128.load(from, 80))
      g = f32x4.add(g, v128.load(from, 96))
      h = f32x4.add(h, v128.load(from, 112))
    }
    const left = f32x4.add(f32x4.add(a, b), f32x4.add(c, d))
    const right = f32x4.add(f32x4.add(e, f), f32x4.add(g, h))
    store<f32>(sums + row * 4, sumLanes(f32x4.add(left, right)))
  }
}
