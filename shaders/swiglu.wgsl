// Multiplies the SiLU of the gate by the up projection.
//
//   y = gate / (1 + exp(-gate)) * up
//
// gate  [N, F]
// up  [N, F]
// y  [N, F]  output
//
// dispatch  ceil(N * F / WG)
// split     N * F by 64
// flops     5 * N * F
// bytes     12 * N * F
// source    Shazeer 2020
const WG = 64u;

struct Params {
  N: u32,
  F: u32,
}

@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.F) {
    return;
  }
  let g = gate[i];
  y[i] = g / (1.0 + exp(min(-g, 80.0))) * up[i];
}
