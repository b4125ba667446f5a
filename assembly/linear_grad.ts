// What the gradients of the linear map y = x weight^T share: panels for the register tile of the map itself.

import { scratch } from './scratch'
import { COLUMNS, ROWS, put_edge, tile } from './tile'
import { stored1, stored4 } from './widen'

// Terms of a sum that are added before the sum goes to the result.
export const DEPTH: usize = 512
// Columns that are packed at a time: their panels stay in the second-level cache while dy streams by.
export const STRIP: usize = 128

// Scratch memory: panels [STRIP / 8, DEPTH, 8], then four transposed columns of dy [4, DEPTH], then a tile that sticks out.
export const TURNED: usize = STRIP * DEPTH * 4
const EDGE: usize = TURNED + ROWS * DEPTH * 4

// Tiles of four rows and the packed columns from `first` to `last`; `to` is the first row of the result, D its width.
export function products(
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

// Packs `depth` rows of a stored matrix of width D, from value number `from` on, as panels [depth, 8] of the columns from `first`
// to `last`; columns that are not there are zeros.
export function pack<T>(
  values: usize,
  scales: usize,
  from: usize,
  D: usize,
  depth: usize,
  first: usize,
  last: usize,
): void {
  let panel = scratch
  for (let d = first; d < last; d += COLUMNS) {
    let at = from + d
    if (d + COLUMNS <= last) {
      for (let k: usize = 0; k < depth; k++, at += D, panel += COLUMNS * 4) {
        v128.store(panel, stored4<T>(values, scales, at))
        v128.store(panel, stored4<T>(values, scales, at + 4), 16)
      }
    } else {
      for (let k: usize = 0; k < depth; k++, at += D, panel += COLUMNS * 4) {
        v128.store(panel, f32x4.splat(0))
        v128.store(panel, f32x4.splat(0), 16)
        for (let c: usize = 0; c < last - d; c++)
          v128.store_lane<f32>(panel + c * 4, stored1<T>(values, scales, at + c), 0)
      }
    }
  }
}
