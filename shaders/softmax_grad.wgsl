// Takes a gradient through a softmax with a temperature and a scale.
//
//   dx[n, d] = y[n, d] / temperature * (dy[n, d] - (sum over e of dy[n, e] * y[n, e]) / scale)
//
// y   [N, D]  what softmax gave
// dy  [N, D]
// dx  [N, D]  output
//
// scalar    temperature  of the softmax
// scalar    scale        of the softmax
// dispatch  N            one workgroup per row
// split     N
// flops     5 * N * D
// bytes     12 * N * D
// source    derivative of the softmax

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
  let row = n * params.D;
  var sum = 0.0;
  for (var d = lane; d < params.D; d += WG) {
    sum += dy[row + d] * y[row + d];
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let mean = partial[0] / params.scale;
  for (var d = lane; d < params.D; d += WG) {
    dx[row + d] = y[row + d] / params.temperature * (dy[row + d] - mean);
  }
}
