// dx = dy weight.

import { DEPTH, STRIP, pack, products } from '../linear_grad'
import { ROWS } from '../tile'

export function linear_grad_input<T>(
  dy: usize,
  weight: usize,
  weight_scale: usize,
  dx: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
): void {
  grad_input<T>(dy, weight, weight_scale, dx, N, O, D, start, end, false)
}

// dx[n, d] = sum over o of dy[n, o] * weight[o, d] (or dx += with `add`) for all n and start <= d < end.
export function grad_input<T>(
  dy: usize,
  weight: usize,
  weight_scale: usize,
  dx: usize,
  N: usize,
  O: usize,
  D: usize,
  start: usize,
  end: usize,
  add: bool,
): void {
  for (let o: usize = 0; o < O; o += DEPTH) {
    const depth = min(DEPTH, O - o)
    for (let first = start; first < end; first += STRIP) {
      const last = min(first + STRIP, end)
      pack<T>(weight, weight_scale, o * D, D, depth, first, last)
      for (let n: usize = 0; n < N; n += ROWS) {
        const rows = min(ROWS, N - n)
        const from = dy + (n * O + o) * 4
        const stride = O * 4
        const x1 = from + min(1, rows - 1) * stride
        const x2 = from + min(2, rows - 1) * stride
        const x3 = from + min(3, rows - 1) * stride
        products(from, x1, x2, x3, depth, dx + n * D * 4, D, rows, first, last, add || o > 0)
      }
    }
  }
}
