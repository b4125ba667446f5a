// Gates one half of the feed-forward block by the SiLU of the other.
//
//   y[n, f] = gate[n, f] / (1 + exp(-gate[n, f])) * up[n, f]
//
// gate  [N, F]
// up    [N, F]
// y     [N, F]  output
//
// dispatch  ceil(N * F / WG)   one thread per element
// split     N * F by 64
// flops     5 * N * F
// bytes     12 * N * F
// source    Shazeer 2020, section 2

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.F) {
    return;
  }
  let g = gate[i];
  // With e = exp(-|g|), which cannot overflow, the logistic function is 1 / (1 + e) or e / (1 + e).
  let e = exp(-abs(g));
  y[i] = g * (select(e, 1.0, g >= 0.0) / (1.0 + e)) * up[i];
}
