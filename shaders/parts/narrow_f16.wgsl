// Writes to a matrix stored as f16, of an even number of columns and at even ones: two values are a word.

fn store2_at(row: u32, column: u32, a: f32, b: f32) {
  stored[(row * row_length() + column) / 2u] = f16_of(a) | (f16_of(b) << 16u);
}

// The bits of the nearest f16, half to even, the largest where a number is too large: by integers, for the same bits on every
// GPU. Numbers that are subnormal as f16 are rounded by an addition that shifts their bits to the end.
fn f16_of(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let all = bits & 0x7fffffffu;
  let size = min(all, 0x477fe000u);
  let tiny = bitcast<u32>(bitcast<f32>(size) + 0.5) - 0x3f000000u;
  let scaled = max(size, 0x38800000u) - 0x38000000u;
  let normal = (scaled + 0xfffu + ((scaled >> 13u) & 1u)) >> 13u;
  let number = select(normal, tiny, size < 0x38800000u);
  return select(number, 0x7e00u, all > 0x7f800000u) | ((bits >> 16u) & 0x8000u);
}
