// Takes a gradient through the gated half of the feed-forward block.
//
//   s = 1 / (1 + exp(-gate[n, f]))
//   dgate[n, f] = dy[n, f] * up[n, f] * s * (1 + gate[n, f] * (1 - s))
//   dup[n, f] = dy[n, f] * gate[n, f] * s
//
// gate   [N, F]
// up     [N, F]
// dy     [N, F]
// dgate  [N, F]  output
// dup    [N, F]  output
//
// dispatch  ceil(N * F / WG)   one thread per element
// split     N * F by 64
// flops     11 * N * F
// bytes     20 * N * F
// source    derivative of swiglu

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
  // With e = exp(-|g|), which cannot overflow, the logistic function of g is 1 / (1 + e) or e / (1 + e), that of -g the other.
  let e = exp(-abs(g));
  let s = select(e, 1.0, g >= 0.0) / (1.0 + e);
  let t = select(1.0, e, g >= 0.0) / (1.0 + e);
  let d = dy[i];
  dgate[i] = d * up[i] * (s * (1.0 + g * t));
  dup[i] = d * (g * s);
}
