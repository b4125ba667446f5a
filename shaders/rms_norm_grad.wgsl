// Takes a gradient through a norm whose weight is frozen, and adds it to the gradient of the residual stream.
//
//   dx[n, d] += rstd[n] * (weight[d] * dy[n, d] - x[n, d] * rstd[n]^2 / D * sum over e of weight[e] * dy[n, e] * x[n, e])
//
// x       [N, D]  what rms_norm was given
// weight  [D]
// rstd    [N]     what rms_norm kept
// dy      [N, D]
// dx      [N, D]  in place
//
// dispatch  N    one workgroup per row
// split     N
// flops     9 * N * D
// bytes     4 * (4 * N * D + D + N)
// source    derivative of rms_norm

const WG = 64u;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = wg.y * groups.x + wg.x;
  if (n >= params.N) {
    return;
  }
  let D = params.D;
  let r = rstd[n];
  // x times rstd is at most sqrt(D) in size, so that no product overflows that the result does not.
  var sum = 0.0;
  for (var d = lane; d < D; d += WG) {
    sum += weight[d] * dy[n * D + d] * (x[n * D + d] * r);
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let mean = partial[0] / f32(D);
  for (var d = lane; d < D; d += WG) {
    dx[n * D + d] += r * (weight[d] * dy[n * D + d] - x[n * D + d] * r * mean);
  }
}
