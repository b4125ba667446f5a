// Sets negative values to zero in place.
//
//   x[n, d] = max(x[n, d], 0)
//
// x  [N, D]  in place
//
// dispatch  ceil(N * D / WG)   one thread per element
// split     N * D by 64
// flops     N * D
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
  // max() may swallow a NaN, and with it the sign of an overflow.
  x[i] = select(x[i], 0.0, x[i] < 0.0);
}
