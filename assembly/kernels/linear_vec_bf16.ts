// y = x weight^T for a few rows, weights stored in bfloat16.

import { map_vec } from '../linear'
import { bf16 } from '../widen'

export function linear_vec_bf16(x: usize, weight: usize, y: usize, N: u32, D: u32, O: u32, start: u32, end: u32): void {
  map_vec<bf16>(x, weight, y, N, D, O, start, end)
}
