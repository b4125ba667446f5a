// Scales every row to unit root mean square, then by a learned weight.
//
//   rstd[n] = 1 / sqrt(mean over d of x[n, d]^2 + eps)
//   y[n, d] = x[n, d] * rstd[n] * weight[d]
//
// x       [N, D]
// weight  [D]
// y       [N, D]   output
// rstd    [N]      output, kept for rms_norm_backward
//
// scalar    eps                           added to the mean square
// dispatch  ceil(N / WG)
// split     N
// flops     4 * N * D
// bytes     4 * (2 * N * D + D + N)
// source    Zhang and Sennrich 2019, equation 4
const WG = 64u;

struct Params {
  N: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = (wg.y * groups.x + wg.x) * WG + lane;
  if (n >= params.N) {
    return;
  }
  var sum = 0.0;
  for (var d = 0u; d < params.D; d++) {
    let v = x[n * params.D + d];
    sum += v * v;
  }
  let r = inverseSqrt(sum / f32(params.D) + params.eps);
  rstd[n] = r;
  for (var d = 0u; d < params.D; d++) {
    y[n * params.D + d] = x[n * params.D + d] * r * weight[d];
  }
}
