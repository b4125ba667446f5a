// Reads a matrix stored as q8_0, the format of GGUF in two tensors: value = scale of its block * whole number.
//
// stored        [R, D]       i8    four a word
// stored_scale  [R, D / 32]  f16   one for 32 values of a row
//
// bytes         1 + 2 / 32   a value

fn stored_at(row: u32, column: u32) -> f32 {
  let i = row * row_length() + column;
  // With the sign turned round, a byte counts up from -128.
  let byte = ((stored[i / 4u] >> (8u * (i % 4u))) ^ 128u) & 255u;
  return (f32(byte) - 128.0) * scale_at(i / 32u);
}

fn stored4_at(row: u32, column: u32) -> vec4f {
  let i = row * row_length() + column;
  let word = stored[i / 4u];
  let words = vec4u(word << 24u, word << 16u, word << 8u, word);
  return vec4f(vec4i(words) >> vec4u(24u)) * scale_at(i / 32u);
}

fn scale_at(b: u32) -> f32 {
  return unpack2x16float(stored_scale[b / 2u])[b % 2u];
}
