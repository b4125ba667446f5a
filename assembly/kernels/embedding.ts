// Copies one row of the table for each token.

import { gather } from '../rows'

export function embedding<T>(
  table: usize,
  table_scale: usize,
  tokens: usize,
  y: usize,
  V: usize,
  D: usize,
  N: usize,
  start: usize,
  end: usize,
): void {
  gather<T>(table, table_scale, tokens, y, V, D, start, end)
}
