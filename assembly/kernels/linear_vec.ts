// y = x weight^T for a few rows, with the bits of `linear`.

import { madd } from '../math'
import { scratch } from '../scratch'
import { COLUMNS, evenQuarters, highHalves, lowHalves, oddQuarters, put_edge } from '../tile'
import { UPPER, firsts, inPairs, seconds, stored1, stored4 } from '../widen'
import { DEPTH, linear } from './linear'

// Bytes of eight rows of weights up to which they and the eight behind them fit the first cache.
const NEAR: usize = 12288
const LINE: usize = 64

// y[n, o] for all n and start <= o < end. One or two rows are summed without packing: the weights are read once, eight of
// their rows at a time, and turned in registers by four, so that the lanes are outputs and every sum runs through the
// columns in their order, as in a tile. From three rows on packing costs less than turning again for every pair.
//
// Meanwhile the eight rows behind them are touched in the order of memory, where that is near: a processor fetches one long run
// from memory ahead of time, but not eight short ones.
export function linear_vec<T>(
  x: usize,
  weight: usize,
  weight_scale: usize,
  y: usize,
  N: u32,
  D: u32,
  O: u32,
  start: u32,
  end: u32,
): void {
  if (N > 2) {
    linear<T>(x, weight, weight_scale, y, N, D, O, start, end)
    return
  }
  const edge = scratch
  const width: usize = D
  const tall = COLUMNS * width
  const near = inPairs<T>() && tall * 2 <= NEAR
  for (let o: usize = start; o < end; o += COLUMNS) {
    const columns = min(COLUMNS, end - o)
    // Nothing behind the matrix is read: beside the last rows the scratch memory is touched.
    const ahead = near && o + 2 * COLUMNS <= end
    for (let d: usize = 0; d < width; d += DEPTH) {
      const depth = min(DEPTH, width - d)
      const from = x + d * 4
      const i = o * width + d
      const next = ahead ? weight + (i + tall) * sizeof<T>() : scratch
      const step = ahead ? 2 * LINE : 0
      if (N == 1) one<T>(from, weight, weight_scale, i, width, columns - 1, depth, next, step, edge)
      else two<T>(from, from + width * 4, weight, weight_scale, i, width, columns - 1, depth, next, step, edge)
      put_edge(edge, y + o * 4, O * 4, N, columns, d > 0)
    }
  }
}

