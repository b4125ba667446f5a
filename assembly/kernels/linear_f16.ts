// y = x weight^T for many rows, weights stored in half precision.

import { map } from '../linear'
import { f16 } from '../widen'

export function linear_f16(x: usize, weight: usize, y: usize, N: u32, D: u32, O: u32, start: u32, end: u32): void {
  map<f16>(x, weight, y, N, D, O, start, end)
}
