// Reads stored weights as f32: f32 itself, IEEE half precision, bfloat16, and blocks of 32 bytes with a scale. Writes the first two.

// The compiler tells the storage types apart by these stand-ins of the right size.
export type f16 = i16
export type bf16 = u16
export type q8_0 = i8

// Constants of half precision, in memory for the reason given at `exp`: 2^112, and three masks of 16 bits.
const SCALE = memory.data<f32>([5192296858534827628530496329220096.0])
const MASKS = memory.data<u16>([0x8fff, 0x7c00, 0x7f80])

// Four consecutive stored values, exactly, subnormals, infinities and NaN included.
@inline
export function load4<T>(from: usize): v128 {
  if (isFloat<T>()) return v128.load(from)
  const v = v128.load64_zero(from)
  return rescale<T>(v128.shuffle<u16>(lower<T>(v), upper<T>(v), 0, 8, 1, 9, 2, 10, 3, 11))
}

// One stored value, in the first lane.
@inline
export function load1<T>(from: usize): v128 {
  if (isFloat<T>()) return v128.load32_zero(from)
  const v = v128.load_splat<u16>(from)
  return rescale<T>(v128.shuffle<u16>(lower<T>(v), upper<T>(v), 0, 8, 1, 9, 2, 10, 3, 11))
}

// A stored matrix has values and, if its type wants them, scales: the addresses that a kernel gets. The functions below read
// from value number `i` of the matrix on, counted row by row. Four at a time begin at a multiple of four in a row.

// Values i to i + 3.
@inline
export function stored4<T>(values: usize, scales: usize, i: usize): v128 {
  if (sizeof<T>() == 1) return scaled(i16x8.extend_low_i8x16_s(v128.load32_zero(values + i)), scale_of(scales, i))
  return load4<T>(values + i * sizeof<T>())
}

// Value i, in the first lane.
@inline
export function stored1<T>(values: usize, scales: usize, i: usize): v128 {
  if (sizeof<T>() == 1) return scaled(i16x8.splat(load<i8>(values + i)), scale_of(scales, i))
  return load1<T>(values + i * sizeof<T>())
}

// `count` values from `first` on as f32; that is the first of a row, or a multiple of 32 behind it.
export function widen<T>(values: usize, scales: usize, first: usize, count: usize, to: usize): void {
  const from = values + first * sizeof<T>()
  let i: usize = 0
  if (sizeof<T>() == 1) {
    for (; i + 32 <= count; i += 32) {
      const scale = scale_of(scales, first + i)
      for (let k = i; k < i + 32; k += 8) {
        const v = i16x8.extend_low_i8x16_s(v128.load64_zero(from + k))
        v128.store(to + k * 4, scaled(v, scale))
        v128.store(to + k * 4, scaled(v128.shuffle<u64>(v, v, 1, 0), scale), 16)
      }
    }
  } else if (!isFloat<T>()) {
    for (; i + 8 <= count; i += 8) {
      const v = v128.load(from + i * 2)
      const a = lower<T>(v)
      const b = upper<T>(v)
      v128.store(to + i * 4, rescale<T>(v128.shuffle<u16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11)))
      v128.store(to + i * 4, rescale<T>(v128.shuffle<u16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15)), 16)
    }
  }
  for (; i < count; i++) v128.store_lane<f32>(to + i * 4, stored1<T>(values, scales, first + i), 0)
}

// The scale of the block of 32 that value i of a q8_0 matrix is in, in all lanes.
@inline
function scale_of(scales: usize, i: usize): v128 {
  const scale = load1<f16>(scales + (i >> 5) * 2)
  return v128.shuffle<f32>(scale, scale, 0, 0, 0, 0)
}

// The lower four of eight 16-bit numbers, scaled: exact, for 8 and 11 bits make a product of at most 19.
@inline
function scaled(numbers: v128, scale: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(numbers)), scale)
}

// The upper 16 bits of the f32. A bfloat16 is just that. Of half precision it takes the sign, the exponent three
// places further down, and seven bits of the fraction; the largest exponent, infinity or NaN, becomes that of f32.
@inline
function upper<T>(v: v128): v128 {
  if (!isSigned<T>()) return v
  const infinity = v128.load_splat<u16>(MASKS + 2)
  const special = i16x8.eq(v128.and(v, infinity), infinity)
  const moved = v128.and(i16x8.shr_s(v, 3), v128.load_splat<u16>(MASKS))
  return v128.or(moved, v128.and(special, v128.load_splat<u16>(MASKS + 4)))
}

// The lower 16 bits of the f32: the other three bits of the fraction.
@inline
function lower<T>(v: v128): v128 {
  return isSigned<T>() ? i16x8.shl(v, 13) : i16x8.splat(0)
}

// Corrects the exponent bias of half precision, 15 for 127, by a product with 2^112: right for subnormal numbers too.
@inline
function rescale<T>(v: v128): v128 {
  return isSigned<T>() ? f32x4.mul(v, v128.load_splat<f32>(SCALE)) : v
}

// Bits of f32 for `narrow4`: the sign, the largest half, the least normal half, what the exponents differ by, one half.
const NARROW = memory.data<u32>([0x7fffffff, 0x477fe000, 0x38800000, 0x38000000, 0x3f000000, 0xfff, 1, 0x7f800000, 0x7e00])

// Stores `count` f32 values from `from` on as T, f32 or f16. Of f16 that is the nearest one, half to even, and the largest where
// a number is too large.
export function narrow<T>(from: usize, count: usize, to: usize): void {
  if (isFloat<T>()) {
    memory.copy(to, from, count * 4)
    return
  }
  let i: usize = 0
  for (; i + 4 <= count; i += 4) {
    const halves = narrow4(v128.load(from + i * 4))
    v128.store_lane<u64>(to + i * 2, i16x8.narrow_i32x4_u(halves, halves), 0)
  }
  for (; i < count; i++) store<u16>(to + i * 2, i32x4.extract_lane(narrow4(v128.load32_zero(from + i * 4)), 0))
}

// The bits of four halves, one in each lane, by integers as in shaders/parts/narrow_f16.wgsl.
@inline
function narrow4(x: v128): v128 {
  const all = v128.and(x, v128.load_splat<u32>(NARROW))
  const size = i32x4.min_s(all, v128.load_splat<u32>(NARROW + 4))
  const half = v128.load_splat<u32>(NARROW + 16)
  const tiny = i32x4.sub(f32x4.add(size, half), half)
  const least = v128.load_splat<u32>(NARROW + 8)
  const scaled = i32x4.sub(i32x4.max_s(size, least), v128.load_splat<u32>(NARROW + 12))
  const odd = v128.and(i32x4.shr_u(scaled, 13), v128.load_splat<u32>(NARROW + 24))
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(scaled, v128.load_splat<u32>(NARROW + 20)), odd), 13)
  const number = v128.bitselect(tiny, normal, i32x4.lt_s(size, least))
  const nan = i32x4.gt_s(all, v128.load_splat<u32>(NARROW + 28))
  const sign = i32x4.shl(i32x4.shr_u(x, 31), 15)
  return v128.or(v128.bitselect(v128.load_splat<u32>(NARROW + 32), number, nan), sign)
}
