// One query of each sequence on rows of a cache, with an online softmax: scores exist for 64 keys at a time.

import { exp, loadPart, madd, maxLanes, storePart, sumLanes } from '../math'
import { scratch } from '../scratch'
import { stored1, stored4 } from '../widen'

// Keys of a tile.
const KEYS: usize = 64
// Channels that are summed at a time, in eight registers.
const BLOCK: usize = 32
// Largest number of channels per head; the arrays below have room for as many.
const CHANNELS: usize = 256

// The scratch memory: byte offsets.
const Q: usize = 0 // [C] the scaled query, zeros up to a multiple of four
const SUM = Q + CHANNELS * 4 // [C] sums of exp(score - largest) v
const SCORE = SUM + CHANNELS * 4 // [KEYS]
const ROW = SCORE + KEYS * 4 // [KEYS] number of the first value of each key's row

export function attention_decode<T>(
  q: usize,
  kv: usize,
  kv_scale: usize,
  plan: usize,
  y: usize,
  N: u32,
  H: u32,
  C: u32,
  M: u32,
  W: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  if (C > <u32>CHANNELS) unreachable()
  const half = W / 2
  const G = half / C
  for (let i = start; i < end; i++) {
    const n = i / H
    const g = ((i - n * H) * G) / H
    const own = plan + <usize>n * 16
    const count = load<u32>(own)
    const prefix = load<u32>(own, 4)
    const ahead = load<u32>(own, 8)
    const first = load<u32>(own, 12)
    if (prefix + ahead > M || (count > ahead && first + count - ahead > M)) unreachable()
    attend<T>(q + <usize>i * C * 4, kv, y + <usize>i * C * 4, C, W, half, g * C, scale, count, prefix, ahead, first)
  }
}

// Of one head: key number j is in row prefix + j where j < ahead, else in row own + j - ahead, from value `at` of it on.
function attend<T>(
  q: usize,
  kv: usize,
  y: usize,
  C: usize,
  W: usize,
  half: usize,
  at: usize,
  scale: f32,
  count: usize,
  prefix: usize,
  ahead: usize,
  own: usize,
): void {
  const factor = f32x4.splat(scale)
  for (let c: usize = 0; c < C; c += 4) {
    v128.store(scratch + c * 4, f32x4.mul(loadPart(q + c * 4, <u32>(C - c)), factor), Q)
    v128.store(scratch + c * 4, f32x4.splat(0), SUM)
  }
  let top = -Infinity as f32
  let total: f32 = 0
  for (let key: usize = 0; key < count; key += KEYS) {
    const keys = min(KEYS, count - key)
    let largest = top
    for (let s: usize = 0; s < keys; s++) {
      const j = key + s
      const value = (j < ahead ? prefix + j : own + j - ahead) * W + at
      store<u32>(scratch + s * 4, <u32>value, ROW)
      const score = dot<T>(kv, value, C)
      store<f32>(scratch + s * 4, score, SCORE)
      largest = max(largest, score)
    }
    // Lanes behind the last key get a weight of zero.
    for (let s = keys; s & 3; s++) store<f32>(scratch + s * 4, -Infinity, SCORE)
    const tops = f32x4.splat(largest)
    let sums = f32x4.splat(0)
    for (let s: usize = 0; s < keys; s += 4) {
      const weight = exp(f32x4.sub(v128.load(scratch + s * 4, SCORE), tops))
      v128.store(scratch + s * 4, weight, SCORE)
      sums = f32x4.add(sums, weight)
    }
    const kept = exp(f32x4.sub(f32x4.splat(top), tops))
    total = total * f32x4.extract_lane(kept, 0) + sumLanes(sums)
    top = largest
    for (let c: usize = 0; c < C; c += BLOCK) addValues<T>(kv, half + c, min(BLOCK, C - c), keys, kept, scratch + SUM + c * 4)
  }
  const share: f32 = total > 0 ? 1 / total : 0
  for (let c: usize = 0; c < C; c += 4) {
    storePart(y + c * 4, f32x4.mul(v128.load(scratch + c * 4, SUM), f32x4.splat(share)), <u32>(C - c))
  }
}

