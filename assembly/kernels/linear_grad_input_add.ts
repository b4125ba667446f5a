// dx += dy weight.

import { grad_input } from './linear_grad_input'

export function linear_grad_input_add<T>(
  dy: usize,
  weight: usize,
  weight_scale: usize,
  dx: usize,
  N: u32,
  O: u32,
  D: u32,
  start: u32,
  end: u32,
): void {
  grad_input<T>(dy, weight, weight_scale, dx, N, O, D, start, end, true)
}
