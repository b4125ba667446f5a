// y = x weight^T for a few rows, weights stored in f32.

import { map_vec } from '../linear'

export function linear_vec(x: usize, weight: usize, y: usize, N: u32, D: u32, O: u32, start: u32, end: u32): void {
  map_vec<f32>(x, weight, y, N, D, O, start, end)
}
