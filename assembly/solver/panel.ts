// The working set: its columns, gathered from the features in their storage type, in blocks of 16, [block, row, 16].

import { madd } from '../math'
import { scratch } from '../scratch'
import { COLUMNS, ROWS, tile } from '../tile'
import { load4 } from '../widen'

/** Rows whose partial sums stay in the first-level cache while the blocks stream by. */
const TILE: u32 = 256
/** A column that is all zeros: padding of the last strip. */
const NONE: u32 = 0xffffffff

/**
 * out[row] = sum over the marked blocks of panel[b, row, :] . p[b, :] for rows in [start, end), summed in f32.
 *
 * marks  u32 [blocks], 0 where p is all zeros
 * p      f32 [blocks, 16]
 * out    f64 [rows]
 */
export function panel_times<T>(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  const sums = scratch
  for (let from = start; from < end; from += TILE) {
    const count = min(TILE, end - from)
    memory.fill(sums, 0, (<usize>count) << 4)
    for (let b: u32 = 0; b < blocks; b++) {
      if (load<u32>(marks + ((<usize>b) << 2)) == 0) continue
      const at = p + ((<usize>b) << 6)
      const p0 = v128.load(at)
      const p1 = v128.load(at, 16)
      const p2 = v128.load(at, 32)
      const p3 = v128.load(at, 48)
      let x = panel + (<usize>b * rows + from) * 16 * sizeof<T>()
      const stop = x + <usize>count * 16 * sizeof<T>()
      let to = sums
      for (; x < stop; x += 16 * sizeof<T>(), to += 16) {
        const s = madd(madd(v128.load(to), load4<T>(x), p0), load4<T>(x + 4 * sizeof<T>()), p1)
        v128.store(to, madd(madd(s, load4<T>(x + 8 * sizeof<T>()), p2), load4<T>(x + 12 * sizeof<T>()), p3))
      }
    }
    for (let k: u32 = 0; k < count; k++) {
      const s = v128.load(sums + ((<usize>k) << 4))
      const sum = f64x2.add(f64x2.promote_low_f32x4(s), high(s))
      store<f64>(out + ((<usize>(from + k)) << 3), f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1))
    }
  }
}

/** The same with every product and sum in f64; p is f64 [blocks, 16]. */
export function panel_times_wide<T>(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  for (let from = start; from < end; from += TILE) {
    const count = min(TILE, end - from)
    for (let k: u32 = 0; k < count; k++) store<f64>(out + ((<usize>(from + k)) << 3), 0)
    for (let b: u32 = 0; b < blocks; b++) {
      if (load<u32>(marks + ((<usize>b) << 2)) == 0) continue
      const at = p + ((<usize>b) << 7)
      let x = panel + (<usize>b * rows + from) * 16 * sizeof<T>()
      let to = out + ((<usize>from) << 3)
      for (let k: u32 = 0; k < count; k++, to += 8) {
        let s = f64x2.splat(0)
        let t = s
        for (let c: usize = 0; c < 128; c += 32, x += 4 * sizeof<T>()) {
          const v = load4<T>(x)
          s = f64x2.add(s, f64x2.mul(f64x2.promote_low_f32x4(v), v128.load(at + c)))
          t = f64x2.add(t, f64x2.mul(high(v), v128.load(at + c, 16)))
        }
        s = f64x2.add(s, t)
        store<f64>(to, load<f64>(to) + f64x2.extract_lane(s, 0) + f64x2.extract_lane(s, 1))
      }
    }
  }
}

/**
 * Adds sum over k of s[k] * panel[b, rowsOf[k], :] to out[b, :] for the blocks in [start, end), in f64.
 *
 * rowsOf  u32 [count]
 * s       f64 [count]
 * out     f64 [blocks, 16]
 */
