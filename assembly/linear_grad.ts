// Gradients of the linear map y = x weight^T, on the register tile of the map itself.

import { put_edge } from './linear'
import { scratch } from './scratch'
import { COLUMNS, ROWS, tile } from './tile'

// Terms of a sum that are added before the sum goes to the result.
const DEPTH: usize = 512
// Columns of x that are packed at a time: their panels stay in the second-level cache while dy streams by.
const STRIP: usize = 128

// Scratch memory: panels [STRIP / 8, DEPTH, 8], then four transposed columns of dy [4, DEPTH], then a tile that sticks out.
const TURNED: usize = STRIP * DEPTH * 4
const EDGE: usize = TURNED + ROWS * DEPTH * 4

// dx[n, d] = sum over o of dy[n, o] * weight[o, d] for all n and start <= d < end.
export function grad_input(
  dy: usize,
  weight: usize,
  dx: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
): void {
  for (let o: usize = 0; o < O; o += DEPTH) {
    const depth = min(DEPTH, O - o)
    for (let first = start; first < end; first += STRIP) {
      const last = min(first + STRIP, end)
      pack(weight + o * D * 4, D, depth, first, last)
      for (let n: usize = 0; n < N; n += ROWS) {
        const rows = min(ROWS, N - n)
        const from = dy + (n * O + o) * 4
        const stride = O * 4
        const x1 = from + min(1, rows - 1) * stride
        const x2 = from + min(2, rows - 1) * stride
        const x3 = from + min(3, rows - 1) * stride
        products(from, x1, x2, x3, depth, dx + n * D * 4, D, rows, first, last, o > 0)
      }
    }
  }
}

// dweight[o, d] = sum over n of dy[n, o] * x[n, d] for all o and start <= d < end.
export function grad_weight(
  dy: usize,
  x: usize,
  dweight: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
): void {
  const turned = scratch + TURNED
  const line = DEPTH * 4
  for (let n: usize = 0; n < N; n += DEPTH) {
    const depth = min(DEPTH, N - n)
    for (let first = start; first < end; first += STRIP) {
      const last = min(first + STRIP, end)
      pack(x + n * D * 4, D, depth, first, last)
      for (let o: usize = 0; o < O; o += ROWS) {
        const rows = min(ROWS, O - o)
        turn(dy + (n * O + o) * 4, O * 4, depth, rows, turned)
        const to = dweight + o * D * 4
        products(turned, turned + line, turned + 2 * line, turned + 3 * line, depth, to, D, rows, first, last, n > 0)
      }
    }
  }
}

// Tiles of four rows and the packed columns from `first` to `last`; `to` is the first row of the result, D its width.
function products(
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  depth: usize,
  to: usize,
  D: usize,
  rows: usize,
  first: usize,
  last: usize,
  accumulate: bool,
): void {
  let panel = scratch
  const edge = scratch + EDGE
  for (let d = first; d < last; d += COLUMNS, panel += depth * COLUMNS * 4) {
    const columns = min(COLUMNS, last - d)
    if (rows == ROWS && columns == COLUMNS) {
      tile(x0, x1, x2, x3, panel, depth, to + d * 4, D * 4, accumulate)
    } else {
      tile(x0, x1, x2, x3, panel, depth, edge, COLUMNS * 4, false)
      put_edge(edge, to + d * 4, D * 4, rows, columns, accumulate)
    }
  }
}

// Packs `depth` rows of a matrix of width D as panels [depth, 8] of the columns from `first` to `last`; columns that are not
// there are zeros.
function pack(from: usize, D: usize, depth: usize, first: usize, last: usize): void {
  let panel = scratch
  for (let d = first; d < last; d += COLUMNS) {
    let at = from + d * 4
    if (d + COLUMNS <= last) {
      for (let k: usize = 0; k < depth; k++, at += D * 4, panel += COLUMNS * 4) {
        v128.store(panel, v128.load(at))
        v128.store(panel, v128.load(at, 16), 16)
      }
    } else {
      for (let k: usize = 0; k < depth; k++, at += D * 4, panel += COLUMNS * 4) {
        for (let c: usize = 0; c < COLUMNS; c++)
          store<f32>(panel + c * 4, d + c < last ? load<f32>(at + c * 4) : 0)
      }
    }
  }
}

// to[r, k] = from[k, r] for four columns r, of which `rows` are there and the others are zeros; `stride` in bytes.
function turn(from: usize, stride: usize, depth: usize, rows: usize, to: usize): void {
  const line = DEPTH * 4
  let k: usize = 0
  if (rows == ROWS) {
    for (; k + 4 <= depth; k += 4) {
      const at = from + k * stride
      const a = v128.load(at)
      const b = v128.load(at + stride)
      const c = v128.load(at + 2 * stride)
      const d = v128.load(at + 3 * stride)
      const ab0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
      const ab1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
      const cd0 = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
      const cd1 = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
      v128.store(to + k * 4, v128.shuffle<f32>(ab0, cd0, 0, 1, 4, 5))
      v128.store(to + line + k * 4, v128.shuffle<f32>(ab0, cd0, 2, 3, 6, 7))
      v128.store(to + 2 * line + k * 4, v128.shuffle<f32>(ab1, cd1, 0, 1, 4, 5))
      v128.store(to + 3 * line + k * 4, v128.shuffle<f32>(ab1, cd1, 2, 3, 6, 7))
    }
  }
  for (; k < depth; k++) {
    for (let r: usize = 0; r < ROWS; r++)
      store<f32>(to + r * line + k * 4, r < rows ? load<f32>(from + k * stride + r * 4) : 0)
  }
}
