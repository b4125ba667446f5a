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

fn load(i: u32) -> f32 {
  return select(0.0, x[min(i, params.N - 1u)], i < params.N);
}

fn store(i: u32, value: f32) {
  if (i < params.N) {
    x[i] = value;
  }
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (wg.y * groups.x + wg.x) * WG * CHAINS + lane;
  var in0 = vec4f();
  var in1 = vec4f();
  var in2 = vec4f();
  var in3 = vec4f();
  for (var k = 0u; k < 4u; k++) {
    let i = first + k * WG;
    in0[k] = load(i);
    in1[k] = load(i + 4u * WG);
    in2[k] = load(i + 8u * WG);
    in3[k] = load(i + 12u * WG);
  }
  // Vectors that are never indexed can stay in registers.
  var a = in0;
  var b = in1;
  var c = in2;
  var d = in3;
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
  in0 = a;
  in1 = b;
  in2 = c;
  in3 = d;
  for (var k = 0u; k < 4u; k++) {
    let i = first + k * WG;
    store(i, in0[k]);
    store(i + 4u * WG, in1[k]);
    store(i + 8u * WG, in2[k]);
    store(i + 12u * WG, in3[k]);
  }
}
