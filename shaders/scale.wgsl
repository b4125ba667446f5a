// Multiplies every element by a number.
//
//   x[n] = x[n] * factor
//
// x  [N]  in place
//
// scalar    factor
// dispatch  ceil(N / WG)   one thread per element
// split     N by 64
// flops     N
// bytes     8 * N
// source    definition

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N) {
    return;
  }
  x[i] = x[i] * params.factor;
}
