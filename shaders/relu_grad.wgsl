// Lets a gradient pass where the output of a ReLU is above zero.
//
//   dy[n, d] = y[n, d] > 0 ? dy[n, d] : 0
//
// y   [N, D]
// dy  [N, D]  in place
//
// dispatch  ceil(N * D / WG)   one thread per element
// split     N * D by 4
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
  dy[i] = select(0.0, dy[i], y[i] > 0.0);
}