export function panel_transposed<T>(
  panel: usize,
  rows: u32,
  rowsOf: usize,
  s: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  for (let b = start; b < end; b++) {
    const x = panel + <usize>b * rows * 16 * sizeof<T>()
    const to = out + ((<usize>b) << 7)
    let a0 = v128.load(to)
    let a1 = v128.load(to, 16)
    let a2 = v128.load(to, 32)
    let a3 = v128.load(to, 48)
    let a4 = v128.load(to, 64)
    let a5 = v128.load(to, 80)
    let a6 = v128.load(to, 96)
    let a7 = v128.load(to, 112)
    for (let k: u32 = 0; k < count; k++) {
      const from = x + <usize>load<u32>(rowsOf + ((<usize>k) << 2)) * 16 * sizeof<T>()
      const by = v128.load_splat<f64>(s + ((<usize>k) << 3))
      let v = load4<T>(from)
      a0 = f64x2.add(a0, f64x2.mul(f64x2.promote_low_f32x4(v), by))
      a1 = f64x2.add(a1, f64x2.mul(high(v), by))
      v = load4<T>(from + 4 * sizeof<T>())
      a2 = f64x2.add(a2, f64x2.mul(f64x2.promote_low_f32x4(v), by))
      a3 = f64x2.add(a3, f64x2.mul(high(v), by))
      v = load4<T>(from + 8 * sizeof<T>())
      a4 = f64x2.add(a4, f64x2.mul(f64x2.promote_low_f32x4(v), by))
      a5 = f64x2.add(a5, f64x2.mul(high(v), by))
      v = load4<T>(from + 12 * sizeof<T>())
      a6 = f64x2.add(a6, f64x2.mul(f64x2.promote_low_f32x4(v), by))
      a7 = f64x2.add(a7, f64x2.mul(high(v), by))
    }
    v128.store(to, a0)
    v128.store(to, a1, 16)
    v128.store(to, a2, 32)
    v128.store(to, a3, 48)
    v128.store(to, a4, 64)
    v128.store(to, a5, 80)
    v128.store(to, a6, 96)
    v128.store(to, a7, 112)
  }
}

/**
 * Packs selected rows of selected columns for `syrk`, eight columns at a time, strips in [start, end).
 *
 * slots   u32 [8 strips]          block * 16 + lane of each column; NONE is a column of zeros
 * scale   f32 [slots]             factor of each slot
 * rowsOf  u32 [depth]
 * weight  f32 [depth]
 * left    f32 [8 strips, depth]   values times weight
 * right   f32 [strips, depth, 8]  values
 */
export function pack<T>(
  panel: usize,
  rows: u32,
  slots: usize,
  scale: usize,
  rowsOf: usize,
  weight: usize,
  depth: u32,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  const line = (<usize>depth) << 2
  for (let strip = start; strip < end; strip++) {
    for (let half: usize = 0; half < 8; half += 4) {
      const at = slots + ((<usize>strip * 8 + half) << 2)
      const c0 = load<u32>(at)
      const c1 = load<u32>(at, 4)
      const c2 = load<u32>(at, 8)
      const c3 = load<u32>(at, 12)
      const to = left + (<usize>strip * 8 + half) * line
      let put = right + <usize>strip * line * 8 + half * 4
      // Columns that stand side by side come in one load.
      const aligned = (c0 & 3) == 0 && c1 == c0 + 1 && c2 == c0 + 2 && c3 == c0 + 3
      const x0 = address<T>(panel, rows, c0)
      const x1 = address<T>(panel, rows, c1)
      const x2 = address<T>(panel, rows, c2)
      const x3 = address<T>(panel, rows, c3)
      const factor = f32x4(factorOf(scale, c0), factorOf(scale, c1), factorOf(scale, c2), factorOf(scale, c3))
      let k: usize = 0
      // Four rows at a time, so that a transposed tile gives whole vectors to the left panel.
      for (; k + 16 <= line; k += 16, put += 128) {
        const v0 = f32x4.mul(quad<T>(x0, x1, x2, x3, rowsOf + k, aligned), factor)
        const v1 = f32x4.mul(quad<T>(x0, x1, x2, x3, rowsOf + k + 4, aligned), factor)
        const v2 = f32x4.mul(quad<T>(x0, x1, x2, x3, rowsOf + k + 8, aligned), factor)
        const v3 = f32x4.mul(quad<T>(x0, x1, x2, x3, rowsOf + k + 12, aligned), factor)
        v128.store(put, v0)
        v128.store(put, v1, 32)
        v128.store(put, v2, 64)
        v128.store(put, v3, 96)
        const by = v128.load(weight + k)
        const a = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
        const b = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
        const c = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
        const d = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
        v128.store(to + k, f32x4.mul(v128.shuffle<f32>(a, b, 0, 1, 4, 5), by))
        v128.store(to + line + k, f32x4.mul(v128.shuffle<f32>(a, b, 2, 3, 6, 7), by))
        v128.store(to + 2 * line + k, f32x4.mul(v128.shuffle<f32>(c, d, 0, 1, 4, 5), by))
        v128.store(to + 3 * line + k, f32x4.mul(v128.shuffle<f32>(c, d, 2, 3, 6, 7), by))
      }
      for (; k < line; k += 4, put += 32) {
        let v = f32x4.mul(quad<T>(x0, x1, x2, x3, rowsOf + k, aligned), factor)
        v128.store(put, v)
        v = f32x4.mul(v, v128.load_splat<f32>(weight + k))
        v128.store_lane<f32>(to + k, v, 0)
        v128.store_lane<f32>(to + line + k, v, 1)
        v128.store_lane<f32>(to + 2 * line + k, v, 2)
        v128.store_lane<f32>(to + 3 * line + k, v, 3)
      }
    }
  }
}

