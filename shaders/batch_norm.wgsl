// Normalises every column by its stored mean and variance, then by a learned weight and bias (inference).
//
//   y[n, d] = (x[n, d] - mean[d]) / sqrt(variance[d] + eps) * weight[d] + bias[d]
//
// x         [N, D]
// mean      [D]
// variance  [D]
// weight    [D]
// bias      [D]
// y         [N, D]  output
//
// scalar    eps  added to the variance
// dispatch  ceil(N * D / WG)   one thread per element
// split     N
// flops     5 * N * D
// bytes     4 * (2 * N * D + 4 * D)
// source    Ioffe and Szegedy 2015, algorithm 2

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.D) {
    return;
  }
  let d = i % params.D;
  y[i] = (x[i] - mean[d]) / sqrt(variance[d] + params.eps) * weight[d] + bias[d];
}
