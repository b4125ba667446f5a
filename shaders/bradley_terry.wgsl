// Computes the Bradley-Terry loss of pairs whose margin is a product of outputs and rewards, and the gradient of its mean.
//
//   margin[b] = margin_scale * (sum over m of g[b, m] * r[b, m])
//   loss[b]   = ln(1 + exp(-margin[b]))
//   dg[b, m]  = -margin_scale * r[b, m] / (1 + exp(margin[b])) / B
//
// g       [B, M]
// r       [B, M]  rewards of the chosen side less those of the rejected one
// margin  [B]     output
// loss    [B]     output
// dg      [B, M]  output
//
// scalar    margin_scale
// dispatch  B            one workgroup per pair
// split     B
// flops     4 * B * M
// bytes     4 * (3 * B * M + 2 * B)
// source    Bradley and Terry 1952; Ouyang et al. 2022, equation 1

const WG = 32u;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let b = wg.y * groups.x + wg.x;
  if (b >= params.B) {
    return;
  }
  let row = b * params.M;
  var sum = 0.0;
  for (var m = lane; m < params.M; m += WG) {
    sum += g[row + m] * r[row + m];
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let d = params.margin_scale * partial[0];
  // e = exp(-|d|) cannot overflow.
  let e = exp(-abs(d));
  if (lane == 0u) {
    margin[b] = d;
    // max() may swallow a NaN.
    loss[b] = select(-d, 0.0, d > 0.0) + log(1.0 + e);
  }
  let factor = -select(1.0, e, d >= 0.0) / (1.0 + e) * params.margin_scale / f32(params.B);
  for (var m = lane; m < params.M; m += WG) {
    dg[row + m] = factor * r[row + m];
  }
}
