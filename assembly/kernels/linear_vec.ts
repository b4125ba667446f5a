// y = x weight^T for a few rows, with the bits of `linear`.

import { put_edge, COLUMNS } from '../tile'
import { madd } from '../math'
import { scratch } from '../scratch'
import { stored1, stored4 } from '../widen'
import { DEPTH, linear } from './linear'

// y[n, o] for all n and start <= o < end. One or two rows are summed without packing: the weights are read once, eight of
// their rows at a time, and turned in registers by four, so that the lanes are outputs and every sum runs through the
// columns in their order, as in a tile. From three rows on packing costs less than turning again for every pair.
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
  for (let o: usize = start; o < end; o += COLUMNS) {
    const columns = min(COLUMNS, end - o)
    for (let d: usize = 0; d < width; d += DEPTH) {
      const depth = min(DEPTH, width - d)
      const from = x + d * 4
      const i = o * width + d
      if (N == 1) vec1<T>(from, weight, weight_scale, i, width, columns - 1, depth, edge)
      else {
        const half = min(4, columns - 1)
        const j = i + half * width
        vec2<T>(from, from + width * 4, weight, weight_scale, i, width, columns - 1, depth, edge)
        vec2<T>(from, from + width * 4, weight, weight_scale, j, width, columns - 1 - half, depth, edge + 16)
      }
      put_edge(edge, y + o * 4, O * 4, N, columns, d > 0)
    }
  }
}

// One row of x times eight rows of weights, of which the first begins at value i and the others `width` further each: two
// sums in four lanes each, because one would wait for its own additions. Rows of weights after number `last` repeat it.
function vec1<T>(
  x: usize,
  w: usize,
  scales: usize,
  i: usize,
  width: usize,
  last: usize,
  depth: usize,
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

// Two rows of x, at x and z, times four rows of weights.
function vec2<T>(
  x: usize,
  z: usize,
  w: usize,
  scales: usize,
  i: usize,
  width: usize,
  last: usize,
  depth: usize,
  y: usize,
): void {
  const i1 = min(1, last) * width
  const i2 = min(2, last) * width
  const i3 = min(3, last) * width
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  for (; d + 4 <= depth; d += 4, x += 16, z += 16, i += 4) {
    const p = stored4<T>(w, scales, i)
    const q = stored4<T>(w, scales, i + i1)
    const r = stored4<T>(w, scales, i + i2)
    const s = stored4<T>(w, scales, i + i3)
    a = four(a, x, p, q, r, s)
    b = four(b, z, p, q, r, s)
  }
  for (; d < depth; d++, x += 4, z += 4, i++) {
    const v = column<T>(w, scales, i, i + i1, i + i2, i + i3)
    a = madd(a, v128.load_splat<f32>(x), v)
    b = madd(b, v128.load_splat<f32>(z), v)
  }
  v128.store(y, a)
  v128.store(y, b, COLUMNS * 4)
}

// One column of four rows of weights.
@inline
function column<T>(w: usize, scales: usize, i0: usize, i1: usize, i2: usize, i3: usize): v128 {
  const pq = v128.shuffle<f32>(stored1<T>(w, scales, i0), stored1<T>(w, scales, i1), 0, 4, 0, 4)
  const rs = v128.shuffle<f32>(stored1<T>(w, scales, i2), stored1<T>(w, scales, i3), 0, 4, 0, 4)
  return v128.shuffle<f32>(pq, rs, 0, 1, 4, 5)
}
