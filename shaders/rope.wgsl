// Rotates the two halves of every head by the angle of its position.
//
//   a = x[n, h, 0, e],  b = x[n, h, 1, e],  p = position[n]
//   x[n, h, 0, e] = a * cos[p, e] - b * sin[p, e]
//   x[n, h, 1, e] = b * cos[p, e] + a * sin[p, e]
//
// x         [N, H, 2, E]  in place
// cos       [P, E]
// sin       [P, E]
// position  [N]  u32  each below P
//
// dispatch  ceil(N * H * E / WG)   one thread per element
// split     N
// flops     6 * N * H * E
// bytes     4 * (4 * N * H * E + 2 * N * E + N)
// source    Su et al. 2021, equation 34, in the order of Hugging Face (halves, not pairs)

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.H * params.E) {
    return;
  }
  let E = params.E;
  let e = i % E;
  let n = i / (params.H * E);
  let at = (i / E) * 2u * E + e;
  let angle = min(position[n], params.P - 1u) * E + e;
  let a = x[at];
  let b = x[at + E];
  x[at] = a * cos[angle] - b * sin[angle];
  x[at + E] = b * cos[angle] + a * sin[angle];
}
