// Applies a linear map without bias to many rows.
//
//   y[n, o] = sum over d of x[n, d] * weight[o, d]
//
// x       [N, D]
// weight  [O, D]  f32 f16 bf16 q8_0
// y       [N, O]  output
//
// uses      tile
// dispatch  ceil(O / TILE), ceil(N / TILE)   one workgroup per tile of outputs
// split     O by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + N * O) + STORED * O * D
// source    definition

fn rows() -> u32 {
  return params.N;
}
fn columns() -> u32 {
  return params.O;
}
fn depth() -> u32 {
  return params.D;
}
fn left(n: u32, d: u32) -> f32 {
  return x[n * params.D + d];
}
fn right(o: u32, d: u32) -> f32 {
  return stored_at(o, d);
}
fn put(n: u32, o: u32, value: f32) {
  y[n * params.O + o] = value;
}
// Neighbours load neighbouring terms, which lie side by side in a row of the weights.
fn place(i: u32) -> vec2u {
  return vec2u(i % DEPTH, i / DEPTH);
}
