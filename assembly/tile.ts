// The register tile of the matrix products: four rows by eight columns, the packing of its right operand, its edges.

import { madd } from './math'
import { firsts, inPairs, seconds, stored1, stored4, UPPER } from './widen'

// Columns of a packed panel.
export const COLUMNS: usize = 8
// Rows of a tile.
export const ROWS: usize = 4

// Four rows become four columns in two steps: lanes 0 and 1 of two rows in turn, or lanes 2 and 3; then what came from one lane.
@inline
export function lowHalves(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 0, 4, 1, 5)
}

@inline
export function highHalves(a: v128, b: v128): v128 {
  return v128.shuffle<f32>(a, b, 2, 6, 3, 7)
}

@inline
export function evenQuarters(ab: v128, ce: v128): v128 {
  return v128.shuffle<f32>(ab, ce, 0, 1, 4, 5)
}

@inline
export function oddQuarters(ab: v128, ce: v128): v128 {
  return v128.shuffle<f32>(ab, ce, 2, 3, 6, 7)
}

// Packs eight rows of f32 values, `depth` of each, as panel[d, column]; `stride` is the distance of rows in bytes.
// Rows from `count` on repeat the last one, so that nothing behind the matrix is read.
export function pack<T>(from: usize, stride: usize, count: usize, depth: usize, panel: usize): void {
  pack_stored<T>(from, 0, 0, stride / sizeof<T>(), count, depth, panel)
}

// The same of a stored matrix with rows of `width` values, from value number `first` on.
export function pack_stored<T>(
  values: usize,
  scales: usize,
  first: usize,
  width: usize,
  count: usize,
  depth: usize,
  panel: usize,
): void {
  for (let half: usize = 0; half < COLUMNS; half += 4) {
    const row0 = first + min(half, count - 1) * width
    const row1 = first + min(half + 1, count - 1) * width
    const row2 = first + min(half + 2, count - 1) * width
    const row3 = first + min(half + 3, count - 1) * width
    let to = panel + half * 4
    let d: usize = 0
    if (inPairs<T>()) {
      const upper = v128.load_splat<u32>(UPPER)
      for (; d + 8 <= depth; d += 8, to += 8 * COLUMNS * 4) {
        const a = v128.load(values + (row0 + d) * 2)
        const b = v128.load(values + (row1 + d) * 2)
        const c = v128.load(values + (row2 + d) * 2)
        const e = v128.load(values + (row3 + d) * 2)
        const ab0 = lowHalves(a, b)
        const ce0 = lowHalves(c, e)
        let pairs = evenQuarters(ab0, ce0)
        v128.store(to, firsts(pairs))
        v128.store(to, seconds(pairs, upper), 32)
        pairs = oddQuarters(ab0, ce0)
        v128.store(to, firsts(pairs), 64)
        v128.store(to, seconds(pairs, upper), 96)
        const ab1 = highHalves(a, b)
        const ce1 = highHalves(c, e)
        pairs = evenQuarters(ab1, ce1)
        v128.store(to, firsts(pairs), 128)
        v128.store(to, seconds(pairs, upper), 160)
        pairs = oddQuarters(ab1, ce1)
        v128.store(to, firsts(pairs), 192)
        v128.store(to, seconds(pairs, upper), 224)
      }
    }
    for (; d + 4 <= depth; d += 4, to += 4 * COLUMNS * 4) {
      const a = stored4<T>(values, scales, row0 + d)
      const b = stored4<T>(values, scales, row1 + d)
      const c = stored4<T>(values, scales, row2 + d)
      const e = stored4<T>(values, scales, row3 + d)
      const ab0 = lowHalves(a, b)
      const ab1 = highHalves(a, b)
      const ce0 = lowHalves(c, e)
      const ce1 = highHalves(c, e)
      v128.store(to, evenQuarters(ab0, ce0))
      v128.store(to, oddQuarters(ab0, ce0), 32)
      v128.store(to, evenQuarters(ab1, ce1), 64)
      v128.store(to, oddQuarters(ab1, ce1), 96)
    }
    for (; d < depth; d++, to += COLUMNS * 4) {
      v128.store_lane<f32>(to, stored1<T>(values, scales, row0 + d), 0)
      v128.store_lane<f32>(to, stored1<T>(values, scales, row1 + d), 0, 4)
      v128.store_lane<f32>(to, stored1<T>(values, scales, row2 + d), 0, 8)
      v128.store_lane<f32>(to, stored1<T>(values, scales, row3 + d), 0, 12)
    }
  }
}

