// Four-lane arithmetic that the kernels share: part loads, horizontal sums, the exponential.

// a + x * w in each lane, with two roundings: fused arithmetic is not part of fixed-width SIMD.
@inline
export function madd(a: v128, x: v128, w: v128): v128 {
  return f32x4.add(a, f32x4.mul(x, w))
}

// Up to four consecutive floats at `from`; lanes from `count` on are zero and their memory is not read.
@inline
export function loadPart(from: usize, count: u32): v128 {
  return count >= 4 ? v128.load(from) : loadRest(from, count)
}

function loadRest(from: usize, count: u32): v128 {
  if (count == 1) return v128.load32_zero(from)
  const pair = v128.load64_zero(from)
  return count == 2 ? pair : v128.load_lane<f32>(from, pair, 2, 8)
}

// Stores the first `count` lanes (all four if it is larger) and touches nothing behind them.
@inline
export function storePart(to: usize, value: v128, count: u32): void {
  if (count >= 4) v128.store(to, value)
  else storeRest(to, value, count)
}

function storeRest(to: usize, value: v128, count: u32): void {
  if (count == 1) {
    v128.store_lane<f32>(to, value, 0)
    return
  }
  v128.store_lane<f64>(to, value, 0)
  if (count == 3) v128.store_lane<f32>(to, value, 2, 8)
}

// Sum of the four lanes, (0 + 2) + (1 + 3).
@inline
export function sumLanes(a: v128): f32 {
  const pairs = f32x4.add(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1))
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1)
}

// Largest of the four lanes.
@inline
export function maxLanes(a: v128): f32 {
  const pairs = f32x4.max(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1))
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1))
}

// The constants of exp. They are read from memory, because V8 13 builds a constant vector anew wherever it is used, which
// takes three instructions instead of one.
const EXP = memory.data<f32>([
  1.44269504, 12582912, -0.693359375, 2.1219444e-4, 1.38145394e-3, 8.36874545e-3, 4.1668389e-2, 1.66665211e-1,
  4.9999994e-1, 1, -87.33,
])

// exp(x) for x up to 88, within one unit in the last place; 0 below -87.33, where the result would not be a normal
// number. x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) = 1 + r + r^2 P(r), P fitted for the least relative error (3e-9);
// ln 2 is split so that n * 0.693359375 is exact.
@inline
export function exp(x: v128): v128 {
  // Adding 1.5 * 2^23 rounds to an integer and leaves n in the low bits.
  const shift = v128.load_splat<f32>(EXP + 4)
  const one = v128.load_splat<f32>(EXP + 36)
  const shifted = madd(shift, x, v128.load_splat<f32>(EXP))
  const n = f32x4.sub(shifted, shift)
  const r = madd(madd(x, n, v128.load_splat<f32>(EXP + 8)), n, v128.load_splat<f32>(EXP + 12))
  const square = f32x4.mul(r, r)
  const low = madd(v128.load_splat<f32>(EXP + 32), r, v128.load_splat<f32>(EXP + 28))
  const high = madd(v128.load_splat<f32>(EXP + 24), r, v128.load_splat<f32>(EXP + 20))
  const p = madd(low, square, madd(high, square, v128.load_splat<f32>(EXP + 16)))
  const e = f32x4.add(one, madd(r, square, p))
  // 2^n: n into the exponent bits of 1, the rounding constant is shifted out.
  const power = i32x4.add(i32x4.shl(shifted, 23), one)
  return v128.andnot(f32x4.mul(e, power), f32x4.lt(x, v128.load_splat<f32>(EXP + 40)))
}

// ln(x) for a normal number x > 0: x = 2^k f with f in [sqrt(1/2), sqrt(2)), ln f = 2 atanh((f - 1) / (f + 1)).
export function log(x: f32): f32 {
  // The bits of sqrt(1/2); subtracting them makes the exponent field the k of that range.
  const offset = reinterpret<i32>(x) - 0x3f3504f3
  const k = offset >> 23
  const f = reinterpret<f32>((offset & 0x007fffff) + 0x3f3504f3)
  const s: f32 = (f - 1) / (f + 1)
  const z: f32 = s * s
  const series: f32 = z * (<f32>(1 / 3.0) + z * (<f32>0.2 + z * (<f32>(1 / 7.0) + z * <f32>(1 / 9.0))))
  return <f32>k * <f32>0.69314718 + 2 * (s + s * series)
}
