// Adds one bias to every row in place.
//
//   x[n, o] += bias[o]
//
// x     [N, O]  in place
// bias  [O]
//
// dispatch  ceil(N * O / WG)   one thread per element
// split     N
// flops     N * O
// bytes     4 * (2 * N * O + O)
// source    definition

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.O) {
    return;
  }
  x[i] += bias[i % params.O];
}
