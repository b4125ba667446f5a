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
  return vec4f(
    stored_at(row, column),
    stored_at(row, column + 1u),
    stored_at(row, column + 2u),
    stored_at(row, column + 3u),
  );
}
