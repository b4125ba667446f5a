// Copies one row of the table for each token, the table stored in half precision.

import { gather } from '../rows'
import { f16 } from '../widen'

export function embedding_f16(
  table: usize,
  tokens: usize,
  y: usize,
  V: u32,
  D: u32,
  N: u32,
  start: u32,
  end: u32,
): void {
  gather<f16>(table, tokens, y, V, D, start, end)
}
