// Looks up the embedding row of every token.
//
//   y[n, d] = table[tokens[n], d]
//
// table  [V, D]  f16
// tokens  [N]  u32
// y  [N, D]  output
//
// dispatch  ceil(N * D / WG)
// split     N
// flops     0
// bytes     8 * N * D
// source    table lookup
const WG = 64u;

struct Params {
  V: u32,
  D: u32,
  N: u32,
}

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

fn widen(i: u32) -> f32 {
  let pair = unpack2x16float(table[i >> 1u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.D) {
    return;
  }
  let row = tokens[i / params.D];
  let at = row * params.D + i % params.D;
  y[i] = widen(at);
}
