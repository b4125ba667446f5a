// Writes to a matrix stored as f32.

fn store2_at(row: u32, column: u32, a: f32, b: f32) {
  stored[row * row_length() + column] = a;
  stored[row * row_length() + column + 1u] = b;
}
