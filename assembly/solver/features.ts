// The feature matrix in its storage type: products with it in f64, and the gathering of columns into a panel.
//
// x is row-major [rows, stride], f32 or bf16, stride a multiple of 8 with zeros in the padding; the column behind the features
// is all ones and stands for the intercept. Every function works on a range of rows or columns, so that threads share the
// work, and the order of each sum depends on its operands alone.

import { load4 } from '../widen'

/** Rows that stay in the second-level cache while their columns are gathered. */
const TILE: u32 = 32

@inline
function load1<T>(from: usize): f32 {
  return isFloat<T>() ? load<f32>(from) : reinterpret<f32>((<u32>load<u16>(from)) << 16)
}

/**
 * panel[b, k, lane] = x[rows[k], columns[16 b + lane]] for k in [start, end), `blocks` blocks of 16, in the storage type.
 *
 * rows     u32 [count]
 * columns  u32 [16 blocks]
 * panel    T [blocks, count, 16]
 */
export function gather<T>(
  x: usize,
  stride: u32,
  rows: usize,
  count: u32,
  columns: usize,
  blocks: u32,
  panel: usize,
  start: u32,
  end: u32,
): void {
  for (let from = start; from < end; from += TILE) {
    const until = min(from + TILE, end)
    for (let b: u32 = 0; b < blocks; b++) {
      const at = columns + ((<usize>b) << 6)
      let to = panel + (<usize>b * count + from) * 16 * sizeof<T>()
      for (let k = from; k < until; k++) {
        const row = x + <usize>load<u32>(rows + ((<usize>k) << 2)) * stride * sizeof<T>()
        for (let lane: usize = 0; lane < 64; lane += 16, to += 4 * sizeof<T>()) {
          store<T>(to, load<T>(row + <usize>load<u32>(at + lane) * sizeof<T>()))
          store<T>(to, load<T>(row + <usize>load<u32>(at + lane, 4) * sizeof<T>()), sizeof<T>())
          store<T>(to, load<T>(row + <usize>load<u32>(at + lane, 8) * sizeof<T>()), 2 * sizeof<T>())
          store<T>(to, load<T>(row + <usize>load<u32>(at + lane, 12) * sizeof<T>()), 3 * sizeof<T>())
        }
      }
    }
  }
}

/**
 * out[k] = sum over c of x[rows[k], columns[c]] * w[c] for k in [start, end).
 *
 * columns  u32 [count]
 * w        f64 [count]
 * rows     u32 [*]
 * out      f64 [*]
 */
export function times<T>(
  x: usize,
  stride: u32,
  columns: usize,
  w: usize,
  count: u32,
  rows: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  const whole = count & ~3
  for (let k: u32 = start; k < end; k++) {
    const from = x + <usize>load<u32>(rows + ((<usize>k) << 2)) * stride * sizeof<T>()
    let s0: f64 = 0
    let s1: f64 = 0
    let s2: f64 = 0
    let s3: f64 = 0
    let at = columns
    let by = w
    for (let c: u32 = 0; c < whole; c += 4, at += 16, by += 32) {
      s0 += <f64>load1<T>(from + load<u32>(at) * sizeof<T>()) * load<f64>(by)
      s1 += <f64>load1<T>(from + load<u32>(at, 4) * sizeof<T>()) * load<f64>(by, 8)
      s2 += <f64>load1<T>(from + load<u32>(at, 8) * sizeof<T>()) * load<f64>(by, 16)
      s3 += <f64>load1<T>(from + load<u32>(at, 12) * sizeof<T>()) * load<f64>(by, 24)
    }
    for (let c = whole; c < count; c++, at += 4, by += 8) {
      s0 += <f64>load1<T>(from + load<u32>(at) * sizeof<T>()) * load<f64>(by)
    }
    store<f64>(out + ((<usize>k) << 3), s0 + s1 + (s2 + s3))
  }
}

/**
 * partial[b, j] = sum over k in block b of s[k] * x[rows[k], j], for the blocks of `size` entries in [start, end).
 *
 * rows     u32 [count]
 * s        f64 [count]
 * partial  f64 [blocks, stride]
 */
export function transposed<T>(
  x: usize,
  stride: u32,
  rows: usize,
  s: usize,
  count: u32,
  size: u32,
  partial: usize,
  start: u32,
  end: u32,
): void {
  for (let b = start; b < end; b++) {
    const to = partial + ((<usize>b * stride) << 3)
    memory.fill(to, 0, (<usize>stride) << 3)
    addRows<T>(x, stride, rows, s, b * size, min((b + 1) * size, count), to)
  }
}

