// Gradients of attention to its keys and values, in blocks of keys: every query head of the group and every query that sees
// them is looped over in order, so that nothing is added by two threads.

import { KEYS, packKeys, packValues } from '../attention_panels'
import { exp, loadPart, storePart } from '../math'
import { scratch } from '../scratch'
import { COLUMNS, ROWS, tile } from '../tile'

// Queries of a tile.
const QUERIES: usize = KEYS
const BLOCK: usize = 12
const CHANNELS: usize = 256

// The scratch memory: byte offsets.
const ROW_BYTES = QUERIES * CHANNELS * 4
const QQ: usize = 0 // [QUERIES / 8, C, 8] queries
const YY = QQ + ROW_BYTES // [QUERIES / 8, C, 8] dy
const QC = YY + ROW_BYTES // [C / 8, QUERIES, 8] queries by channels
const YC = QC + ROW_BYTES // [C / 8, QUERIES, 8] dy by channels
const DK = YC + ROW_BYTES // [KEYS, C rounded up to 8]
const DV = DK + ROW_BYTES // [KEYS, C rounded up to 8]
const SHARE = DV + ROW_BYTES // [4, QUERIES]
const SLOPE = SHARE + ROWS * QUERIES * 4 // [4, QUERIES]
const LSE = SLOPE + ROWS * QUERIES * 4 // [QUERIES]
const DELTA = LSE + QUERIES * 4 // [QUERIES]
const EDGE = DELTA + QUERIES * 4 // [COLUMNS, C]

export function attention_grad_key_value(
  q: usize,
  k: usize,
  v: usize,
  plan: usize,
  dy: usize,
  stats: usize,
  dk: usize,
  dv: usize,
  N: u32,
  H: u32,
  C: u32,
  G: u32,
  B: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  if (C > <u32>CHANNELS) unreachable()
  const heads = H / G
  const width = (<usize>C + COLUMNS - 1) & ~(COLUMNS - 1)
  for (let i = start; i < end; i++) {
    const g = i / B
    const block = plan + <usize>(i - g * B) * BLOCK
    const first = load<u32>(block)
    const count = load<u32>(block, 4)
    const stop = load<u32>(block, 8)
    if (count > <u32>KEYS || first + count > stop || stop > N) unreachable()
    memory.fill(scratch + DK, 0, KEYS * width * 4)
    memory.fill(scratch + DV, 0, KEYS * width * 4)
    const row = (<usize>first * G + g) * C * 4
    for (let h = g * heads; h < (g + 1) * heads; h++) {
      for (let n = first; n < stop; n += <u32>QUERIES) {
        const queries = min(<u32>QUERIES, stop - n)
        const at = <usize>n * H + h
        packQueries(q + at * C * 4, dy + at * C * 4, stats + at * 8, H, C, queries)
        for (let r: u32 = 0; r < count; r += <u32>ROWS) {
          // The first query of the tile that sees the first of the four keys.
          if (n + queries <= first + r) continue
          addQueries(k + row, v + row, r, count, first, n, queries, C, G, scale, width)
        }
      }
    }
    for (let r: usize = 0; r < count; r++) {
      const to = row + r * G * C * 4
      for (let c: usize = 0; c < C; c += 4) {
        const from = (r * width + c) * 4
        storePart(dk + to + c * 4, v128.load(scratch + DK + from), C - <u32>c)
        storePart(dv + to + c * 4, v128.load(scratch + DV + from), C - <u32>c)
      }
    }
  }
}

function packQueries(q: usize, dy: usize, stats: usize, H: usize, C: usize, queries: usize): void {
  const stride = H * C * 4
  packKeys(q, q, stride, queries, queries, C, scratch + QQ, scratch + EDGE)
  packKeys(dy, dy, stride, queries, queries, C, scratch + YY, scratch + EDGE)
  packValues(q, stride, 0, queries, C, scratch + QC)
  packValues(dy, stride, 0, queries, C, scratch + YC)
  for (let i: usize = 0; i < QUERIES; i++) {
    const own = stats + min(i, queries - 1) * H * 8
    store<f32>(scratch + LSE + i * 4, load<f32>(own))
    store<f32>(scratch + DELTA + i * 4, load<f32>(own, 4))
  }
}

// Adds a tile of queries, from row n on, to four keys from row first + r on.
function addQueries(
  k: usize,
  v: usize,
  r: usize,
  count: usize,
  first: usize,
  n: usize,
  queries: usize,
  C: usize,
  G: usize,
  scale: f32,
  width: usize,
): void {
  const share = scratch + SHARE
  const slope = scratch + SLOPE
  const stride = QUERIES * 4
  const line = G * C * 4
  const r1 = min(r + 1, count - 1) * line
  const r2 = min(r + 2, count - 1) * line
  const r3 = min(r + 3, count - 1) * line
  const r0 = r * line
  // Queries before the first of the four keys see none of them.
  const begin = first + r > n ? (first + r - n) & ~(COLUMNS - 1) : 0
  for (let j = begin; j < queries; j += COLUMNS) {
    const panel = j * C * 4
    tile(k + r0, k + r1, k + r2, k + r3, scratch + QQ + panel, C, share + j * 4, stride, false)
    tile(v + r0, v + r1, v + r2, v + r3, scratch + YY + panel, C, slope + j * 4, stride, false)
  }
  const filled = (queries + COLUMNS - 1) & ~(COLUMNS - 1)
  for (let i: usize = 0; i < ROWS; i++) {
    const p_row = share + i * stride
    const d_row = slope + i * stride
    for (let j = begin; j < filled; j += 4) {
      const score = f32x4.mul(v128.load(p_row + j * 4), f32x4.splat(scale))
      const p = exp(f32x4.sub(score, v128.load(scratch + LSE + j * 4)))
      const d = f32x4.sub(v128.load(d_row + j * 4), v128.load(scratch + DELTA + j * 4))
      v128.store(p_row + j * 4, p)
      v128.store(d_row + j * 4, f32x4.mul(f32x4.mul(p, d), f32x4.splat(scale)))
    }
    // Queries before the key do not see it; key first + r + i, queries n and on.
    const key = first + min(r + i, count - 1)
    const blind = key > n ? min(key - n, filled) : 0
    for (let j = begin; j < blind; j++) {
      store<f32>(p_row + j * 4, 0)
      store<f32>(d_row + j * 4, 0)
    }
  }
  const to = r * width * 4
  const seen = queries - begin
  const p = share + begin * 4
  const d = slope + begin * 4
  for (let c: usize = 0; c < width; c += COLUMNS) {
    const panel = c * QUERIES * 4 + begin * COLUMNS * 4
    const dk = scratch + DK + to + c * 4
    const dv = scratch + DV + to + c * 4
    tile(d, d + stride, d + 2 * stride, d + 3 * stride, scratch + QC + panel, seen, dk, width * 4, true)
    tile(p, p + stride, p + 2 * stride, p + 3 * stride, scratch + YC + panel, seen, dv, width * 4, true)
  }
}
