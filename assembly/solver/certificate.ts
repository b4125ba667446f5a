// The two products of a certificate, in f64: predictions X w and correlations X'u. Written apart from what the solver uses, so
// that neither can hide the other's mistakes. x is row-major [rows, stride], f32 or bf16 (see features.ts).

import { load4 } from '../widen'

/** out[row] = sum over c of x[row, index[c]] w[c], rows in [start, end); index u32 and w f64 [count]. */
export function predict<T>(
  x: usize,
  stride: u32,
  index: usize,
  w: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  for (let row = <usize>start; row < <usize>end; row++) {
    const from = x + row * stride * sizeof<T>()
    let even: f64 = 0
    let odd: f64 = 0
    for (let c: usize = 0; c < <usize>count; c++) {
      const at = from + <usize>load<u32>(index + (c << 2)) * sizeof<T>()
      const value = isFloat<T>() ? load<f32>(at) : reinterpret<f32>((<u32>load<u16>(at)) << 16)
      const term = <f64>value * load<f64>(w + (c << 3))
      if (c & 1) odd += term
      else even += term
    }
    store<f64>(out + (row << 3), even + odd)
  }
}

/**
 * partial[b, j] = sum over the rows of block b of u[row] x[row, j], or of u[row] |x[row, j]| if `absolute`, for the blocks of
 * `size` rows in [start, end). u is f64 [rows], partial f64 [blocks, stride].
 */
export function correlate<T>(
  x: usize,
  stride: u32,
  rows: u32,
  u: usize,
  size: u32,
  partial: usize,
  absolute: u32,
  start: u32,
  end: u32,
): void {
  const mask = i32x4.splat(absolute ? 0x7fffffff : -1)
  const width = <usize>stride
  for (let b = start; b < end; b++) {
    const out = partial + ((<usize>b * width) << 3)
    memory.fill(out, 0, width << 3)
    const last = min((b + 1) * size, rows)
    for (let row = b * size; row < last; row++) {
      const value = load<f64>(u + ((<usize>row) << 3))
      if (value == 0) continue
      const by = f64x2.splat(value)
      let from = x + <usize>row * width * sizeof<T>()
      for (let to = out; to < out + (width << 3); to += 64, from += 8 * sizeof<T>()) {
        const v = v128.and(mask, load4<T>(from))
        const z = v128.and(mask, load4<T>(from + 4 * sizeof<T>()))
        v128.store(to, f64x2.add(v128.load(to), f64x2.mul(by, f64x2.promote_low_f32x4(v))))
        const v1 = f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3))
        v128.store(to, f64x2.add(v128.load(to, 16), f64x2.mul(by, v1)), 16)
        v128.store(to, f64x2.add(v128.load(to, 32), f64x2.mul(by, f64x2.promote_low_f32x4(z))), 32)
        const z1 = f64x2.promote_low_f32x4(v128.shuffle<f32>(z, z, 2, 3, 2, 3))
        v128.store(to, f64x2.add(v128.load(to, 48), f64x2.mul(by, z1)), 48)
      }
    }
  }
}
