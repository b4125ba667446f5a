// dweight = dy^T x.

import { DEPTH, STRIP, TURNED, pack, products } from '../linear_grad'
import { scratch } from '../scratch'
import { ROWS } from '../tile'

export function linear_grad_weight(
  dy: usize,
  x: usize,
  dweight: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
): void {
  grad_weight(dy, x, dweight, N, O, D, start, end, false)
}

// dweight[o, d] = sum over n of dy[n, o] * x[n, d] (or dweight += with `add`) for all o and start <= d < end.
export function grad_weight(
  dy: usize,
  x: usize,
  dweight: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
  add: bool,
): void {
  const turned = scratch + TURNED
  const line = DEPTH * 4
  for (let n: usize = 0; n < N; n += DEPTH) {
    const depth = min(DEPTH, N - n)
    for (let first = start; first < end; first += STRIP) {
      const last = min(first + STRIP, end)
      pack<f32>(x, 0, n * D, D, depth, first, last)
      for (let o: usize = 0; o < O; o += ROWS) {
        const rows = min(ROWS, O - o)
        turn(dy + (n * O + o) * 4, O * 4, depth, rows, turned)
        const to = dweight + o * D * 4
        products(turned, turned + line, turned + 2 * line, turned + 3 * line, depth, to, D, rows, first, last, add || n > 0)
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
