// Gradient of attention to its queries, in the planned blocks of the forward pass: scores are computed again, 4 x 64 at a time.

import { KEYS, packKeys, packValues } from '../attention_panels'
import { exp, loadPart, storePart } from '../math'
import { scratch } from '../scratch'
import { COLUMNS, ROWS, tile } from '../tile'

const QUERIES: usize = 64
const BLOCK: usize = 24
const CHANNELS: usize = 256

// The scratch memory: byte offsets.
const ROW_BYTES = QUERIES * CHANNELS * 4
const Q: usize = 0 // [QUERIES, C] scaled queries
const DY = Q + ROW_BYTES // [QUERIES, C]
const K = DY + ROW_BYTES // [KEYS / 8, C, 8] keys
const V = K + ROW_BYTES // [KEYS / 8, C, 8] values
const KC = V + ROW_BYTES // [C / 8, KEYS, 8] keys by channels
const SUM = KC + ROW_BYTES // [QUERIES, C rounded up to 8]
const SCORE = SUM + ROW_BYTES // [4, KEYS]
const SLOPE = SCORE + ROWS * KEYS * 4 // [4, KEYS]
const EDGE = SLOPE + ROWS * KEYS * 4 // [COLUMNS, C]

export function attention_grad_query(
  q: usize,
  k: usize,
  v: usize,
  plan: usize,
  dy: usize,
  stats: usize,
  dq: usize,
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
  for (let i = start; i < end; i++) {
    const h = i / B
    const g = (h * G) / H
    const block = plan + <usize>(i - h * B) * BLOCK
    const n = load<u32>(block)
    const count = load<u32>(block, 4)
    const prefix = load<u32>(block, 8)
    const ahead = load<u32>(block, 12)
    const own = load<u32>(block, 16)
    const position = load<u32>(block, 20)
    if (count > <u32>QUERIES || n + count > N || prefix + ahead > N || own + position + count > N) unreachable()
    const row = (<usize>n * H + h) * C * 4
    copyRows(q + row, scratch + Q, H, C, count, scale)
    copyRows(dy + row, scratch + DY, H, C, count, 1)
    blockOf(
      k + <usize>g * C * 4,
      v + <usize>g * C * 4,
      stats + (<usize>n * H + h) * 8,
      dq + row,
      H,
      C,
      G,
      scale,
      ahead + position,
      count,
      prefix,
      ahead,
      own,
    )
  }
}

// Rows up to the next multiple of four repeat the last one.
function copyRows(from: usize, to: usize, H: usize, C: usize, rows: usize, factor: f32): void {
  const padded = (rows + ROWS - 1) & ~(ROWS - 1)
  for (let r: usize = 0; r < padded; r++, to += C * 4) {
    const row = from + min(r, rows - 1) * H * C * 4
    for (let c: usize = 0; c < C; c += 4) {
      storePart(to + c * 4, f32x4.mul(loadPart(row + c * 4, <u32>(C - c)), f32x4.splat(factor)), <u32>(C - c))
    }
  }
}

function blockOf(
  k: usize,
  v: usize,
  stats: usize,
  dq: usize,
  H: usize,
  C: usize,
  G: usize,
  scale: f32,
  before: usize,
  rows: usize,
  prefix: usize,
  ahead: usize,
  own: usize,
): void {
  const width = (C + COLUMNS - 1) & ~(COLUMNS - 1)
  const last = before + rows - 1
  const stride = G * C * 4
  for (let key: usize = 0; key <= last; key += KEYS) {
    const keys = min(KEYS, last - key + 1)
    const within = key < ahead ? min(keys, ahead - key) : 0
    const first = (prefix + key) * stride
    const second = (own + key - ahead) * stride
    packKeys(k + first, k + second, stride, within, keys, C, scratch + K, scratch + EDGE)
    packKeys(v + first, v + second, stride, within, keys, C, scratch + V, scratch + EDGE)
    packValues(k + first, stride, 0, within, C, scratch + KC)
    packValues(k + second, stride, within, keys, C, scratch + KC)
    for (let r: usize = 0; r < rows; r += ROWS) {
      const lowest = before + r
      const highest = min(lowest + ROWS - 1, last)
      if (highest < key) continue
      addKeys(r, rows, lowest, key, min(keys, highest - key + 1), stats, H, C, scale, width)
    }
  }
  for (let r: usize = 0; r < rows; r++) {
    const from = scratch + SUM + r * width * 4
    const to = dq + r * H * C * 4
    for (let c: usize = 0; c < C; c += 4) storePart(to + c * 4, v128.load(from + c * 4), <u32>(C - c))
  }
}

// Adds a tile of keys to four rows: p = exp(score - lse), dscore = p * (dy . v - delta), dq += scale * dscore * k.
function addKeys(
  r: usize,
  rows: usize,
  lowest: usize,
  key: usize,
  keys: usize,
  stats: usize,
  H: usize,
  C: usize,
  scale: f32,
  width: usize,
): void {
  const score = scratch + SCORE
  const slope = scratch + SLOPE
  const stride = KEYS * 4
  const line = C * 4
  const q = scratch + Q + r * line
  const dy = scratch + DY + r * line
  for (let j: usize = 0; j < keys; j += COLUMNS) {
    const panel = j * C * 4
    tile(q, q + line, q + 2 * line, q + 3 * line, scratch + K + panel, C, score + j * 4, stride, false)
    tile(dy, dy + line, dy + 2 * line, dy + 3 * line, scratch + V + panel, C, slope + j * 4, stride, false)
  }
  const filled = (keys + COLUMNS - 1) & ~(COLUMNS - 1)
  for (let i: usize = 0; i < ROWS; i++) {
    const row = score + i * stride
    const own = stats + min(r + i, rows - 1) * H * 8
    const lse = v128.load_splat<f32>(own)
    const delta = v128.load_splat<f32>(own, 4)
    for (let j: usize = 0; j < filled; j += 4) {
      const p = exp(f32x4.sub(v128.load(row + j * 4), lse))
      const d = f32x4.sub(v128.load(slope + i * stride + j * 4), delta)
      v128.store(row + j * 4, f32x4.mul(f32x4.mul(p, d), f32x4.splat(scale)))
    }
    // Later keys, and the columns that fill the last panel, count nothing.
    const seen = max<isize>(0, <isize>(lowest + i) - <isize>key + 1)
    for (let j = min(<usize>seen, filled); j < filled; j++) store<f32>(row + j * 4, 0)
  }
  const sum = scratch + SUM + r * width * 4
  for (let c: usize = 0; c < width; c += COLUMNS) {
    const panel = scratch + KC + c * KEYS * 4
    tile(score, score + stride, score + 2 * stride, score + 3 * stride, panel, keys, sum + c * 4, width * 4, key > 0)
  }
}