// One row of x times eight rows of weights, of which the first begins at value i and the others `width` further each: two
// sums in four lanes each, because one would wait for its own additions. Rows of weights after number `last` repeat it. Touches
// two lines from `next` on with every eight columns, `step` bytes further each time.
function one<T>(
  x: usize,
  w: usize,
  scales: usize,
  i: usize,
  width: usize,
  last: usize,
  depth: usize,
  next: usize,
  step: usize,
  y: usize,
): void {
  const i1 = min(1, last) * width
  const i2 = min(2, last) * width
  const i3 = min(3, last) * width
  const i4 = min(4, last) * width
  const i5 = min(5, last) * width
  const i6 = min(6, last) * width
  const i7 = min(7, last) * width
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  if (inPairs<T>()) {
    const upper = v128.load_splat<u32>(UPPER)
    let from = w + i * 2
    for (; d + 8 <= depth; d += 8, x += 32, from += 16, next += step) {
      v128.load(next)
      v128.load(next, LINE)
      let p = v128.load(from)
      let q = v128.load(from + i1 * 2)
      const t0 = lowHalves(p, q)
      const t1 = highHalves(p, q)
      p = v128.load(from + i2 * 2), q = v128.load(from + i3 * 2)
      const u0 = lowHalves(p, q)
      const u1 = highHalves(p, q)
      p = v128.load(from + i4 * 2), q = v128.load(from + i5 * 2)
      const v0 = lowHalves(p, q)
      const v1 = highHalves(p, q)
      p = v128.load(from + i6 * 2), q = v128.load(from + i7 * 2)
      const w0 = lowHalves(p, q)
      const w1 = highHalves(p, q)
      let f = evenQuarters(t0, u0)
      let g = evenQuarters(v0, w0)
      let z = v128.load_splat<f32>(x)
      a = madd(a, z, firsts(f)), b = madd(b, z, firsts(g))
      z = v128.load_splat<f32>(x, 4)
      a = madd(a, z, seconds(f, upper)), b = madd(b, z, seconds(g, upper))
      f = oddQuarters(t0, u0), g = oddQuarters(v0, w0)
      z = v128.load_splat<f32>(x, 8)
      a = madd(a, z, firsts(f)), b = madd(b, z, firsts(g))
      z = v128.load_splat<f32>(x, 12)
      a = madd(a, z, seconds(f, upper)), b = madd(b, z, seconds(g, upper))
      f = evenQuarters(t1, u1), g = evenQuarters(v1, w1)
      z = v128.load_splat<f32>(x, 16)
      a = madd(a, z, firsts(f)), b = madd(b, z, firsts(g))
      z = v128.load_splat<f32>(x, 20)
      a = madd(a, z, seconds(f, upper)), b = madd(b, z, seconds(g, upper))
      f = oddQuarters(t1, u1), g = oddQuarters(v1, w1)
      z = v128.load_splat<f32>(x, 24)
      a = madd(a, z, firsts(f)), b = madd(b, z, firsts(g))
      z = v128.load_splat<f32>(x, 28)
      a = madd(a, z, seconds(f, upper)), b = madd(b, z, seconds(g, upper))
    }
    i = (from - w) / 2
  }
  for (; d + 4 <= depth; d += 4, x += 16, i += 4) {
    a = four(a, x, stored4<T>(w, scales, i), stored4<T>(w, scales, i + i1), stored4<T>(w, scales, i + i2), stored4<T>(w, scales, i + i3))
    b = four(b, x, stored4<T>(w, scales, i + i4), stored4<T>(w, scales, i + i5), stored4<T>(w, scales, i + i6), stored4<T>(w, scales, i + i7))
  }
  for (; d < depth; d++, x += 4, i++) {
    a = madd(a, v128.load_splat<f32>(x), column<T>(w, scales, i, i + i1, i + i2, i + i3))
    b = madd(b, v128.load_splat<f32>(x), column<T>(w, scales, i + i4, i + i5, i + i6, i + i7))
  }
  v128.store(y, a)
  v128.store(y, b, 16)
}

