// Turns every row into a distribution and scales it.
//
//   y[n, d] = exp(x[n, d] / temperature) / (sum over e of exp(x[n, e] / temperature)) * scale
//
// x  [N, D]
// y  [N, D]  output
//
// scalar    temperature  above zero
// scalar    scale        factor of the result
// dispatch  N            one workgroup per row
// split     N
// flops     5 * N * D
// bytes     8 * N * D
// source    definition
//
// The largest value of the row is taken off first, so that nothing overflows.

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
  var top = x[n * D];
  for (var d = lane; d < D; d += WG) {
    top = max(top, x[n * D + d]);
  }
  partial[lane] = top;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] = max(partial[lane], partial[lane + half]);
    }
    workgroupBarrier();
  }
  top = partial[0];
  // Everybody has read the largest value before the memory is used for the sum.
  workgroupBarrier();
  var sum = 0.0;
  for (var d = lane; d < D; d += WG) {
    let e = exp((x[n * D + d] - top) / params.temperature);
    y[n * D + d] = e;
    sum += e;
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let factor = params.scale / partial[0];
  for (var d = lane; d < D; d += WG) {
    y[n * D + d] *= factor;
  }
}
