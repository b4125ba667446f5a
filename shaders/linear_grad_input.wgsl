// Takes a gradient through a linear map to its input.
//
//   dx[n, d] = sum over o of dy[n, o] * weight[o, d]
//
// dy      [N, O]
// weight  [O, D]
// dx      [N, D]  output
//
// dispatch  ceil(D / TILE), ceil(N / TILE)   one workgroup per tile of dx
// split     D by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + O * D + N * O)
// source    derivative of linear
//
// The tile of `linear`: each of 8 x 8 threads keeps 8 rows x 8 columns in registers, DEPTH rows of the weights lie in workgroup
// memory, dy is read in place.

const TILE = 64u;
const DEPTH = 32u;
const WG = 64u;
// Vectors of four outputs, SLOTS of them per column; one more keeps the memory banks apart.
const SLOTS = 16u;
const STRIDE = 17u;

struct Params {
  N: u32,
  O: u32,
  D: u32,
}

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// [DEPTH, STRIDE]: slot s holds the columns s, s + 16, s + 32 and s + 48 of the tile.
var<workgroup> w_tile: array<vec4f, DEPTH * STRIDE>;

// Writes the four columns d, d + 16, d + 32 and d + 48 of row n, where they exist.
fn store(n: u32, d: u32, sums: vec4f) {
  if (n < params.N) {
    for (var i = 0u; i < 4u; i++) {
      if (d + SLOTS * i < params.D) {
        dx[n * params.D + d + SLOTS * i] = sums[i];
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
  let O = params.O;
  let n = wg.y * TILE + local.y * 8u;
  let d = wg.x * TILE;
  let last = params.N - 1u;
  let end = params.D - 1u;
  let row0 = min(n, last) * O;
  let row1 = min(n + 1u, last) * O;
  let row2 = min(n + 2u, last) * O;
  let row3 = min(n + 3u, last) * O;
  let row4 = min(n + 4u, last) * O;
  let row5 = min(n + 5u, last) * O;
  let row6 = min(n + 6u, last) * O;
  let row7 = min(n + 7u, last) * O;
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
  for (var start = 0u; start < O; start += DEPTH) {
    for (var i = lane; i < DEPTH * SLOTS; i += WG) {
      let k = i / SLOTS;
      let slot = i % SLOTS;
      let row = min(start + k, O - 1u) * params.D;
      w_tile[k * STRIDE + slot] = vec4f(
        weight[row + min(d + slot, end)],
        weight[row + min(d + slot + SLOTS, end)],
        weight[row + min(d + slot + 2u * SLOTS, end)],
        weight[row + min(d + slot + 3u * SLOTS, end)],
      );
    }
    workgroupBarrier();
    let depth = min(DEPTH, O - start);
    for (var k = 0u; k < depth; k++) {
      let o = start + k;
      let w0 = w_tile[k * STRIDE + local.x];
      let w1 = w_tile[k * STRIDE + local.x + 8u];
      let x0 = dy[row0 + o];
      let x1 = dy[row1 + o];
      let x2 = dy[row2 + o];
      let x3 = dy[row3 + o];
      let x4 = dy[row4 + o];
      let x5 = dy[row5 + o];
      let x6 = dy[row6 + o];
      let x7 = dy[row7 + o];
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
  store(n, d + local.x, a0);
  store(n, d + local.x + 8u, b0);
  store(n + 1u, d + local.x, a1);
  store(n + 1u, d + local.x + 8u, b1);
  store(n + 2u, d + local.x, a2);
  store(n + 2u, d + local.x + 8u, b2);
  store(n + 3u, d + local.x, a3);
  store(n + 3u, d + local.x + 8u, b3);
  store(n + 4u, d + local.x, a4);
  store(n + 4u, d + local.x + 8u, b4);
  store(n + 5u, d + local.x, a5);
  store(n + 5u, d + local.x + 8u, b5);
  store(n + 6u, d + local.x, a6);
  store(n + 6u, d + local.x + 8u, b6);
  store(n + 7u, d + local.x, a7);
  store(n + 7u, d + local.x + 8u, b7);
}
