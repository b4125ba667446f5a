// Reads a matrix stored as bf16, two values a word.
//
// stored  [R, D]  bf16
//
// bytes   2   a value

// The upper half of a float32.
fn stored_at(row: u32, column: u32) -> f32 {
  let i = row * row_length() + column;
  return bitcast<f32>((stored[i >> 1u] >> ((i & 1u) * 16u)) << 16u);
}

fn stored4_at(row: u32, column: u32) -> vec4f {
  let words = words_at(row * row_length() + column);
  return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

// Values i to i + 3; they begin in the middle of a word where i is odd.
fn words_at(i: u32) -> vec2u {
  let words = vec3u(stored[i >> 1u], stored[(i >> 1u) + 1u], stored[(i + 3u) >> 1u]);
  return select(words.xy, (words.xy >> vec2u(16u)) | (words.yz << vec2u(16u)), (i & 1u) == 1u);
}