// Four columns, from x0 to x3 on, of the row that is named at `name`.
@inline
function quad<T>(x0: usize, x1: usize, x2: usize, x3: usize, name: usize, aligned: bool): v128 {
  const row = <usize>load<u32>(name) * 16 * sizeof<T>()
  if (aligned) return load4<T>(x0 + row)
  if (isFloat<T>()) {
    let v = v128.load32_zero(x0 + row)
    v = v128.load_lane<f32>(x1 + row, v, 1)
    v = v128.load_lane<f32>(x2 + row, v, 2)
    return v128.load_lane<f32>(x3 + row, v, 3)
  }
  // The bits of a bf16 value are the upper half of those of the f32.
  let v = v128.load_lane<u16>(x0 + row, i32x4.splat(0), 1)
  v = v128.load_lane<u16>(x1 + row, v, 3)
  v = v128.load_lane<u16>(x2 + row, v, 5)
  return v128.load_lane<u16>(x3 + row, v, 7)
}

// A column that is not there is read from slot 0 and multiplied by zero.
@inline
function address<T>(panel: usize, rows: u32, slot: u32): usize {
  const real = slot == NONE ? 0 : slot
  return panel + (<usize>(real >> 4) * rows * 16 + (real & 15)) * sizeof<T>()
}

@inline
function factorOf(scale: usize, slot: u32): f32 {
  return slot == NONE ? 0 : load<f32>(scale + ((<usize>slot) << 2))
}

/**
 * Adds left right (see `pack`) to the rows of g from `first` on that lie on or below the diagonal, for the strips of columns
 * in [start, end). g is f32 [size, ld]; size and first are multiples of 8.
 */
export function syrk(
  left: usize,
  right: usize,
  depth: u32,
  g: usize,
  ld: u32,
  size: u32,
  first: u32,
  start: u32,
  end: u32,
): void {
  const line = (<usize>depth) << 2
  const rowBytes = (<usize>ld) << 2
  for (let strip = start; strip < end; strip++) {
    const column = <usize>strip * COLUMNS
    const panel = right + column * line
    for (let i = max(column, <usize>first); i < <usize>size; i += ROWS) {
      const x = left + i * line
      tile(x, x + line, x + 2 * line, x + 3 * line, panel, depth, g + i * rowBytes + column * 4, rowBytes, true)
    }
  }
}

/** Copies what lies below the diagonal of g [size, ld] above it, for rows in [8 start, 8 end). */
export function mirror(g: usize, ld: u32, start: u32, end: u32): void {
  const rowBytes = (<usize>ld) << 2
  for (let i: usize = <usize>start * 8; i < <usize>end * 8; i += 4) {
    for (let j: usize = 0; j <= i; j += 4) {
      const from = g + i * rowBytes + j * 4
      const a = v128.load(from)
      const b = v128.load(from + rowBytes)
      const c = v128.load(from + 2 * rowBytes)
      const d = v128.load(from + 3 * rowBytes)
      const ab0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
      const ab1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
      const cd0 = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
      const cd1 = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
      const to = g + j * rowBytes + i * 4
      if (i == j) {
        // Above the diagonal of the tile only: below it stands the original.
        store<f32>(to + 4, f32x4.extract_lane(b, 0))
        store<f32>(to + 8, f32x4.extract_lane(c, 0))
        store<f32>(to + 12, f32x4.extract_lane(d, 0))
        store<f32>(to + rowBytes + 8, f32x4.extract_lane(c, 1))
        store<f32>(to + rowBytes + 12, f32x4.extract_lane(d, 1))
        store<f32>(to + 2 * rowBytes + 12, f32x4.extract_lane(d, 2))
        continue
      }
      v128.store(to, v128.shuffle<f32>(ab0, cd0, 0, 1, 4, 5))
      v128.store(to + rowBytes, v128.shuffle<f32>(ab0, cd0, 2, 3, 6, 7))
      v128.store(to + 2 * rowBytes, v128.shuffle<f32>(ab1, cd1, 0, 1, 4, 5))
      v128.store(to + 3 * rowBytes, v128.shuffle<f32>(ab1, cd1, 2, 3, 6, 7))
    }
  }
}

@inline
function high(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3))
}
