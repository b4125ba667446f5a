// Writes keys and values as rows of a cache, in the cache's type.

import { narrow } from '../widen'

export function cache_rows<T>(
  kv: usize,
  kv_scale: usize,
  k: usize,
  v: usize,
  rows: usize,
  M: u32,
  W: usize,
  N: u32,
  start: usize,
  end: usize,
): void {
  const half = W / 2
  for (let n = start; n < end; n++) {
    const row = load<u32>(rows + n * 4)
    if (row >= M) continue
    const to = kv + <usize>row * W * sizeof<T>()
    narrow<T>(k + n * half * 4, half, to)
    narrow<T>(v + n * half * 4, half, to + half * sizeof<T>())
  }
}
