// Adds a gradient through a linear map to the gradient of its input.
//
//   dx[n, d] += sum over o of dy[n, o] * weight[o, d]
//
// dy      [N, O]
// weight  [O, D]  f32 f16 bf16
// dx      [N, D]  in place
//
// uses      tile
// dispatch  ceil(D / TILE), ceil(N / TILE)   one workgroup per tile of dx
// split     D by 8
// flops     2 * N * D * O
// bytes     4 * (2 * N * D + N * O) + STORED * O * D
// source    derivative of linear
//
// Also the second half of a LoRA branch, y += h B^T with B^T [r, O] in the place of the weight.

fn rows() -> u32 {
  return params.N;
}
fn columns() -> u32 {
  return params.D;
}
fn depth() -> u32 {
  return params.O;
}
fn left(n: u32, o: u32) -> f32 {
  return dy[n * params.O + o];
}
fn right(d: u32, o: u32) -> f32 {
  return stored_at(o, d);
}
fn put(n: u32, d: u32, value: f32) {
  dx[n * params.D + d] += value;
}
// Neighbours load neighbouring columns, which lie side by side in a row of the weights.
fn place(i: u32) -> vec2u {
  return vec2u(i / SLOTS, i % SLOTS);
}
