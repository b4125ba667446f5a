// y = x weight^T for many rows.

import { scratch } from '../scratch'
import { COLUMNS, ROWS, pack_stored, put_edge, tile } from '../tile'

// Terms of a sum that are added before the sum goes to y: bounds the scratch memory, and the rounding error.
export const DEPTH: usize = 2048

// y[n, o] for all n and start <= o < end. Eight rows of the weights at a time are widened and packed into scratch
// memory, then used for all rows of x.
export function linear<T>(
  x: usize,
  weight: usize,
  weight_scale: usize,
  y: usize,
  N: usize,
  D: usize,
  O: usize,
  start: usize,
  end: usize,
): void {
  const panel = scratch
  const edge = panel + DEPTH * COLUMNS * 4
  for (let d: usize = 0; d < D; d += DEPTH) {
    const depth = min(DEPTH, D - d)
    for (let o = start; o < end; o += COLUMNS) {
      const columns = min(COLUMNS, end - o)
      pack_stored<T>(weight, weight_scale, o * D + d, D, columns, depth, panel)
      for (let n: usize = 0; n < N; n += ROWS) {
        const rows = min(ROWS, N - n)
        const x0 = x + (n * D + d) * 4
        const x1 = x0 + min(1, rows - 1) * D * 4
        const x2 = x0 + min(2, rows - 1) * D * 4
        const x3 = x0 + min(3, rows - 1) * D * 4
        const to = y + (n * O + o) * 4
        if (rows == ROWS && columns == COLUMNS) {
          tile(x0, x1, x2, x3, panel, depth, to, O * 4, d > 0)
        } else {
          tile(x0, x1, x2, x3, panel, depth, edge, COLUMNS * 4, false)
          put_edge(edge, to, O * 4, rows, columns, d > 0)
        }
      }
    }
  }
}
