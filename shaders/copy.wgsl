// Copies a tensor: the bound of memory bandwidth for benchmarks.
//
//   y[n] = x[n]
//
// x  [N]  f32 as vec4u
// y  [N]  f32 as vec4u  output
//
// dispatch  ceil(N / (4 * WG))   one thread per four elements
// split     N by 64
// flops     0
// bytes     8 * N
// source    definition
//
// The elements are words, whose bits stay as they are. Four move at once; the memory of a tensor is a multiple of 16 bytes long,
// and of the last four only those are written that belong to it.

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (4u * i + 4u <= params.N) {
    y[i] = x[i];
    return;
  }
  for (var c = 0u; c < 4u; c++) {
    if (4u * i + c < params.N) {
      y[i][c] = x[i][c];
    }
  }
}
