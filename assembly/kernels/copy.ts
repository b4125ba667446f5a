// Copies x to y: the bound of memory bandwidth for benchmarks.

export function copy(x: usize, y: usize, N: u32, start: u32, end: u32): void {
  memory.copy(y + <usize>start * 4, x + <usize>start * 4, <usize>(end - start) * 4)
}
