// Looks up the embedding row of every token.
//
//   y[n, d] = table[tokens[n], d]
//
// table   [V, D]  f32 f16 bf16 q8_0
// tokens  [N]  u32     each below V
// y       [N, D]  output
//
// dispatch  N                       one workgroup per row
// split     N
// flops     0
// bytes     (4 + STORED) * N * D + 4 * N
// source    definition

const WG = 64u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = wg.y * groups.x + wg.x;
  if (n >= params.N) {
    return;
  }
  let D = params.D;
  let token = min(tokens[n], params.V - 1u);
  let whole = D / 4u * 4u;
  for (var d = 4u * lane; d < whole; d += 4u * WG) {
    let values = stored4_at(token, d);
    for (var i = 0u; i < 4u; i++) {
      y[n * D + d + i] = values[i];
    }
  }
  for (var d = whole + lane; d < D; d += WG) {
    y[n * D + d] = stored_at(token, d);
  }
}
