// y = x weight^T for a few rows, and the bits of `linear`.

import { madd } from '../math'
import { scratch } from '../scratch'
import { COLUMNS, put_edge } from '../tile'
import { stored1, stored4 } from '../widen'
import { linear } from './linear'

// As in `linear`: what is added before the sum goes to y decides the bits.
const DEPTH: usize = 2048

// y[n, o] for all n and start <= o < end. One or two rows are summed without packing: the weights are read once, eight of their
// rows at a time, and turned in registers by four, so that the lanes are outputs and every sum runs through the columns in
// their order, as in a tile. From three rows on packing costs less than turning again for every pair.
export function linear_vec<T>(
  x: usize,
  weight: usize,
  weight_scale: usize,
  y: usize,
  N: usize,
  D: usize,
  O: usize,
  start: usize,
  end: usize,
): void {
  if (N > 2) {
    linear<T>(x, weight, weight_scale, y, N, D, O, start, end)
    return
  }
  const edge = scratch
  for (let o = start; o < end; o += COLUMNS) {
    const columns = min(COLUMNS, end - o)
    const last = columns - 1
    const half = min(4, last)
    for (let d: usize = 0; d < D; d += DEPTH) {
      const depth = min(DEPTH, D - d)
      const from = x + d * 4
      const w = o * D + d
      if (N == 1) one<T>(from, weight, weight_scale, w, D, last, depth, edge)
      else {
        two<T>(from, from + D * 4, weight, weight_scale, w, D, last, depth, edge)
        two<T>(from, from + D * 4, weight, weight_scale, w + half * D, D, last - half, depth, edge + 16)
      }
      put_edge(edge, y + o * 4, O * 4, N, columns, d > 0)
    }
  }
}

// One row of x times eight rows of weights, D values apart from number w on: two sums in four lanes each, because one would wait
// for its own additions. Rows of weights after number `last` repeat it.
function one<T>(x: usize, v: usize, s: usize, w: usize, D: usize, last: usize, depth: usize, y: usize): void {
  const w1 = w + min(1, last) * D
  const w2 = w + min(2, last) * D
  const w3 = w + min(3, last) * D
  const w4 = w + min(4, last) * D
  const w5 = w + min(5, last) * D
  const w6 = w + min(6, last) * D
  const w7 = w + min(7, last) * D
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  for (; d + 4 <= depth; d += 4, x += 16) {
    a = four(
      a,
      x,
      stored4<T>(v, s, w + d),
      stored4<T>(v, s, w1 + d),
      stored4<T>(v, s, w2 + d),
      stored4<T>(v, s, w3 + d),
    )
    b = four(
      b,
      x,
      stored4<T>(v, s, w4 + d),
      stored4<T>(v, s, w5 + d),
      stored4<T>(v, s, w6 + d),
      stored4<T>(v, s, w7 + d),
    )
  }
  for (; d < depth; d++, x += 4) {
    a = madd(a, v128.load_splat<f32>(x), column<T>(v, s, w + d, w1 + d, w2 + d, w3 + d))
    b = madd(b, v128.load_splat<f32>(x), column<T>(v, s, w4 + d, w5 + d, w6 + d, w7 + d))
  }
  v128.store(y, a)
  v128.store(y, b, 16)
}

// Two rows of x, at x and z, times four rows of weights.
function two<T>(x: usize, z: usize, v: usize, s: usize, w: usize, D: usize, last: usize, depth: usize, y: usize): void {
  const w1 = w + min(1, last) * D
  const w2 = w + min(2, last) * D
  const w3 = w + min(3, last) * D
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  for (; d + 4 <= depth; d += 4, x += 16, z += 16) {
    const p = stored4<T>(v, s, w + d)
    const q = stored4<T>(v, s, w1 + d)
    const r = stored4<T>(v, s, w2 + d)
    const t = stored4<T>(v, s, w3 + d)
    a = four(a, x, p, q, r, t)
    b = four(b, z, p, q, r, t)
  }
  for (; d < depth; d++, x += 4, z += 4) {
    const c = column<T>(v, s, w + d, w1 + d, w2 + d, w3 + d)
    a = madd(a, v128.load_splat<f32>(x), c)
    b = madd(b, v128.load_splat<f32>(z), c)
  }
  v128.store(y, a)
  v128.store(y, b, COLUMNS * 4)
}

// Adds four columns of four rows of weights, turned in registers.
@inline
function four(a: v128, x: usize, p: v128, q: v128, r: v128, s: v128): v128 {
  let pq = v128.shuffle<f32>(p, q, 0, 4, 1, 5)
  let rs = v128.shuffle<f32>(r, s, 0, 4, 1, 5)
  a = madd(a, v128.load_splat<f32>(x), v128.shuffle<f32>(pq, rs, 0, 1, 4, 5))
  a = madd(a, v128.load_splat<f32>(x, 4), v128.shuffle<f32>(pq, rs, 2, 3, 6, 7))
  pq = v128.shuffle<f32>(p, q, 2, 6, 3, 7)
  rs = v128.shuffle<f32>(r, s, 2, 6, 3, 7)
  a = madd(a, v128.load_splat<f32>(x, 8), v128.shuffle<f32>(pq, rs, 0, 1, 4, 5))
  return madd(a, v128.load_splat<f32>(x, 12), v128.shuffle<f32>(pq, rs, 2, 3, 6, 7))
}

// One column of four rows of weights.
@inline
function column<T>(v: usize, s: usize, w0: usize, w1: usize, w2: usize, w3: usize): v128 {
  const pq = v128.shuffle<f32>(stored1<T>(v, s, w0), stored1<T>(v, s, w1), 0, 4, 0, 4)
  const rs = v128.shuffle<f32>(stored1<T>(v, s, w2), stored1<T>(v, s, w3), 0, 4, 0, 4)
  return v128.shuffle<f32>(pq, rs, 0, 1, 4, 5)
}
