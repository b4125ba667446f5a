// Rotates pairs of channels by the angle of the position.
//
//   a, b = x[n, h, 0, e], x[n, h, 1, e]; a cos - b sin, b cos + a sin
//
// x  [N, H, 2, E]  in place
// cos  [P, E]
// sin  [P, E]
// position  [N]  u32
//
// dispatch  ceil(N * H * E / WG)
// split     N
// flops     6 * N * H * E
// bytes     16 * N * H * E + 8 * P * E + 4 * N
// source    Su et al. 2021, equation 34
const WG = 64u;

struct Params {
  N: u32,
  H: u32,
  E: u32,
  P: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> cos: array<f32>;
@group(0) @binding(2) var<storage, read> sin: array<f32>;
@group(0) @binding(3) var<storage, read> position: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.H * params.E) {
    return;
  }
  let e = i % params.E;
  let row = i / params.E;
  let at = row * 2u * params.E + e;
  let t = position[row / params.H] * params.E + e;
  let a = x[at];
  let b = x[at + params.E];
  x[at] = a * cos[t] - b * sin[t];
  x[at + params.E] = b * cos[t] + a * sin[t];
}
