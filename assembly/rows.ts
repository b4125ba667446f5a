// Gathers rows of a matrix by number.

import { widen } from './widen'

// y[i] = table[index[i]] as f32 for start <= i < end; a number past the last row is taken as the last row.
export function gather<T>(
  table: usize,
  scales: usize,
  index: usize,
  y: usize,
  rows: usize,
  D: usize,
  start: usize,
  end: usize,
): void {
  for (let i = start; i < end; i++) {
    const row = min(<usize>load<u32>(index + i * 4), rows - 1)
    const to = y + i * D * 4
    if (isFloat<T>()) memory.copy(to, table + row * D * 4, D * 4)
    else widen<T>(table, scales, row * D, D, to)
  }
}
