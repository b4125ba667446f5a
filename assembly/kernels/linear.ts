// y = x weight^T for many rows, weights stored in f32.

import { map } from '../linear'

export function linear(x: usize, weight: usize, y: usize, N: u32, D: u32, O: u32, start: u32, end: u32): void {
  map<f32>(x, weight, y, N, D, O, start, end)
}
