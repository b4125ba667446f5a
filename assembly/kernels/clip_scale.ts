// grad[n] *= clip[1]

import { loadPart, storePart } from '../math'

export function clip_scale(grad: usize, clip: usize, N: u32, start: u32, end: u32): void {
  const factor = v128.load32_splat(clip + 4)
  for (let n: usize = start; n < end; n += 4) {
    const count = end - <u32>n
    storePart(grad + n * 4, f32x4.mul(factor, loadPart(grad + n * 4, count)), count)
  }
}
