// x = x * 0.5 + 0.25, many times over: the bound of arithmetic for benchmarks.

import { loadPart, madd, storePart } from '../math'

// In memory, because an engine may build a constant vector anew in every round.
const FACTORS = memory.data<f32>([0.5, 0.25])

export function fma(x: usize, N: u32, rounds: u32, start: u32, end: u32): void {
  const half = v128.load_splat<f32>(FACTORS)
  const quarter = v128.load_splat<f32>(FACTORS + 4)
  let i = start
  // Twelve independent chains hide the latency of a product and a sum.
  for (; i + 48 <= end; i += 48) {
    const at = x + <usize>i * 4
    let a = v128.load(at)
    let b = v128.load(at, 16)
    let c = v128.load(at, 32)
    let d = v128.load(at, 48)
    let e = v128.load(at, 64)
    let f = v128.load(at, 80)
    let g = v128.load(at, 96)
    let h = v128.load(at, 112)
    let k = v128.load(at, 128)
    let l = v128.load(at, 144)
    let m = v128.load(at, 160)
    let o = v128.load(at, 176)
    for (let round: u32 = 0; round < rounds; round++) {
      a = madd(quarter, a, half)
      b = madd(quarter, b, half)
      c = madd(quarter, c, half)
      d = madd(quarter, d, half)
      e = madd(quarter, e, half)
      f = madd(quarter, f, half)
      g = madd(quarter, g, half)
      h = madd(quarter, h, half)
      k = madd(quarter, k, half)
      l = madd(quarter, l, half)
      m = madd(quarter, m, half)
      o = madd(quarter, o, half)
    }
    v128.store(at, a)
    v128.store(at, b, 16)
    v128.store(at, c, 32)
    v128.store(at, d, 48)
    v128.store(at, e, 64)
    v128.store(at, f, 80)
    v128.store(at, g, 96)
    v128.store(at, h, 112)
    v128.store(at, k, 128)
    v128.store(at, l, 144)
    v128.store(at, m, 160)
    v128.store(at, o, 176)
  }
  for (; i < end; i += 4) {
    const at = x + <usize>i * 4
    let a = loadPart(at, end - i)
    for (let round: u32 = 0; round < rounds; round++) a = madd(quarter, a, half)
    storePart(at, a, end - i)
  }
}
