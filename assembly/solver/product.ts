// Matrix-vector products with the feature matrix, f32 elements, f64 vectors and sums.

/**
 * out[k] = sum over j of x[rows[k], j] * p[j].
 *
 * x     f32, element [row, column] at x + 4 * (row * stride + column); stride is a multiple of 4
 * rows  u32 [count]
 * p     f64 [stride]   zero beyond the real columns
 * out   f64 [count]
 */
export function times(x: usize, stride: u32, rows: usize, count: u32, p: usize, out: usize): void {
  const rowBytes: usize = (stride as usize) << 2
  for (let k: u32 = 0; k < count; ++k) {
    let at = x + (load<u32>(rows + ((k as usize) << 2)) as usize) * rowBytes
    const end = at + rowBytes
    let from = p
    let low = f64x2.splat(0)
    let high = f64x2.splat(0)
    while (at < end) {
      const v = v128.load(at)
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v), v128.load(from)))
      high = f64x2.add(high, f64x2.mul(f64x2.promote_low_f32x4(upper(v)), v128.load(from, 16)))
      at += 16
      from += 32
    }
    low = f64x2.add(low, high)
    store<f64>(out + ((k as usize) << 3), f64x2.extract_lane(low, 0) + f64x2.extract_lane(low, 1))
  }
}

/**
 * g[j] += sum over k of s[k] * x[rows[k], j].
 *
 * rows  u32 [count]
 * s     f64 [count]
 * g     f64 [stride]   in place
 */
export function timesTransposed(x: usize, stride: u32, rows: usize, s: usize, count: u32, g: usize): void {
  const rowBytes: usize = (stride as usize) << 2
  let k: u32 = 0
  // Four rows at a time, so that g is read and written once for four rows.
  for (; k + 4 <= count; k += 4) {
    const at = rows + ((k as usize) << 2)
    let x0 = x + (load<u32>(at) as usize) * rowBytes
    let x1 = x + (load<u32>(at, 4) as usize) * rowBytes
    let x2 = x + (load<u32>(at, 8) as usize) * rowBytes
    let x3 = x + (load<u32>(at, 12) as usize) * rowBytes
    const weight = s + ((k as usize) << 3)
    const s0 = v128.load_splat<f64>(weight)
    const s1 = v128.load_splat<f64>(weight, 8)
    const s2 = v128.load_splat<f64>(weight, 16)
    const s3 = v128.load_splat<f64>(weight, 24)
    let to = g
    const end = g + 2 * rowBytes
    while (to < end) {
      const v0 = v128.load(x0)
      const v1 = v128.load(x1)
      const v2 = v128.load(x2)
      const v3 = v128.load(x3)
      let low = f64x2.mul(f64x2.promote_low_f32x4(v0), s0)
      let high = f64x2.mul(f64x2.promote_low_f32x4(upper(v0)), s0)
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v1), s1))
      high = f64x2.add(high, f64x2.mul(f64x2.promote_low_f32x4(upper(v1)), s1))
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v2), s2))
      high = f64x2.add(high, f64x2.mul(f64x2.promote_low_f32x4(upper(v2)), s2))
      low = f64x2.add(low, f64x2.mul(f64x2.promote_low_f32x4(v3), s3))
      high = f64x2.add(high, f64x2.mul(f64x2.promote_low_f32x4(upper(v3)), s3))
      v128.store(to, f64x2.add(v128.load(to), low))
      v128.store(to, f64x2.add(v128.load(to, 16), high), 16)
      x0 += 16
      x1 += 16
      x2 += 16
      x3 += 16
      to += 32
    }
  }
  for (; k < count; ++k) {
    let from = x + (load<u32>(rows + ((k as usize) << 2)) as usize) * rowBytes
    const weight = v128.load_splat<f64>(s + ((k as usize) << 3))
    let to = g
    const end = g + 2 * rowBytes
    while (to < end) {
      const v = v128.load(from)
      v128.store(to, f64x2.add(v128.load(to), f64x2.mul(f64x2.promote_low_f32x4(v), weight)))
      v128.store(to, f64x2.add(v128.load(to, 16), f64x2.mul(f64x2.promote_low_f32x4(upper(v)), weight)), 16)
      from += 16
      to += 32
    }
  }
}

// @ts-ignore: decorator
@inline
function upper(v: v128): v128 {
  return i64x2.shuffle(v, v, 1, 1)
}