// y[r, c] = sum over d of x_r[d] * panel[d, c] (or y += with `accumulate`), summed in the order of d. The rows of x
// start at x0 to x3, those of y lie `stride` bytes apart.
//
// An exit stands between all of the four steps, though the loop needs it only for a rest: V8 orders the arithmetic of
// a basic block by result, and four steps in one block then need more registers than there are.
export function tile(
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  panel: usize,
  depth: usize,
  y: usize,
  stride: usize,
  accumulate: bool,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  let d0 = a0
  let d1 = a0
  let w0: v128
  let w1: v128
  let s: v128
  let left = <isize>depth
  while (left > 0) {
    w0 = v128.load(panel), w1 = v128.load(panel, 16)
    s = v128.load_splat<f32>(x0), a0 = madd(a0, s, w0), a1 = madd(a1, s, w1)
    s = v128.load_splat<f32>(x1), b0 = madd(b0, s, w0), b1 = madd(b1, s, w1)
    s = v128.load_splat<f32>(x2), c0 = madd(c0, s, w0), c1 = madd(c1, s, w1)
    s = v128.load_splat<f32>(x3), d0 = madd(d0, s, w0), d1 = madd(d1, s, w1)
    if (left == 1) break
    w0 = v128.load(panel, 32), w1 = v128.load(panel, 48)
    s = v128.load_splat<f32>(x0, 4), a0 = madd(a0, s, w0), a1 = madd(a1, s, w1)
    s = v128.load_splat<f32>(x1, 4), b0 = madd(b0, s, w0), b1 = madd(b1, s, w1)
    s = v128.load_splat<f32>(x2, 4), c0 = madd(c0, s, w0), c1 = madd(c1, s, w1)
    s = v128.load_splat<f32>(x3, 4), d0 = madd(d0, s, w0), d1 = madd(d1, s, w1)
    if (left == 2) break
    w0 = v128.load(panel, 64), w1 = v128.load(panel, 80)
    s = v128.load_splat<f32>(x0, 8), a0 = madd(a0, s, w0), a1 = madd(a1, s, w1)
    s = v128.load_splat<f32>(x1, 8), b0 = madd(b0, s, w0), b1 = madd(b1, s, w1)
    s = v128.load_splat<f32>(x2, 8), c0 = madd(c0, s, w0), c1 = madd(c1, s, w1)
    s = v128.load_splat<f32>(x3, 8), d0 = madd(d0, s, w0), d1 = madd(d1, s, w1)
    if (left == 3) break
    w0 = v128.load(panel, 96), w1 = v128.load(panel, 112)
    s = v128.load_splat<f32>(x0, 12), a0 = madd(a0, s, w0), a1 = madd(a1, s, w1)
    s = v128.load_splat<f32>(x1, 12), b0 = madd(b0, s, w0), b1 = madd(b1, s, w1)
    s = v128.load_splat<f32>(x2, 12), c0 = madd(c0, s, w0), c1 = madd(c1, s, w1)
    s = v128.load_splat<f32>(x3, 12), d0 = madd(d0, s, w0), d1 = madd(d1, s, w1)
    x0 += 16, x1 += 16, x2 += 16, x3 += 16
    panel += 128
    left -= 4
  }
  put(y, a0, a1, accumulate)
  put(y + stride, b0, b1, accumulate)
  put(y + 2 * stride, c0, c1, accumulate)
  put(y + 3 * stride, d0, d1, accumulate)
}

@inline
function put(y: usize, left: v128, right: v128, accumulate: bool): void {
  if (accumulate) {
    left = f32x4.add(v128.load(y), left)
    right = f32x4.add(v128.load(y, 16), right)
  }
  v128.store(y, left)
  v128.store(y, right, 16)
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