// Two rows of x, at x and z, in the same way.
function two<T>(
  x: usize,
  z: usize,
  w: usize,
  scales: usize,
  i: usize,
  width: usize,
  last: usize,
  depth: usize,
  next: usize,
  step: usize,
  y: usize,
): void {
  const i1 = min(1, last) * width
  const i2 = min(2, last) * width
  const i3 = min(3, last) * width
  const i4 = min(4, last) * width
  const i5 = min(5, last) * width
  const i6 = min(6, last) * width
  const i7 = min(7, last) * width
  let a = f32x4.splat(0)
  let b = a
  let c = a
  let e = a
  let d: usize = 0
  if (inPairs<T>()) {
    const upper = v128.load_splat<u32>(UPPER)
    let from = w + i * 2
    for (; d + 8 <= depth; d += 8, x += 32, z += 32, from += 16, next += step) {
      v128.load(next)
      v128.load(next, LINE)
      let p = v128.load(from)
      let q = v128.load(from + i1 * 2)
      const t0 = lowHalves(p, q)
      const t1 = highHalves(p, q)
      p = v128.load(from + i2 * 2), q = v128.load(from + i3 * 2)
      const u0 = lowHalves(p, q)
      const u1 = highHalves(p, q)
      p = v128.load(from + i4 * 2), q = v128.load(from + i5 * 2)
      const v0 = lowHalves(p, q)
      const v1 = highHalves(p, q)
      p = v128.load(from + i6 * 2), q = v128.load(from + i7 * 2)
      const w0 = lowHalves(p, q)
      const w1 = highHalves(p, q)
      let f = evenQuarters(t0, u0)
      let g = evenQuarters(v0, w0)
      let h = firsts(f)
      let k = firsts(g)
      let r = v128.load_splat<f32>(x)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z)
      c = madd(c, r, h), e = madd(e, r, k)
      h = seconds(f, upper), k = seconds(g, upper)
      r = v128.load_splat<f32>(x, 4)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 4)
      c = madd(c, r, h), e = madd(e, r, k)
      f = oddQuarters(t0, u0), g = oddQuarters(v0, w0)
      h = firsts(f), k = firsts(g)
      r = v128.load_splat<f32>(x, 8)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 8)
      c = madd(c, r, h), e = madd(e, r, k)
      h = seconds(f, upper), k = seconds(g, upper)
      r = v128.load_splat<f32>(x, 12)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 12)
      c = madd(c, r, h), e = madd(e, r, k)
      f = evenQuarters(t1, u1), g = evenQuarters(v1, w1)
      h = firsts(f), k = firsts(g)
      r = v128.load_splat<f32>(x, 16)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 16)
      c = madd(c, r, h), e = madd(e, r, k)
      h = seconds(f, upper), k = seconds(g, upper)
      r = v128.load_splat<f32>(x, 20)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 20)
      c = madd(c, r, h), e = madd(e, r, k)
      f = oddQuarters(t1, u1), g = oddQuarters(v1, w1)
      h = firsts(f), k = firsts(g)
      r = v128.load_splat<f32>(x, 24)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 24)
      c = madd(c, r, h), e = madd(e, r, k)
      h = seconds(f, upper), k = seconds(g, upper)
      r = v128.load_splat<f32>(x, 28)
      a = madd(a, r, h), b = madd(b, r, k)
      r = v128.load_splat<f32>(z, 28)
      c = madd(c, r, h), e = madd(e, r, k)
    }
    i = (from - w) / 2
  }
  for (; d + 4 <= depth; d += 4, x += 16, z += 16, i += 4) {
    let p = stored4<T>(w, scales, i)
    let q = stored4<T>(w, scales, i + i1)
    let r = stored4<T>(w, scales, i + i2)
    let s = stored4<T>(w, scales, i + i3)
    a = four(a, x, p, q, r, s)
    c = four(c, z, p, q, r, s)
    p = stored4<T>(w, scales, i + i4), q = stored4<T>(w, scales, i + i5)
    r = stored4<T>(w, scales, i + i6), s = stored4<T>(w, scales, i + i7)
    b = four(b, x, p, q, r, s)
    e = four(e, z, p, q, r, s)
  }
  for (; d < depth; d++, x += 4, z += 4, i++) {
    const p = column<T>(w, scales, i, i + i1, i + i2, i + i3)
    const q = column<T>(w, scales, i + i4, i + i5, i + i6, i + i7)
    a = madd(a, v128.load_splat<f32>(x), p)
    b = madd(b, v128.load_splat<f32>(x), q)
    c = madd(c, v128.load_splat<f32>(z), p)
    e = madd(e, v128.load_splat<f32>(z), q)
  }
  v128.store(y, a)
  v128.store(y, b, 16)
  v128.store(y, c, 32)
  v128.store(y, e, 48)
}

// Adds four columns of four rows of weights, turned in registers.
@inline
function four(a: v128, x: usize, p: v128, q: v128, r: v128, s: v128): v128 {
  const pq0 = lowHalves(p, q)
  const rs0 = lowHalves(r, s)
  a = madd(a, v128.load_splat<f32>(x), evenQuarters(pq0, rs0))
  a = madd(a, v128.load_splat<f32>(x, 4), oddQuarters(pq0, rs0))
  const pq1 = highHalves(p, q)
  const rs1 = highHalves(r, s)
  a = madd(a, v128.load_splat<f32>(x, 8), evenQuarters(pq1, rs1))
  return madd(a, v128.load_splat<f32>(x, 12), oddQuarters(pq1, rs1))
}

// One column of four rows of weights.
@inline
function column<T>(w: usize, scales: usize, i0: usize, i1: usize, i2: usize, i3: usize): v128 {
  const pq = v128.shuffle<f32>(stored1<T>(w, scales, i0), stored1<T>(w, scales, i1), 0, 4, 0, 4)
  const rs = v128.shuffle<f32>(stored1<T>(w, scales, i2), stored1<T>(w, scales, i3), 0, 4, 0, 4)
  return evenQuarters(pq, rs)
}
