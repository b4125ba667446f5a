// y = x weight^T for a few rows.

import { loadPart, madd, storePart, sumRows } from '../math'
import { scratch } from '../scratch'
import { widen } from '../widen'

// Terms of a sum that are added before the sum goes to y: bounds the scratch memory, and the rounding error.
const DEPTH: usize = 2048

// y[n, o] for all n and start <= o < end. The weights are read once, four of their rows at a time, and stay in the cache for
// all rows of x. Each sum is kept in four lanes, so nothing is packed; whatever is not f32 is widened into scratch memory first.
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
  for (let o = start; o < end; o += 4) {
    const columns = min<usize>(4, end - o)
    for (let d: usize = 0; d < D; d += DEPTH) {
      const depth = min(DEPTH, D - d)
      const first = o * D + d
      let w = weight + first * 4
      let stride: usize = D * 4
      if (!isFloat<T>()) {
        for (let c: usize = 0; c < columns; c++)
          widen<T>(weight, weight_scale, first + c * D, depth, scratch + c * DEPTH * 4)
        w = scratch
        stride = DEPTH * 4
      }
      const w1 = w + min(1, columns - 1) * stride
      const w2 = w + min(2, columns - 1) * stride
      const w3 = w + min(3, columns - 1) * stride
      for (let n: usize = 0; n < N; n += 2) {
        const to = y + (n * O + o) * 4
        const from = x + (n * D + d) * 4
        if (n + 1 < N) dot2(from, from + D * 4, w, w1, w2, w3, depth, to, to + O * 4, <u32>columns, d > 0)
        else dot1(from, w, w1, w2, w3, depth, to, <u32>columns, d > 0)
      }
    }
  }
}

// Two rows of x times four rows of weights. The exits between the steps are there for the reason given at `tile`.
function dot2(
  x0: usize,
  x1: usize,
  w0: usize,
  w1: usize,
  w2: usize,
  w3: usize,
  depth: usize,
  y0: usize,
  y1: usize,
  columns: u32,
  accumulate: bool,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let a2 = a0
  let a3 = a0
  let b0 = a0
  let b1 = a0
  let b2 = a0
  let b3 = a0
  let p: v128
  let q: v128
  let s: v128
  const whole = (depth & ~3) * 4
  const rest = <u32>depth & 3
  if (rest) {
    p = loadPart(x0 + whole, rest), q = loadPart(x1 + whole, rest)
    s = loadPart(w0 + whole, rest), a0 = f32x4.mul(p, s), b0 = f32x4.mul(q, s)
    s = loadPart(w1 + whole, rest), a1 = f32x4.mul(p, s), b1 = f32x4.mul(q, s)
    s = loadPart(w2 + whole, rest), a2 = f32x4.mul(p, s), b2 = f32x4.mul(q, s)
    s = loadPart(w3 + whole, rest), a3 = f32x4.mul(p, s), b3 = f32x4.mul(q, s)
  }
  let left = <isize>depth >> 2
  while (left > 0) {
    p = v128.load(x0), q = v128.load(x1)
    s = v128.load(w0), a0 = madd(a0, p, s), b0 = madd(b0, q, s)
    s = v128.load(w1), a1 = madd(a1, p, s), b1 = madd(b1, q, s)
    s = v128.load(w2), a2 = madd(a2, p, s), b2 = madd(b2, q, s)
    s = v128.load(w3), a3 = madd(a3, p, s), b3 = madd(b3, q, s)
    if (left == 1) break
    p = v128.load(x0, 16), q = v128.load(x1, 16)
    s = v128.load(w0, 16), a0 = madd(a0, p, s), b0 = madd(b0, q, s)
    s = v128.load(w1, 16), a1 = madd(a1, p, s), b1 = madd(b1, q, s)
    s = v128.load(w2, 16), a2 = madd(a2, p, s), b2 = madd(b2, q, s)
    s = v128.load(w3, 16), a3 = madd(a3, p, s), b3 = madd(b3, q, s)
    if (left == 2) break
    p = v128.load(x0, 32), q = v128.load(x1, 32)
    s = v128.load(w0, 32), a0 = madd(a0, p, s), b0 = madd(b0, q, s)
    s = v128.load(w1, 32), a1 = madd(a1, p, s), b1 = madd(b1, q, s)
    s = v128.load(w2, 32), a2 = madd(a2, p, s), b2 = madd(b2, q, s)
    s = v128.load(w3, 32), a3 = madd(a3, p, s), b3 = madd(b3, q, s)
    if (left == 3) break
    p = v128.load(x0, 48), q = v128.load(x1, 48)
    s = v128.load(w0, 48), a0 = madd(a0, p, s), b0 = madd(b0, q, s)
    s = v128.load(w1, 48), a1 = madd(a1, p, s), b1 = madd(b1, q, s)
    s = v128.load(w2, 48), a2 = madd(a2, p, s), b2 = madd(b2, q, s)
    s = v128.load(w3, 48), a3 = madd(a3, p, s), b3 = madd(b3, q, s)
    x0 += 64, x1 += 64
    w0 += 64, w1 += 64, w2 += 64, w3 += 64
    left -= 4
  }
  put(y0, sumRows(a0, a1, a2, a3), columns, accumulate)
  put(y1, sumRows(b0, b1, b2, b3), columns, accumulate)
}

