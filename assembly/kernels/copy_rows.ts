// Copies rows into a larger matrix from a given row on.

export function copy_rows(x: usize, y: usize, N: u32, D: u32, M: u32, first: u32, start: u32, end: u32): void {
  if (first >= M) return
  const last = min(end, M - first)
  if (start >= last) return
  const row = <usize>D * 4
  memory.copy(y + (<usize>first + start) * row, x + <usize>start * row, (<usize>last - start) * row)
}
