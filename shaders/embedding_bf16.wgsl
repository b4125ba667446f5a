// Looks up the embedding row of every token, from a table stored as bf16.
//
//   y[n, d] = table[tokens[n], d]
//
// table   [V, D]  bf16
// tokens  [N]  u32     each below V
// y       [N, D]  output
//
// dispatch  N                       one workgroup per row
// split     N
// flops     0
// bytes     6 * N * D + 4 * N
// source    definition

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

// The upper half of a float32.
fn widen(i: u32) -> f32 {
  return bitcast<f32>((table[i >> 1u] >> ((i & 1u) * 16u)) << 16u);
}

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
  let token = min(tokens[n], params.V - 1u);
  for (var d = lane; d < D; d += WG) {
    y[n * D + d] = widen(token * D + d);
  }
}
