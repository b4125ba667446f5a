// Reads a matrix stored as f16, two values a word.
//
// stored  [R, D]  f16
//
// bytes   2   a value

fn stored_at(row: u32, column: u32) -> f32 {
  let i = row * row_length() + column;
  return unpack2x16float(stored[i >> 1u])[i & 1u];
}

fn stored4_at(row: u32, column: u32) -> vec4f {
  let words = words_at(row * row_length() + column);
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Values i to i + 3; they begin in the middle of a word where i is odd.
fn words_at(i: u32) -> vec2u {
  let words = vec3u(stored[i >> 1u], stored[(i >> 1u) + 1u], stored[(i + 3u) >> 1u]);
  return select(words.xy, (words.xy >> vec2u(16u)) | (words.yz << vec2u(16u)), (i & 1u) == 1u);
}
