// Clamps negative values to zero in place.
//
//   x = max(x, 0)
//
// x  [N, D]  in place
//
// dispatch  ceil(N * D / WG)
// split     N * D by 64
// flops     N * D
// bytes     8 * N * D
// source    definition
const WG = 64u;

struct Params {
  N: u32,
  D: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.D) {
    return;
  }
  x[i] = max(x[i], 0.0);
}
