// Multiplies and adds many times over: the bound of arithmetic for benchmarks.
//
//   rounds times:  x[n] = x[n] * 0.5 + 0.25
//
// x  [N]  in place
//
// scalar    rounds u32   repetitions
// dispatch  ceil(N / (WG * CHAINS))   sixteen elements per thread
// split     N by 64
// flops     2 * N * rounds
// bytes     8 * N
// source    definition
//
// Sixteen independent chains per thread hide the latency of one step. A back end may guard every loop whose length it does not
// know, at about ten integer instructions a round (Dawn does), so all rounds but the last few run in loops of a fixed length.
// The value tends to 0.5, never to a denormal number.

const WG = 64u;
const CHAINS = 16u;
const STEPS = 32u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (wg.y * groups.x + wg.x) * WG * CHAINS + lane;
  var values = array<vec4f, 4>();
  for (var c = 0u; c < CHAINS; c++) {
    let i = first + c * WG;
    if (i < params.N) {
      values[c / 4u][c % 4u] = x[i];
    }
  }
  // Vectors that are never indexed can stay in registers.
  var a = values[0];
  var b = values[1];
  var c = values[2];
  var d = values[3];
  let half = vec4f(0.5);
  let quarter = vec4f(0.25);
  for (var many = 0u; many < params.rounds / STEPS; many++) {
    for (var step = 0u; step < STEPS; step++) {
      a = fma(a, half, quarter);
      b = fma(b, half, quarter);
      c = fma(c, half, quarter);
      d = fma(d, half, quarter);
    }
  }
  for (var rest = 0u; rest < params.rounds % STEPS; rest++) {
    a = fma(a, half, quarter);
    b = fma(b, half, quarter);
    c = fma(c, half, quarter);
    d = fma(d, half, quarter);
  }
  values = array(a, b, c, d);
  for (var c = 0u; c < CHAINS; c++) {
    let i = first + c * WG;
    if (i < params.N) {
      x[i] = values[c / 4u][c % 4u];
    }
  }
}