/** Adds the partial sums f64 [blocks, stride] to g, f64 [stride], in the order of the blocks, for columns in [8 start, 8 end). */
export function add_partials(partial: usize, blocks: u32, stride: u32, g: usize, start: u32, end: u32): void {
  const rowBytes = (<usize>stride) << 3
  for (let at = (<usize>start) << 6; at < (<usize>end) << 6; at += 16) {
    let sum = v128.load(g + at)
    let from = partial + at
    for (let b: u32 = 0; b < blocks; b++, from += rowBytes) sum = f64x2.add(sum, v128.load(from))
    v128.store(g + at, sum)
  }
}

function addRows<T>(x: usize, stride: u32, rows: usize, s: usize, begin: u32, count: u32, g: usize): void {
  const rowBytes = <usize>stride * sizeof<T>()
  const stop = g + ((<usize>stride) << 3)
  let k = begin
  for (; k + 4 <= count; k += 4) {
    const at = rows + ((<usize>k) << 2)
    const by = s + ((<usize>k) << 3)
    let x0 = x + load<u32>(at) * rowBytes
    let x1 = x + load<u32>(at, 4) * rowBytes
    let x2 = x + load<u32>(at, 8) * rowBytes
    let x3 = x + load<u32>(at, 12) * rowBytes
    const s0 = v128.load_splat<f64>(by)
    const s1 = v128.load_splat<f64>(by, 8)
    const s2 = v128.load_splat<f64>(by, 16)
    const s3 = v128.load_splat<f64>(by, 24)
    for (let to = g; to < stop; to += 32) {
      const v0 = load4<T>(x0)
      const v1 = load4<T>(x1)
      const v2 = load4<T>(x2)
      const v3 = load4<T>(x3)
      let low = f64x2.add(v128.load(to), f64x2.mul(f64x2.promote_low_f32x4(v0), s0))
      let high = f64x2.add(v128.load(to, 16), f64x2.mul(promoteHigh(v0), s0))
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v1), s1))
      high = f64x2.add(high, f64x2.mul(promoteHigh(v1), s1))
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v2), s2))
      high = f64x2.add(high, f64x2.mul(promoteHigh(v2), s2))
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v3), s3))
      high = f64x2.add(high, f64x2.mul(promoteHigh(v3), s3))
      v128.store(to, low)
      v128.store(to, high, 16)
      x0 += 4 * sizeof<T>()
      x1 += 4 * sizeof<T>()
      x2 += 4 * sizeof<T>()
      x3 += 4 * sizeof<T>()
    }
  }
  for (; k < count; k++) {
    let x0 = x + load<u32>(rows + ((<usize>k) << 2)) * rowBytes
    const s0 = v128.load_splat<f64>(s + ((<usize>k) << 3))
    for (let to = g; to < stop; to += 32, x0 += 4 * sizeof<T>()) {
      const v = load4<T>(x0)
      v128.store(to, f64x2.add(v128.load(to), f64x2.mul(f64x2.promote_low_f32x4(v), s0)))
      v128.store(to, f64x2.add(v128.load(to, 16), f64x2.mul(promoteHigh(v), s0)), 16)
    }
  }
}

/** partial[b, j] = sum over the rows of block b of x[row, j]^2, for the blocks of `size` rows in [start, end). */
export function squares<T>(x: usize, stride: u32, rows: u32, size: u32, partial: usize, start: u32, end: u32): void {
  for (let b = start; b < end; b++) {
    const to = partial + ((<usize>b * stride) << 3)
    memory.fill(to, 0, (<usize>stride) << 3)
    const last = min((b + 1) * size, rows)
    for (let row = b * size; row < last; row++) {
      const at = x + <usize>row * stride * sizeof<T>()
      for (let j: usize = 0; j < <usize>stride; j += 4) {
        const v = load4<T>(at + j * sizeof<T>())
        const low = f64x2.promote_low_f32x4(v)
        const high = promoteHigh(v)
        const sum = to + (j << 3)
        v128.store(sum, f64x2.add(v128.load(sum), f64x2.mul(low, low)))
        v128.store(sum, f64x2.add(v128.load(sum, 16), f64x2.mul(high, high)), 16)
      }
    }
  }
}

@inline
function promoteHigh(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3))
}
