// Multiplies two matrices in tiles: the entry point of the linear map and of its gradients.
//
//   result[row, column] = sum over k of left(row, k) * right(column, k)
//
// The kernel defines rows(), columns() and depth(), the sizes of the product; left, right and put, which reads and writes
// single values; and place(i), the term and the slot that thread i loads first, in the order that suits its memory.
//
// Each of 8 x 8 threads keeps 8 rows x 8 columns in registers. `right` for DEPTH terms lies in workgroup memory, one term behind
// the other, so that the last ones need no case of their own. `left` is read in place: the threads that share a row ask for one
// address, and one answer serves them all.

const TILE = 64u;
const DEPTH = 32u;
const WG = 64u;
// Vectors of four columns, SLOTS of them per term; one more keeps the memory banks apart.
const SLOTS = 16u;
const STRIDE = 17u;

// [DEPTH, STRIDE]: slot s holds the columns s, s + 16, s + 32 and s + 48 of the tile.
var<workgroup> tile: array<vec4f, DEPTH * STRIDE>;

// Writes the four columns column, column + 16, column + 32 and column + 48 of a row, where they exist.
fn put4(row: u32, column: u32, sums: vec4f) {
  if (row < rows()) {
    for (var i = 0u; i < 4u; i++) {
      if (column + SLOTS * i < columns()) {
        put(row, column + SLOTS * i, sums[i]);
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
  let terms = depth();
  let row = wg.y * TILE + local.y * 8u;
  let column = wg.x * TILE;
  let last = rows() - 1u;
  let end = columns() - 1u;
  let row0 = min(row, last);
  let row1 = min(row + 1u, last);
  let row2 = min(row + 2u, last);
  let row3 = min(row + 3u, last);
  let row4 = min(row + 4u, last);
  let row5 = min(row + 5u, last);
  let row6 = min(row + 6u, last);
  let row7 = min(row + 7u, last);
  var a0 = vec4f(); // row + 0, slot local.x
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
  for (var start = 0u; start < terms; start += DEPTH) {
    for (var i = lane; i < DEPTH * SLOTS; i += WG) {
      let at = place(i);
      let k = min(start + at.x, terms - 1u);
      let first = column + at.y;
      tile[at.x * STRIDE + at.y] = vec4f(
        right(min(first, end), k),
        right(min(first + SLOTS, end), k),
        right(min(first + 2u * SLOTS, end), k),
        right(min(first + 3u * SLOTS, end), k),
      );
    }
    workgroupBarrier();
    let count = min(DEPTH, terms - start);
    for (var k = 0u; k < count; k++) {
      let w0 = tile[k * STRIDE + local.x];
      let w1 = tile[k * STRIDE + local.x + 8u];
      let x0 = left(row0, start + k);
      let x1 = left(row1, start + k);
      let x2 = left(row2, start + k);
      let x3 = left(row3, start + k);
      let x4 = left(row4, start + k);
      let x5 = left(row5, start + k);
      let x6 = left(row6, start + k);
      let x7 = left(row7, start + k);
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
  put4(row, column + local.x, a0);
  put4(row, column + local.x + 8u, b0);
  put4(row + 1u, column + local.x, a1);
  put4(row + 1u, column + local.x + 8u, b1);
  put4(row + 2u, column + local.x, a2);
  put4(row + 2u, column + local.x + 8u, b2);
  put4(row + 3u, column + local.x, a3);
  put4(row + 3u, column + local.x + 8u, b3);
  put4(row + 4u, column + local.x, a4);
  put4(row + 4u, column + local.x + 8u, b4);
  put4(row + 5u, column + local.x, a5);
  put4(row + 5u, column + local.x + 8u, b5);
  put4(row + 6u, column + local.x, a6);
  put4(row + 6u, column + local.x + 8u, b6);
  put4(row + 7u, column + local.x, a7);
  put4(row + 7u, column + local.x + 8u, b7);
}
