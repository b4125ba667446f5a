// Causal grouped-query attention in planned blocks with an online softmax: scores exist for 4 x 64 pairs at a time.
// Dao et al. 2022, algorithm 1, with blocks of keys outside and rows of queries inside.

import { exp, loadPart, log, maxLanes, storePart, sumLanes } from '../math'
import { scratch } from '../scratch'
import { KEYS, packKeys, packValues } from '../attention_panels'
import { COLUMNS, ROWS, tile } from '../tile'

// Most queries of a block, which share packed tiles of keys and values.
const QUERIES: usize = 64
// Bytes of a planned block.
const BLOCK: usize = 24
// Largest number of channels per head; the arrays below have room for as many.
const CHANNELS: usize = 256

// The scratch memory: byte offsets.
const ROW_BYTES = QUERIES * CHANNELS * 4
const Q: usize = 0 // [QUERIES, C] scaled queries
const K = Q + ROW_BYTES // [KEYS / 8, C, 8] packed keys
const V = K + ROW_BYTES // [C / 8, KEYS, 8] packed values
const SUM = V + ROW_BYTES // [QUERIES, C rounded up to 8] sums of exp(score - largest) v
const SCORE = SUM + ROW_BYTES // [4, KEYS]
const LARGEST = SCORE + ROWS * KEYS * 4 // [QUERIES] largest score of each row so far
const TOTAL = LARGEST + QUERIES * 4 // [QUERIES] sum of exp(score - largest)
const NEXT = TOTAL + QUERIES * 4 // [4] largest scores after the tile in work
const EDGE = NEXT + ROWS * 4 // [COLUMNS, C] keys on both sides of a prefix's end

export function attention(
  q: usize,
  k: usize,
  v: usize,
  plan: usize,
  y: usize,
  lse: usize,
  Q: u32,
  H: u32,
  C: u32,
  N: u32,
  G: u32,
  B: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  // The scratch arrays are sized for CHANNELS; a trap is better than writing past them.
  if (C > <u32>CHANNELS) unreachable()
  for (let i = start; i < end; i++) {
    const h = i / B
    const g = (h * G) / H
    const block = plan + <usize>(i - h * B) * BLOCK
    const n = load<u32>(block)
    const count = load<u32>(block, 4)
    const ahead = load<u32>(block, 12)
    const position = load<u32>(block, 20)
    const own = load<u32>(block, 16)
    if (count > <u32>QUERIES || n + count > Q || load<u32>(block, 8) + ahead > N || own + position + count > N) {
      unreachable()
    }
    attend(
      q + (<usize>n * H + h) * C * 4,
      k + <usize>g * C * 4,
      v + <usize>g * C * 4,
      y + (<usize>n * H + h) * C * 4,
      lse + (<usize>n * H + h) * 4,
      H,
      C,
      G,
      scale,
      ahead + position,
      count,
      load<u32>(block, 8),
      ahead,
      own,
    )
  }
}

// One block of one head: key number j is row prefix + j of k where j < ahead, else row own + j - ahead; the first query
// stands at key number `before`.
function attend(
  q: usize,
  k: usize,
  v: usize,
  y: usize,
  lse: usize,
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
  // Rows up to the next multiple of four repeat the last one.
  const padded = (rows + ROWS - 1) & ~(ROWS - 1)
  for (let r: usize = 0; r < padded; r++) {
    const from = q + min(r, rows - 1) * H * C * 4
    const to = scratch + Q + r * C * 4
    for (let c: usize = 0; c < C; c += 4) {
      storePart(to + c * 4, f32x4.mul(loadPart(from + c * 4, <u32>(C - c)), f32x4.splat(scale)), <u32>(C - c))
    }
    store<f32>(scratch + LARGEST + r * 4, -Infinity)
    store<f32>(scratch + TOTAL + r * 4, 0)
  }
  const last = before + rows - 1
  const stride = G * C * 4
  for (let key: usize = 0; key <= last; key += KEYS) {
    const keys = min(KEYS, last - key + 1)
    // Keys of this tile that lie in the prefix; the others begin where the difference of rows may wrap around and back.
    const within = key < ahead ? min(keys, ahead - key) : 0
    const first = (prefix + key) * stride
    const second = (own + key - ahead) * stride
    packKeys(k + first, k + second, stride, within, keys, C, scratch + K, scratch + EDGE)
    packValues(v + first, stride, 0, within, C, scratch + V)
    packValues(v + second, stride, within, keys, C, scratch + V)
    for (let r: usize = 0; r < padded; r += ROWS) {
      const lowest = before + r
      const highest = min(lowest + ROWS - 1, last)
      if (highest >= key) addKeys(r, lowest, last, key, min(keys, highest - key + 1), C, width)
    }
  }
  for (let r: usize = 0; r < rows; r++) {
    const total = load<f32>(scratch + TOTAL + r * 4)
    const from = scratch + SUM + r * width * 4
    const to = y + r * H * C * 4
    for (let c: usize = 0; c < C; c += 4) {
      storePart(to + c * 4, f32x4.div(v128.load(from + c * 4), f32x4.splat(total)), <u32>(C - c))
    }
    store<f32>(lse + r * H * 4, load<f32>(scratch + LARGEST + r * 4) + log(total))
  }
}

