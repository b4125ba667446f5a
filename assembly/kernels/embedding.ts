// Copies one row of the table for each token.

import { gather } from '../rows'

export function embedding<T>(
  table: usize,
  table_scale: usize,
  tokens: usize,
  y: usize,
  V: u32,
  D: u32,
  N: u32,
  start: u32,
  end: u32,
): void {
  gather<T>(table, table_scale, tokens, y, V, D, start, end)
}
