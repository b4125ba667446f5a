// Multiplies and adds in registers; the bound of arithmetic.
//
//   x = x * 0.5 + 0.25, rounds times
//
// x  [N]  in place
//
// scalar    rounds
// dispatch  ceil(N / WG)
// split     N by 64
// flops     2 * N * rounds
// bytes     8 * N
// source    definition
const WG = 64u;

struct Params {
  N: u32,
  rounds: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N) {
    return;
  }
  var v = x[i];
  for (var r = 0u; r < params.rounds; r++) {
    v = v * 0.5 + 0.25;
  }
  x[i] = v;
}
