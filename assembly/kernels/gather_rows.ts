// Copies the listed rows.

import { gather } from '../rows'

export function gather_rows(x: usize, rows: usize, y: usize, N: u32, D: u32, B: u32, start: u32, end: u32): void {
  gather<f32>(x, 0, rows, y, N, D, start, end)
}
