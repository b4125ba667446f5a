// Prepares the gradient of attention: what the softmax of each query needs of the whole row.
//
//   stats[n, h, 0] = lse[n, h]
//   stats[n, h, 1] = sum over c of dy[n, h, c] * y[n, h, c]
//
// y      [N, H, C]  what attention gave
// dy     [N, H, C]
// lse    [N, H]     what attention kept
// stats  [N, H, 2]  output
//
// dispatch  ceil(N * H / WG)   one thread per query and head
// split     N * H
// flops     2 * N * H * C
// bytes     4 * (2 * N * H * C + 3 * N * H)
// source    Dao et al. 2022, algorithm 4
//
// One tensor for both, because the gradient of keys and values has no binding left.

const WG = 64u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.H) {
    return;
  }
  var sum = 0.0;
  for (var c = 0u; c < params.C; c++) {
    sum += dy[i * params.C + c] * y[i * params.C + c];
  }
  stats[2u * i] = lse[i];
  stats[2u * i + 1u] = sum;
}
