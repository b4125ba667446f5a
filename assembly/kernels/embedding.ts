// Copies one row of the table for each token, the table stored in f32.

import { gather } from '../rows'

export function embedding(
  table: usize,
  tokens: usize,
  y: usize,
  V: u32,
  D: u32,
  N: u32,
  start: u32,
  end: u32,
): void {
  gather<f32>(table, tokens, y, V, D, start, end)
}
