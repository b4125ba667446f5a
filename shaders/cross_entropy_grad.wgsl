// Turns a block of logits into the gradient of the weighted log-probabilities of its rows' targets.
//
//   x[r, b] = coefficient[r] * scale * (exp(scale * x[r, b] - lse[r]) - (first + b == wanted[r] ? 1 : 0))
//
// x            [R, B]  in place
// wanted       [R]     u32
// lse          [R]     log of the sum of exp(scale * x) over the whole vocabulary
// coefficient  [R]     what the loss counts the row's negative log-probability
//
// scalar    first u32   vocabulary entry of column 0
// scalar    scale       1 / temperature
// dispatch  ceil(R * B / WG)   one thread per element
// split     R
// flops     5 * R * B
// bytes     8 * R * B + 12 * R
// source    derivative of the log-softmax

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.R * params.B) {
    return;
  }
  let r = i / params.B;
  let p = exp(params.scale * x[i] - lse[r]);
  let own = select(0.0, 1.0, params.first + i % params.B == wanted[r]);
  x[i] = coefficient[r] * params.scale * (p - own);
}
