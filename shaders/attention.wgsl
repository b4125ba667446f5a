// Lets every token attend to its own sequence up to itself, with grouped key and value heads.
//
//   y[n, h] = sum over m in first[n]..n of softmax(scale * q[n, h] . k[m, g]) * v[m, g],  g = floor(h * G / H)
//   lse[n, h] = log of the sum over m of exp(scale * q[n, h] . k[m, g])
//
// q      [N, H, C]
// k      [N, G, C]
// v      [N, G, C]
// first  [N]        u32     row of the first token of n's sequence
// y      [N, H, C]  output
// lse    [N, H]     output
//
// scalar    scale
// dispatch  ceil(N * H / WG)
// split     H * N by 16
// flops     2 * N * N * H * C
// bytes     4 * (2 * N * H * C + 2 * N * G * C + N + N * H)
// source    Milakov and Gimelshein 2018
const WG = 64u;

struct Params {
  N: u32,
  H: u32,
  C: u32,
  G: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> first: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.H) {
    return;
  }
  let n = i / params.H;
  let g = (i % params.H) * params.G / params.H;
  var out: array<f32, 256>;
  var top = -3.0e38;
  var sum = 0.0;
  for (var m = first[n]; m <= n; m++) {
    var s = 0.0;
    let at = (m * params.G + g) * params.C;
    for (var c = 0u; c < params.C; c++) {
      s += q[i * params.C + c] * k[at + c];
    }
    s *= params.scale;
    let next = max(top, s);
    let shrink = exp(top - next);
    let p = exp(s - next);
    for (var c = 0u; c < params.C; c++) {
      out[c] = out[c] * shrink + p * v[at + c];
    }
    sum = sum * shrink + p;
    top = next;
  }
  for (var c = 0u; c < params.C; c++) {
    y[i * params.C + c] = out[c] / sum;
  }
  lse[i] = top + log(sum);
}