// One row of x times four rows of weights, with the same order of sums.
function dot1(
  x0: usize,
  w0: usize,
  w1: usize,
  w2: usize,
  w3: usize,
  depth: usize,
  y: usize,
  columns: u32,
  accumulate: bool,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let a2 = a0
  let a3 = a0
  let p: v128
  const whole = (depth & ~3) * 4
  const rest = <u32>depth & 3
  if (rest) {
    p = loadPart(x0 + whole, rest)
    a0 = f32x4.mul(p, loadPart(w0 + whole, rest)), a1 = f32x4.mul(p, loadPart(w1 + whole, rest))
    a2 = f32x4.mul(p, loadPart(w2 + whole, rest)), a3 = f32x4.mul(p, loadPart(w3 + whole, rest))
  }
  let left = <isize>depth >> 2
  while (left > 0) {
    p = v128.load(x0)
    a0 = madd(a0, p, v128.load(w0)), a1 = madd(a1, p, v128.load(w1))
    a2 = madd(a2, p, v128.load(w2)), a3 = madd(a3, p, v128.load(w3))
    if (left == 1) break
    p = v128.load(x0, 16)
    a0 = madd(a0, p, v128.load(w0, 16)), a1 = madd(a1, p, v128.load(w1, 16))
    a2 = madd(a2, p, v128.load(w2, 16)), a3 = madd(a3, p, v128.load(w3, 16))
    if (left == 2) break
    p = v128.load(x0, 32)
    a0 = madd(a0, p, v128.load(w0, 32)), a1 = madd(a1, p, v128.load(w1, 32))
    a2 = madd(a2, p, v128.load(w2, 32)), a3 = madd(a3, p, v128.load(w3, 32))
    if (left == 3) break
    p = v128.load(x0, 48)
    a0 = madd(a0, p, v128.load(w0, 48)), a1 = madd(a1, p, v128.load(w1, 48))
    a2 = madd(a2, p, v128.load(w2, 48)), a3 = madd(a3, p, v128.load(w3, 48))
    x0 += 64
    w0 += 64, w1 += 64, w2 += 64, w3 += 64
    left -= 4
  }
  put(y, sumRows(a0, a1, a2, a3), columns, accumulate)
}

@inline
function put(y: usize, sums: v128, columns: u32, accumulate: bool): void {
  storePart(y, accumulate ? f32x4.add(loadPart(y, columns), sums) : sums, columns)
}
