// Adds the gradient of a batch to the gradient of a linear map's weights.
//
//   dweight[o, d] += sum over n of dy[n, o] * x[n, d]
//
// dy       [N, O]
// x        [N, D]
// dweight  [O, D]  in place
//
// uses      tile
// dispatch  ceil(D / TILE), ceil(O / TILE)   one workgroup per tile of dweight
// split     D by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + 2 * O * D + N * O)
// source    derivative of linear

fn rows() -> u32 {
  return params.O;
}
fn columns() -> u32 {
  return params.D;
}
fn depth() -> u32 {
  return params.N;
}
fn left(o: u32, n: u32) -> f32 {
  return dy[n * params.O + o];
}
fn right(d: u32, n: u32) -> f32 {
  return x[n * params.D + d];
}
fn put(o: u32, d: u32, value: f32) {
  dweight[o * params.D + d] += value;
}
// Neighbours load neighbouring columns, which lie side by side in a row of x.
fn place(i: u32) -> vec2u {
  return vec2u(i / SLOTS, i % SLOTS);
}
