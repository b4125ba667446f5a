// The linear map y = x weight^T for each storage type of the weights: tiled for many rows, streamed for a few.

import { loadPart, madd, storePart, sumRows } from './math'
import { scratch } from './scratch'
import { COLUMNS, ROWS, pack, tile } from './tile'
import { widen } from './widen'

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

// The same for a few rows: the weights are read once, four of their rows at a time, and stay in the cache for all rows
// of x. Each sum is kept in four lanes, so nothing is packed; 16-bit weights are widened into scratch memory first.
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
  for (let o = start; o < end; o += 4) {
    const columns = min<usize>(4, end - o)
    for (let d: usize = 0; d < D; d += DEPTH) {
      const depth = min(DEPTH, D - d)
      let w = weight + (o * D + d) * sizeof<T>()
      let stride = D * sizeof<T>()
      if (!isFloat<T>()) {
        for (let c: usize = 0; c < columns; c++) widen<T>(w + c * stride, depth, scratch + c * DEPTH * 4)
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
