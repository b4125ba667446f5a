// Adds one tensor to another in place, as the residual stream does.
//
//   x[n, d] += y[n, d]
//
// x  [N, D]  in place
// y  [N, D]
//
// dispatch  ceil(N * D / WG)   one thread per element
// split     N * D by 64
// flops     N * D
// bytes     12 * N * D
// source    definition

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.D) {
    return;
  }
  x[i] += y[i];
}
