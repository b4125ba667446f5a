// Applies a linear map without bias to every row.
//
//   y[n, o] = sum over d of x[n, d] * weight[o, d]
//
// x  [N, D]
// weight  [O, D]
// y  [N, O]  output
//
// dispatch  ceil(N * O / WG)
// split     O by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + N * O) + 4 * O * D
// source    definition
const WG = 64u;

struct Params {
  N: u32,
  D: u32,
  O: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.O) {
    return;
  }
  let n = i / params.O;
  let o = i % params.O;
  var sum = 0.0;
  for (var d = 0u; d < params.D; d++) {
    sum += x[n * params.D + d] * weight[o * params.D + d];
  }
  y[i] = sum;
}
