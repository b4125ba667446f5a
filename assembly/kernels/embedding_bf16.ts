// Copies one row of the table for each token, the table stored in bfloat16.

import { gather } from '../rows'
import { bf16 } from '../widen'

export function embedding_bf16(
  table: usize,
  tokens: usize,
  y: usize,
  V: u32,
  D: u32,
  N: u32,
  start: u32,
  end: u32,
): void {
  gather<bf16>(table, tokens, y, V, D, start, end)
}
