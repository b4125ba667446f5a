// Copies rows into a larger matrix from a given row on, as a cache takes new keys.
//
//   y[first + n, d] = x[n, d]
//
// x  [N, D]
// y  [M, D]  in place   other rows keep what they hold
//
// scalar    first u32        rows that would lie past the end are left out
// dispatch  ceil(N * D / WG)   one thread per element
// split     N
// flops     0
// bytes     8 * N * D
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
  // Compared like this, no sum can wrap.
  if (params.first < params.M && i / params.D < params.M - params.first) {
    y[params.first * params.D + i] = x[i];
  }
}
