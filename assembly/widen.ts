// Reads stored weights as f32: f32 itself, IEEE half precision, bfloat16.

// The compiler tells the storage types apart by these stand-ins of the right size.
export type f16 = i16
export type bf16 = u16

// Four consecutive stored values, exactly, subnormals, infinities and NaN included.
@inline
export function load4<T>(from: usize): v128 {
  if (isFloat<T>()) return v128.load(from)
  // A bfloat16 is the upper half of an f32.
  if (!isSigned<T>()) return i32x4.shl(v128.load_ext<u16>(from), 16)
  return widenHalf(v128.load_ext<i16>(from))
}

// One stored value, in all four lanes.
@inline
export function load1<T>(from: usize): v128 {
  if (isFloat<T>()) return v128.load_splat<f32>(from)
  if (!isSigned<T>()) return i32x4.shl(i32x4.splat(load<u16>(from)), 16)
  return widenHalf(i32x4.splat(load<i16>(from)))
}

// Half precision bits, sign-extended to 32: sign, exponent and fraction move to their places in an f32, and a product
// with 2^112 corrects the exponent bias (15 to 127) of normal and subnormal numbers alike. The largest exponent, which
// means infinity or NaN, is 2^16 after that and becomes the largest exponent of f32.
@inline
function widenHalf(bits: v128): v128 {
  const moved = v128.and(i32x4.shl(bits, 13), i32x4.splat(0x8fffe000))
  const value = f32x4.mul(moved, f32x4.splat(5192296858534827628530496329220096.0))
  const special = f32x4.ge(f32x4.abs(value), f32x4.splat(65536))
  return v128.or(value, v128.and(special, i32x4.splat(0x7f800000)))
}

// `count` stored values as f32.
export function widen<T>(from: usize, count: usize, to: usize): void {
  let d: usize = 0
  for (; d + 4 <= count; d += 4) v128.store(to + d * 4, load4<T>(from + d * sizeof<T>()))
  for (; d < count; d++) v128.store_lane<f32>(to + d * 4, load1<T>(from + d * sizeof<T>()), 0)
}
