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
  return vec4f(
    stored_at(row, column),
    stored_at(row, column + 1u),
    stored_at(row, column + 2u),
    stored_at(row, column + 3u),
  );
}
