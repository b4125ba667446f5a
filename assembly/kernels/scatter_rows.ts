// y[rows[b]] = x[b]; other rows of y stay as they are.

export function scatter_rows(x: usize, rows: usize, y: usize, B: u32, D: u32, N: u32, start: u32, end: u32): void {
  const bytes = <usize>D * 4
  for (let b: usize = start; b < end; b++) memory.copy(y + load<u32>(rows + b * 4) * bytes, x + b * bytes, bytes)
}