// Adds a tile of keys to four rows: scores, softmax so far, sums of values. Row i of the four sees the keys up to
// number min(lowest + i, last); `keys` is what the last of them sees of this tile.
function addKeys(r: usize, lowest: usize, last: usize, key: usize, keys: usize, C: usize, width: usize): void {
  const score = scratch + SCORE
  const stride = KEYS * 4
  const queries = scratch + Q + r * C * 4
  for (let j: usize = 0; j < keys; j += COLUMNS) {
    const panel = scratch + K + j * C * 4
    tile(queries, queries + C * 4, queries + C * 8, queries + C * 12, panel, C, score + j * 4, stride, false)
  }
  // Later keys, and the columns that fill the last panel, get a weight of zero.
  const filled = (keys + COLUMNS - 1) & ~(COLUMNS - 1)
  for (let i: usize = 0; i < ROWS; i++) {
    const row = score + i * stride
    const seen = max<isize>(0, <isize>min(lowest + i, last) - <isize>key + 1)
    for (let j = min(<usize>seen, filled); j < filled; j++) store<f32>(row + j * 4, -Infinity)
    let largest = v128.load(row)
    for (let j: usize = 4; j < filled; j += 4) largest = f32x4.max(largest, v128.load(row + j * 4))
    store<f32>(scratch + NEXT + i * 4, maxLanes(largest))
  }
  const state = scratch + r * 4
  const before = v128.load(state, LARGEST)
  const after = f32x4.max(before, v128.load(scratch, NEXT))
  // What the sums so far are worth relative to the new largest score; 0 in the first tile.
  const worth = exp(f32x4.sub(before, after))
  v128.store(state, after, LARGEST)
  v128.store(state, f32x4.mul(v128.load(state, TOTAL), worth), TOTAL)
  v128.store(scratch, worth, NEXT)
  for (let i: usize = 0; i < ROWS; i++) {
    const row = score + i * stride
    const largest = v128.load_splat<f32>(state + i * 4, LARGEST)
    let sums = f32x4.splat(0)
    for (let j: usize = 0; j < filled; j += 4) {
      const e = exp(f32x4.sub(v128.load(row + j * 4), largest))
      v128.store(row + j * 4, e)
      sums = f32x4.add(sums, e)
    }
    const total = state + i * 4
    store<f32>(total, load<f32>(total, TOTAL) + sumLanes(sums), TOTAL)
  }
  const sum = scratch + SUM + r * width * 4
  if (key > 0) {
    for (let i: usize = 0; i < ROWS; i++) {
      const factor = v128.load_splat<f32>(scratch + i * 4, NEXT)
      const row = sum + i * width * 4
      for (let c: usize = 0; c < width; c += 4) v128.store(row + c * 4, f32x4.mul(v128.load(row + c * 4), factor))
    }
  }
  for (let c: usize = 0; c < width; c += COLUMNS) {
    const panel = scratch + V + c * KEYS * 4
    tile(score, score + stride, score + 2 * stride, score + 3 * stride, panel, keys, sum + c * 4, width * 4, key > 0)
  }
}
