// Turns every row into a distribution and scales it.
//
//   y[n, d] = softmax over d of (x[n, d] / temperature) * scale
//
// x  [N, D]
// y  [N, D]  output
//
// scalar    temperature
// scalar    scale
// dispatch  ceil(N / WG)
// split     N
// flops     5 * N * D
// bytes     8 * N * D
// source    definition
const WG = 64u;

struct Params {
  N: u32,
  D: u32,
  temperature: f32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = (wg.y * groups.x + wg.x) * WG + lane;
  if (n >= params.N) {
    return;
  }
  var top = x[n * params.D];
  for (var d = 1u; d < params.D; d++) {
    top = max(top, x[n * params.D + d]);
  }
  var sum = 0.0;
  for (var d = 0u; d < params.D; d++) {
    sum += exp((x[n * params.D + d] - top) / params.temperature);
  }
  for (var d = 0u; d < params.D; d++) {
    y[n * params.D + d] = exp((x[n * params.D + d] - top) / params.temperature) / sum * params.scale;
  }
}
