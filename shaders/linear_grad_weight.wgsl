// Takes a gradient through a linear map to its weights.
//
//   dweight[o, d] = sum over n of dy[n, o] * x[n, d]
//
// dy       [N, O]
// x        [N, D]
// dweight  [O, D]  output
//
// dispatch  ceil(D / TILE), ceil(O / TILE)   one workgroup per tile of dweight
// split     D by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + O * D + N * O)
// source    derivative of linear
//
// The tile of `linear`: each of 8 x 8 threads keeps 8 rows x 8 columns in registers, DEPTH rows of x lie in workgroup memory; dy is
// read in place, eight neighbours at a time.

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
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// [DEPTH, STRIDE]: slot s holds the columns s, s + 16, s + 32 and s + 48 of the tile.
var<workgroup> x_tile: array<vec4f, DEPTH * STRIDE>;

// Writes the four columns d, d + 16, d + 32 and d + 48 of row o, where they exist.
fn store(o: u32, d: u32, sums: vec4f) {
  if (o < params.O) {
    for (var i = 0u; i < 4u; i++) {
      if (d + SLOTS * i < params.D) {
        dweight[o * params.D + d + SLOTS * i] = sums[i];
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
  let N = params.N;
  let o = wg.y * TILE + local.y * 8u;
  let d = wg.x * TILE;
  let last = params.O - 1u;
  let end = params.D - 1u;
  let o0 = min(o, last);
  let o1 = min(o + 1u, last);
  let o2 = min(o + 2u, last);
  let o3 = min(o + 3u, last);
  let o4 = min(o + 4u, last);
  let o5 = min(o + 5u, last);
  let o6 = min(o + 6u, last);
  let o7 = min(o + 7u, last);
  var a0 = vec4f(); // row o, slot local.x
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
  for (var start = 0u; start < N; start += DEPTH) {
    for (var i = lane; i < DEPTH * SLOTS; i += WG) {
      let k = i / SLOTS;
      let slot = i % SLOTS;
      let row = min(start + k, N - 1u) * params.D;
      x_tile[k * STRIDE + slot] = vec4f(
        x[row + min(d + slot, end)],
        x[row + min(d + slot + SLOTS, end)],
        x[row + min(d + slot + 2u * SLOTS, end)],
        x[row + min(d + slot + 3u * SLOTS, end)],
      );
    }
    workgroupBarrier();
    let depth = min(DEPTH, N - start);
    for (var k = 0u; k < depth; k++) {
      let row = (start + k) * params.O;
      let x0 = x_tile[k * STRIDE + local.x];
      let x1 = x_tile[k * STRIDE + local.x + 8u];
      let y0 = dy[row + o0];
      let y1 = dy[row + o1];
      let y2 = dy[row + o2];
      let y3 = dy[row + o3];
      let y4 = dy[row + o4];
      let y5 = dy[row + o5];
      let y6 = dy[row + o6];
      let y7 = dy[row + o7];
      a0 += y0 * x0;
      b0 += y0 * x1;
      a1 += y1 * x0;
      b1 += y1 * x1;
      a2 += y2 * x0;
      b2 += y2 * x1;
      a3 += y3 * x0;
      b3 += y3 * x1;
      a4 += y4 * x0;
      b4 += y4 * x1;
      a5 += y5 * x0;
      b5 += y5 * x1;
      a6 += y6 * x0;
      b6 += y6 * x1;
      a7 += y7 * x0;
      b7 += y7 * x1;
    }
    workgroupBarrier();
  }
  store(o, d + local.x, a0);
  store(o, d + local.x + 8u, b0);
  store(o + 1u, d + local.x, a1);
  store(o + 1u, d + local.x + 8u, b1);
  store(o + 2u, d + local.x, a2);
  store(o + 2u, d + local.x + 8u, b2);
  store(o + 3u, d + local.x, a3);
  store(o + 3u, d + local.x + 8u, b3);
  store(o + 4u, d + local.x, a4);
  store(o + 4u, d + local.x + 8u, b4);
  store(o + 5u, d + local.x, a5);
  store(o + 5u, d + local.x + 8u, b5);
  store(o + 6u, d + local.x, a6);
  store(o + 6u, d + local.x + 8u, b6);
  store(o + 7u, d + local.x, a7);
  store(o + 7u, d + local.x + 8u, b7);
}
