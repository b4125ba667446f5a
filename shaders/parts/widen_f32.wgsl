// Reads a matrix stored as f32.
//
// stored  [R, D]  f32
//
// bytes   4   a value

fn stored_at(row: u32, column: u32) -> f32 {
  return stored[row * row_length() + column];
}
