// The sum of squares of each block of 4096, in double precision.

const BLOCK: u32 = 4096

export function square_sums(x: usize, sums: usize, N: u32, P: u32, first: u32, start: u32, end: u32): void {
  for (let b = start; b < end; b++) {
    const to = min(N, (b + 1) * BLOCK)
    let n = b * BLOCK
    let even = f64x2.splat(0)
    let odd = f64x2.splat(0)
    for (; n + 4 <= to; n += 4) {
      const four = v128.load(x + <usize>n * 4)
      const low = f64x2.promote_low_f32x4(four)
      const high = f64x2.promote_low_f32x4(v128.shuffle<f32>(four, four, 2, 3, 0, 1))
      even = f64x2.add(even, f64x2.mul(low, low))
      odd = f64x2.add(odd, f64x2.mul(high, high))
    }
    const both = f64x2.add(even, odd)
    let sum = f64x2.extract_lane(both, 0) + f64x2.extract_lane(both, 1)
    for (; n < to; n++) {
      const value = <f64>load<f32>(x + <usize>n * 4)
      sum += value * value
    }
    store<f32>(sums + <usize>(first + b) * 4, <f32>sum)
  }
}
