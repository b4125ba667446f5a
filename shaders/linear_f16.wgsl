// Applies a linear map without bias to many rows, weights stored as f16.
//
//   y[n, o] = sum over d of x[n, d] * weight[o, d]
//
// x       [N, D]
// weight  [O, D]  f16
// y       [N, O]  output
//
// dispatch  ceil(O / TILE), ceil(N / TILE)   one workgroup per tile of outputs
// split     O by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + N * O) + 2 * O * D
// source    definition
//
// Each of 8 x 8 threads keeps 8 rows x 8 outputs in registers. The weights of DEPTH columns lie in workgroup memory, one
// column behind the other, so that the last columns need no case of their own. x is read in place: the threads that
// share a row ask for one address, and one answer serves them all.

const TILE = 64u;
const DEPTH = 32u;
const WG = 64u;
// Vectors of four outputs, SLOTS of them per column; one more keeps the memory banks apart.
const SLOTS = 16u;
const STRIDE = 17u;

struct Params {
  N: u32,
  D: u32,
  O: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// [DEPTH, STRIDE]: slot s holds the outputs s, s + 16, s + 32 and s + 48 of the tile.
var<workgroup> w_tile: array<vec4f, DEPTH * STRIDE>;

fn widen(i: u32) -> f32 {
  return unpack2x16float(weight[i >> 1u])[i & 1u];
}

// Writes the four outputs o, o + 16, o + 32 and o + 48 of row n, where they exist.
fn store(n: u32, o: u32, sums: vec4f) {
  if (n < params.N) {
    for (var i = 0u; i < 4u; i++) {
      if (o + SLOTS * i < params.O) {
        y[n * params.O + o + SLOTS * i] = sums[i];
      }
    }
  }
}

@compute @workgroup_size(8, 8)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let D = params.D;
  let n = wg.y * TILE + local.y * 8u;
  let o = wg.x * TILE;
  let last = params.N - 1u;
  let end = params.O - 1u;
  let row0 = min(n, last) * D;
  let row1 = min(n + 1u, last) * D;
  let row2 = min(n + 2u, last) * D;
  let row3 = min(n + 3u, last) * D;
  let row4 = min(n + 4u, last) * D;
  let row5 = min(n + 5u, last) * D;
  let row6 = min(n + 6u, last) * D;
  let row7 = min(n + 7u, last) * D;
  var a0 = vec4f(); // row n, slot local.x
  var a1 = vec4f();
  var a2 = vec4f();
  var a3 = vec4f();
  var a4 = vec4f();
  var a5 = vec4f();
  var a6 = vec4f();
  var a7 = vec4f();
  var b0 = vec4f(); // the same row, slot local.x + 8
  var b1 = vec4f();
  var b2 = vec4f();
  var b3 = vec4f();
  var b4 = vec4f();
  var b5 = vec4f();
  var b6 = vec4f();
  var b7 = vec4f();
  for (var start = 0u; start < D; start += DEPTH) {
    for (var i = lane; i < DEPTH * SLOTS; i += WG) {
      let k = i % DEPTH;
      let slot = i / DEPTH;
      let d = min(start + k, D - 1u);
      w_tile[k * STRIDE + slot] = vec4f(
        widen(min(o + slot, end) * D + d),
        widen(min(o + slot + SLOTS, end) * D + d),
        widen(min(o + slot + 2u * SLOTS, end) * D + d),
        widen(min(o + slot + 3u * SLOTS, end) * D + d),
      );
    }
    workgroupBarrier();
    let depth = min(DEPTH, D - start);
    for (var k = 0u; k < depth; k++) {
      let d = start + k;
      let w0 = w_tile[k * STRIDE + local.x];
      let w1 = w_tile[k * STRIDE + local.x + 8u];
      let x0 = x[row0 + d];
      let x1 = x[row1 + d];
      let x2 = x[row2 + d];
      let x3 = x[row3 + d];
      let x4 = x[row4 + d];
      let x5 = x[row5 + d];
      let x6 = x[row6 + d];
      let x7 = x[row7 + d];
      a0 += x0 * w0;
      b0 += x0 * w1;
      a1 += x1 * w0;
      b1 += x1 * w1;
      a2 += x2 * w0;
      b2 += x2 * w1;
      a3 += x3 * w0;
      b3 += x3 * w1;
      a4 += x4 * w0;
      b4 += x4 * w1;
      a5 += x5 * w0;
      b5 += x5 * w1;
      a6 += x6 * w0;
      b6 += x6 * w1;
      a7 += x7 * w0;
      b7 += x7 * w1;
    }
    workgroupBarrier();
  }
  store(n, o + local.x, a0);
  store(n, o + local.x + 8u, b0);
  store(n + 1u, o + local.x, a1);
  store(n + 1u, o + local.x + 8u, b1);
  store(n + 2u, o + local.x, a2);
  store(n + 2u, o + local.x + 8u, b2);
  store(n + 3u, o + local.x, a3);
  store(n + 3u, o + local.x + 8u, b3);
  store(n + 4u, o + local.x, a4);
  store(n + 4u, o + local.x + 8u, b4);
  store(n + 5u, o + local.x, a5);
  store(n + 5u, o + local.x + 8u, b5);
  store(n + 6u, o + local.x, a6);
  store(n + 6u, o + local.x + 8u, b6);
  store(n + 7u, o + local.x, a7);
  store(n + 7u, o + local.x + 8u, b7);
}
