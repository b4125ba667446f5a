// Puts rows in their places in a matrix; other rows stay as they are.
//
//   y[rows[b], d] = x[b, d]
//
// x     [B, D]
// rows  [B]     u32   no number twice, all below N
// y     [N, D]  in place
//
// dispatch  ceil(B * D / WG)   one thread per element
// split     B
// flops     0
// bytes     8 * B * D + 4 * B
// source    definition

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.B * params.D) {
    return;
  }
  let b = i / params.D;
  y[rows[b] * params.D + i % params.D] = x[i];
}
