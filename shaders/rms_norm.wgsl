// Scales every row to unit root mean square, then by a learned weight.
//
//   rstd[n] = 1 / sqrt(mean over d of x[n, d]^2 + eps)
//   y[n, d] = x[n, d] * rstd[n] * weight[d]
//
// x       [N, D]
// weight  [D]
// y       [N, D]  output
// rstd    [N]     output, kept for the backward pass
//
// scalar    eps  added to the mean square
// dispatch  N    one workgroup per row
// split     N
// flops     4 * N * D
// bytes     4 * (2 * N * D + D + N)
// source    Zhang and Sennrich 2019, equation 4

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
  var squares = 0.0;
  for (var d = lane; d < D; d += WG) {
    let value = x[n * D + d];
    squares += value * value;
  }
  partial[lane] = squares;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let scale = 1.0 / sqrt(partial[0] / f32(D) + params.eps);
  for (var d = lane; d < D; d += WG) {
    y[n * D + d] = x[n * D + d] * scale * weight[d];
  }
  if (lane == 0u) {
    rstd[n] = scale;
  }
}
