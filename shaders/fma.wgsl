// Multiplies and adds many times over: the bound of arithmetic for benchmarks.
//
//   rounds times:  x[n] = x[n] * 0.5 + 0.25
//
// x  [N]  in place
//
// scalar    rounds u32   repetitions
// dispatch  ceil(N / (WG * CHAINS))   eight elements per thread
// split     N by 64
// flops     2 * N * rounds
// bytes     8 * N
// source    definition
//
// Eight independent chains per thread hide the latency of one step. The value tends to 0.5, never to a denormal number.

const WG = 64u;
const CHAINS = 8u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (wg.y * groups.x + wg.x) * WG * CHAINS + lane;
  let rounds = params.rounds;
  var low = vec4f();
  var high = vec4f();
  for (var c = 0u; c < 4u; c++) {
    let i = first + c * WG;
    if (i < params.N) {
      low[c] = x[i];
    }
    if (i + 4u * WG < params.N) {
      high[c] = x[i + 4u * WG];
    }
  }
  // Vectors that are never indexed can stay in registers.
  var a = low;
  var b = high;
  for (var round = 0u; round < rounds; round++) {
    a = fma(a, vec4f(0.5), vec4f(0.25));
    b = fma(b, vec4f(0.5), vec4f(0.25));
  }
  low = a;
  high = b;
  for (var c = 0u; c < 4u; c++) {
    let i = first + c * WG;
    if (i < params.N) {
      x[i] = low[c];
    }
    if (i + 4u * WG < params.N) {
      x[i + 4u * WG] = high[c];
    }
  }
}
