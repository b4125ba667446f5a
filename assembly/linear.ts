// The linear map y = x weight^T for each storage type of the weights: tiled for many rows, streamed for a few.

import { madd } from './math'
import { scratch } from './scratch'
import { COLUMNS, ROWS, pack, tile } from './tile'
import { load1, load4 } from './widen'

// Terms of a sum that are added before the sum goes to y: bounds the scratch memory, and the rounding error.
const DEPTH: usize = 2048

// y[n, o] for all n and start <= o < end. Eight rows of the weights at a time are widened and packed into scratch
// memory, then used for all rows of x.
export function map<T>(x: usize, weight: usize, y: usize, N: usize, D: usize, O: usize, start: usize, end: usize): void {
  const panel = scratch
  const edge = panel + DEPTH * COLUMNS * 4
  for (let d: usize = 0; d < D; d += DEPTH) {
    const depth = min(DEPTH, D - d)
    for (let o = start; o < end; o += COLUMNS) {
      const columns = min(COLUMNS, end - o)
      pack<T>(weight + (o * D + d) * sizeof<T>(), D * sizeof<T>(), columns, depth, panel)
      for (let n: usize = 0; n < N; n += ROWS) {
        const rows = min(ROWS, N - n)
        const x0 = x + (n * D + d) * 4
        const x1 = x0 + min(1, rows - 1) * D * 4
        const x2 = x0 + min(2, rows - 1) * D * 4
        const x3 = x0 + min(3, rows - 1) * D * 4
        const to = y + (n * O + o) * 4
        if (rows == ROWS && columns == COLUMNS) {
          tile(x0, x1, x2, x3, panel, depth, to, O * 4, d > 0)
        } else {
          tile(x0, x1, x2, x3, panel, depth, edge, COLUMNS * 4, false)
          put_edge(edge, to, O * 4, rows, columns, d > 0)
        }
      }
    }
  }
}

// Moves the part of a tile that lies inside y.
export function put_edge(from: usize, y: usize, stride: usize, rows: usize, columns: usize, accumulate: bool): void {
  for (let r: usize = 0; r < rows; r++) {
    for (let c: usize = 0; c < columns; c++) {
      const sum = load<f32>(from + (r * COLUMNS + c) * 4)
      const to = y + r * stride + c * 4
      store<f32>(to, accumulate ? load<f32>(to) + sum : sum)
    }
  }
}

// The same for a few rows, and the same bits. One or two rows are summed without packing: the weights are read once, eight
// of their rows at a time, and turned in registers by four, so that the lanes are outputs and every sum runs through the
// columns in their order, as in a tile. From three rows on packing costs less than turning again for every pair.
export function map_vec<T>(
  x: usize,
  weight: usize,
  y: usize,
  N: usize,
  D: usize,
  O: usize,
  start: usize,
  end: usize,
): void {
  if (N > 2) {
    map<T>(x, weight, y, N, D, O, start, end)
    return
  }
  const edge = scratch
  for (let o = start; o < end; o += COLUMNS) {
    const columns = min(COLUMNS, end - o)
    for (let d: usize = 0; d < D; d += DEPTH) {
      const depth = min(DEPTH, D - d)
      const from = x + d * 4
      const w = weight + (o * D + d) * sizeof<T>()
      const stride = D * sizeof<T>()
      if (N == 1) vec1<T>(from, w, stride, columns - 1, depth, edge)
      else {
        vec2<T>(from, from + D * 4, w, stride, columns - 1, depth, edge)
        const half = min(4, columns - 1)
        vec2<T>(from, from + D * 4, w + half * stride, stride, columns - 1 - half, depth, edge + 16)
      }
      put_edge(edge, y + o * 4, O * 4, N, columns, d > 0)
    }
  }
}

// One row of x times eight rows of weights: two sums in four lanes each, because one would wait for its own additions.
// Rows of weights after number `last` repeat it.
function vec1<T>(x: usize, w: usize, stride: usize, last: usize, depth: usize, y: usize): void {
  const w1 = min(1, last) * stride
  const w2 = min(2, last) * stride
  const w3 = min(3, last) * stride
  const w4 = min(4, last) * stride
  const w5 = min(5, last) * stride
  const w6 = min(6, last) * stride
  const w7 = min(7, last) * stride
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  for (; d + 4 <= depth; d += 4, x += 16, w += 4 * sizeof<T>()) {
    a = four<T>(a, x, load4<T>(w), load4<T>(w + w1), load4<T>(w + w2), load4<T>(w + w3))
    b = four<T>(b, x, load4<T>(w + w4), load4<T>(w + w5), load4<T>(w + w6), load4<T>(w + w7))
  }
  for (; d < depth; d++, x += 4, w += sizeof<T>()) {
    a = madd(a, v128.load_splat<f32>(x), column<T>(w, w + w1, w + w2, w + w3))
    b = madd(b, v128.load_splat<f32>(x), column<T>(w + w4, w + w5, w + w6, w + w7))
  }
  v128.store(y, a)
  v128.store(y, b, 16)
}

// Adds four columns of four rows of weights, turned in registers.
@inline
function four<T>(a: v128, x: usize, p: v128, q: v128, r: v128, s: v128): v128 {
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
function vec2<T>(x: usize, z: usize, w: usize, stride: usize, last: usize, depth: usize, y: usize): void {
  const w1 = min(1, last) * stride
  const w2 = min(2, last) * stride
  const w3 = min(3, last) * stride
  let a = f32x4.splat(0)
  let b = a
  let d: usize = 0
  for (; d + 4 <= depth; d += 4, x += 16, z += 16, w += 4 * sizeof<T>()) {
    const p = load4<T>(w)
    const q = load4<T>(w + w1)
    const r = load4<T>(w + w2)
    const s = load4<T>(w + w3)
    a = four<T>(a, x, p, q, r, s)
    b = four<T>(b, z, p, q, r, s)
  }
  for (; d < depth; d++, x += 4, z += 4, w += sizeof<T>()) {
    const v = column<T>(w, w + w1, w + w2, w + w3)
    a = madd(a, v128.load_splat<f32>(x), v)
    b = madd(b, v128.load_splat<f32>(z), v)
  }
  v128.store(y, a)
  v128.store(y, b, COLUMNS * 4)
}

// One column of four rows of weights.
@inline
function column<T>(w0: usize, w1: usize, w2: usize, w3: usize): v128 {
  const pq = v128.shuffle<f32>(load1<T>(w0), load1<T>(w1), 0, 4, 0, 4)
  const rs = v128.shuffle<f32>(load1<T>(w2), load1<T>(w3), 0, 4, 0, 4)
  return v128.shuffle<f32>(pq, rs, 0, 1, 4, 5)
}
