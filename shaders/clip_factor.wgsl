// Turns sums of squares into the norm, and into the factor that brings a gradient of that norm down to a limit.
//
//   clip[0] = norm = sqrt(sum over p of sums[p])
//   clip[1] = max_norm > 0 ? min(1, max_norm / (norm + 1e-6)) : 1
//
// sums  [P]
// clip  [2]  output
//
// scalar    max_norm   0: no limit
// dispatch  1          one workgroup
// split     1
// flops     P
// bytes     4 * P
// source    torch.nn.utils.clip_grad_norm_

const WG = 256u;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var p = lane; p < params.P; p += WG) {
    sum += sums[p];
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    let norm = sqrt(partial[0]);
    let factor = params.max_norm / (norm + 1e-6);
    clip[0] = norm;
    // min() may swallow a NaN.
    clip[1] = select(factor, 1.0, params.max_norm <= 0.0 || factor > 1.0);
  }
}
