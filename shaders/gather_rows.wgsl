// Copies chosen rows.
//
//   y[b, d] = x[rows[b], d]
//
// x     [N, D]
// rows  [B]  u32  each below N
// y     [B, D]  output
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
  let D = params.D;
  y[i] = x[min(rows[i / D], params.N - 1u) * D + i % D];
}
