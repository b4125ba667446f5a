// Reads a matrix stored as f32.
//
// stored  [R, D]  f32
//
// bytes   4   a value

fn stored_at(row: u32, column: u32) -> f32 {
  return stored[row * row_length() + column];
}

fn stored4_at(row: u32, column: u32) -> vec4f {
  return vec4f(
    stored_at(row, column),
    stored_at(row, column + 1u),
    stored_at(row, column + 2u),
    stored_at(row, column + 3u),
  );
}