// The scaled query times C values from number i on.
@inline
function dot<T>(kv: usize, i: usize, C: usize): f32 {
  let a = f32x4.splat(0)
  let b = a
  let c: usize = 0
  for (; c + 8 <= C; c += 8) {
    a = madd(a, v128.load(scratch + c * 4, Q), stored4<T>(kv, 0, i + c))
    b = madd(b, v128.load(scratch + c * 4, Q + 16), stored4<T>(kv, 0, i + c + 4))
  }
  if (c + 4 <= C) {
    a = madd(a, v128.load(scratch + c * 4, Q), stored4<T>(kv, 0, i + c))
    c += 4
  }
  let sum = sumLanes(f32x4.add(a, b))
  for (; c < C; c++) sum += load<f32>(scratch + c * 4, Q) * f32x4.extract_lane(stored1<T>(kv, 0, i + c), 0)
  return sum
}

// sum = sum * kept + the tile's weighted values, of up to 32 channels: `from` is added to the first value of each row.
function addValues<T>(kv: usize, from: usize, channels: usize, keys: usize, kept: v128, sum: usize): void {
  if (channels < BLOCK) {
    for (let c: usize = 0; c < channels; c += 4) {
      let a = f32x4.mul(v128.load(sum + c * 4), kept)
      for (let s: usize = 0; s < keys; s++) {
        const i = <usize>load<u32>(scratch + s * 4, ROW) + from + c
        let value: v128
        if (c + 4 <= channels) value = stored4<T>(kv, 0, i)
        else {
          value = stored1<T>(kv, 0, i)
          if (c + 1 < channels) value = v128.shuffle<f32>(value, stored1<T>(kv, 0, i + 1), 0, 4, 1, 1)
          if (c + 2 < channels) value = v128.shuffle<f32>(value, stored1<T>(kv, 0, i + 2), 0, 1, 4, 4)
        }
        a = madd(a, v128.load_splat<f32>(scratch + s * 4, SCORE), value)
      }
      v128.store(sum + c * 4, a)
    }
    return
  }
  let a0 = f32x4.mul(v128.load(sum), kept)
  let a1 = f32x4.mul(v128.load(sum, 16), kept)
  let a2 = f32x4.mul(v128.load(sum, 32), kept)
  let a3 = f32x4.mul(v128.load(sum, 48), kept)
  let a4 = f32x4.mul(v128.load(sum, 64), kept)
  let a5 = f32x4.mul(v128.load(sum, 80), kept)
  let a6 = f32x4.mul(v128.load(sum, 96), kept)
  let a7 = f32x4.mul(v128.load(sum, 112), kept)
  for (let s: usize = 0; s < keys; s++) {
    const i = <usize>load<u32>(scratch + s * 4, ROW) + from
    const weight = v128.load_splat<f32>(scratch + s * 4, SCORE)
    a0 = madd(a0, weight, stored4<T>(kv, 0, i))
    a1 = madd(a1, weight, stored4<T>(kv, 0, i + 4))
    a2 = madd(a2, weight, stored4<T>(kv, 0, i + 8))
    a3 = madd(a3, weight, stored4<T>(kv, 0, i + 12))
    a4 = madd(a4, weight, stored4<T>(kv, 0, i + 16))
    a5 = madd(a5, weight, stored4<T>(kv, 0, i + 20))
    a6 = madd(a6, weight, stored4<T>(kv, 0, i + 24))
    a7 = madd(a7, weight, stored4<T>(kv, 0, i + 28))
  }
  v128.store(sum, a0)
  v128.store(sum, a1, 16)
  v128.store(sum, a2, 32)
  v128.store(sum, a3, 48)
  v128.store(sum, a4, 64)
  v128.store(sum, a5, 80)
  v128.store(sum, a6, 96)
  v128.store(sum, a7, 112)
}
