// dx = dy weight.

import { grad_input } from '../linear_grad'

export function linear_grad_input(
  dy: usize,
  weight: usize,
  dx: usize,
  N: u32,
  O: u32,
  D: u32,
  start: u32,
  end: u32,
): void {
  grad_input(dy, weight, dx, N, O, D, start, end)
}
