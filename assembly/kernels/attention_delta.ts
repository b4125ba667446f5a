// stats = lse and the row sums of dy * y, side by side.

import { loadPart, madd, sumLanes } from '../math'

export function attention_delta(
  y: usize,
  dy: usize,
  lse: usize,
  stats: usize,
  N: u32,
  H: u32,
  C: u32,
  start: u32,
  end: u32,
): void {
  for (let i: usize = start; i < end; i++) {
    const row = i * C * 4
    let sums = f32x4.splat(0)
    for (let c: u32 = 0; c < C; c += 4) {
      sums = madd(sums, loadPart(dy + row + c * 4, C - c), loadPart(y + row + c * 4, C - c))
    }
    store<f32>(stats + i * 8, load<f32>(lse + i * 4))
    store<f32>(stats + i * 8, sumLanes(sums), 4)
  }
}
