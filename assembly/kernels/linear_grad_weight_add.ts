// dweight += dy^T x.

import { grad_weight } from './linear_grad_weight'

export function linear_grad_weight_add(
  dy: usize,
  x: usize,
  dweight: usize,
  N: u32,
  O: u32,
  D: u32,
  start: u32,
  end: u32,
): void {
  grad_weight(dy, x, dweight, N, O, D, start, end, true)
}
