// Cholesky factor of a part of the Newton matrix in f32, blocked, for threads; its solutions are refined in f64 by the caller.
//
// Per block of WIDTH columns: `factor_block` factors the diagonal block and inverts it, `factor_rows` turns the rows below
// into L and packs them, `factor_update` subtracts their products from what is left. a is f32 [size, ld] row-major, its lower
// triangle is used; size and ld are multiples of 8.

import { scratch } from '../scratch'
import { COLUMNS, ROWS, pack, tile } from '../tile'

/** Columns of a block; known to the caller, too. */
const WIDTH: u32 = 64
/** A pivot below this share of its diagonal element is rounding noise: the coordinate depends on earlier ones. */
const NOISE: f32 = 2e-6
/** Added to the diagonal, as a share of it: what f32 rounding may take away. */
const DAMPING: f32 = 1e-6
/** Replaces such a pivot, so that the coordinate hardly moves. */
const STOP: f32 = 1e18

export function factor_width(): u32 {
  return WIDTH
}

/**
 * a[i, j] = g[support[i], support[j]] for j <= i, the diagonal plus ridge; unit rows from `count` on.
 *
 * g        f32 [*, ld]
 * ridge    f64 [*]
 * support  u32 [count]
 * Rows in [start, end).
 */
export function factor_copy(
  g: usize,
  ld: u32,
  ridge: usize,
  support: usize,
  count: u32,
  a: usize,
  size: u32,
  diagonal: usize,
  start: u32,
  end: u32,
): void {
  for (let i = start; i < end; i++) {
    const to = a + ((<usize>i * size) << 2)
    if (i >= count) {
      memory.fill(to, 0, (<usize>i) << 2)
      store<f32>(to + ((<usize>i) << 2), 1)
      store<f32>(diagonal + ((<usize>i) << 2), 1)
      continue
    }
    const row = load<u32>(support + ((<usize>i) << 2))
    const from = g + ((<usize>row * ld) << 2)
    for (let j: u32 = 0; j < i; j++) {
      store<f32>(to + ((<usize>j) << 2), load<f32>(from + ((<usize>load<u32>(support + ((<usize>j) << 2))) << 2)))
    }
    const own = load<f32>(from + ((<usize>row) << 2)) * (1 + DAMPING) + <f32>load<f64>(ridge + ((<usize>row) << 3))
    store<f32>(to + ((<usize>i) << 2), own)
    store<f32>(diagonal + ((<usize>i) << 2), own)
  }
}

/** Factors a[k .. k + width, k .. k + width] and writes the inverse of the factor, f32 [WIDTH, WIDTH], zeros above its diagonal. */
export function factor_block(a: usize, ld: u32, k: u32, width: u32, diagonal: usize, inverse: usize): void {
  const rowBytes = (<usize>ld) << 2
  const origin = a + <usize>k * rowBytes + ((<usize>k) << 2)
  for (let i: u32 = 0; i < width; i++) {
    const row = origin + <usize>i * rowBytes
    for (let j: u32 = 0; j < i; j++) {
      const other = origin + <usize>j * rowBytes
      const at = row + ((<usize>j) << 2)
      store<f32>(at, (load<f32>(at) - dot(row, other, j)) * load<f32>(inverse + ((<usize>j * (WIDTH + 1)) << 2)))
    }
    const at = row + ((<usize>i) << 2)
    const rest = load<f32>(at) - dot(row, row, i)
    const pivot: f32 = rest > NOISE * load<f32>(diagonal + ((<usize>(k + i)) << 2)) ? sqrt<f32>(rest) : STOP
    store<f32>(at, pivot)
    store<f32>(inverse + ((<usize>i * (WIDTH + 1)) << 2), 1 / pivot)
  }
  // Row i of the inverse: -(1 / L_ii) * sum over m in [j, i) of L_im inverse_mj.
  for (let i: u32 = 0; i < WIDTH; i++) {
    const to = inverse + ((<usize>i * WIDTH) << 2)
    if (i >= width) {
      memory.fill(to, 0, (<usize>WIDTH) << 2)
      continue
    }
    const own = load<f32>(to + ((<usize>i) << 2))
    for (let j: u32 = 0; j < WIDTH; j++) if (j != i) store<f32>(to + ((<usize>j) << 2), 0)
    const row = origin + <usize>i * rowBytes
    for (let m: u32 = 0; m < i; m++) {
      const by = f32x4.splat(-own * load<f32>(row + ((<usize>m) << 2)))
      const from = inverse + ((<usize>m * WIDTH) << 2)
      for (let j: usize = 0; j <= <usize>m; j += 4) {
        const at = to + (j << 2)
        const sum = f32x4.add(v128.load(at), f32x4.mul(by, v128.load(from + (j << 2))))
        v128.store(at, sum)
      }
    }
    // The vectors above may have run over the diagonal, where row m holds zeros: nothing to repair but the pivot.
    store<f32>(to + ((<usize>i) << 2), own)
  }
}

/**
 * Turns rows k + WIDTH + 8 start .. of the block's columns into rows of L, and packs them, negated, as strips
 * [8-row group, WIDTH, 8] for `factor_update`. Only whole blocks have rows below them.
 */
export function factor_rows(a: usize, ld: u32, k: u32, inverse: usize, strips: usize, start: u32, end: u32): void {
  const rowBytes = (<usize>ld) << 2
  const right = scratch
  const kept = scratch + (WIDTH * COLUMNS << 2)
  const line = (<usize>WIDTH) << 2
  for (let group = start; group < end; group++) {
    const rows = a + (<usize>(k + WIDTH) + <usize>group * 8) * rowBytes + ((<usize>k) << 2)
    for (let r: usize = 0; r < 8; r++) memory.copy(kept + r * line, rows + r * rowBytes, line)
    for (let c: usize = 0; c < <usize>WIDTH; c += COLUMNS) {
      pack<f32>(inverse + c * line, line, COLUMNS, WIDTH, right)
      for (let r: usize = 0; r < 8; r += ROWS) {
        const x = kept + r * line
        tile(x, x + line, x + 2 * line, x + 3 * line, right, WIDTH, rows + r * rowBytes + (c << 2), rowBytes, false)
      }
    }
    const strip = strips + (<usize>group * WIDTH * COLUMNS << 2)
    pack<f32>(rows, rowBytes, COLUMNS, WIDTH, strip)
    for (let at: usize = 0; at < line * COLUMNS; at += 16) v128.store(strip + at, f32x4.neg(v128.load(strip + at)))
  }
}

/** Subtracts the block's products from the lower triangle behind it, for the strips of eight columns in [start, end). */
export function factor_update(a: usize, ld: u32, k: u32, size: u32, strips: usize, start: u32, end: u32): void {
  const rowBytes = (<usize>ld) << 2
  const below = <usize>(k + WIDTH)
  for (let strip = start; strip < end; strip++) {
    const column = below + <usize>strip * COLUMNS
    const right = strips + (<usize>strip * WIDTH * COLUMNS << 2)
    for (let i = column; i < <usize>size; i += ROWS) {
      const x = a + i * rowBytes + ((<usize>k) << 2)
      tile(x, x + rowBytes, x + 2 * rowBytes, x + 3 * rowBytes, right, WIDTH, a + i * rowBytes + (column << 2), rowBytes, true)
    }
  }
}

/** Solves L L' x = b in place; b is f32 [size]. */
export function factor_solve(a: usize, ld: u32, size: u32, b: usize): void {
  const rowBytes = (<usize>ld) << 2
  for (let i: u32 = 0; i < size; i++) {
    const row = a + <usize>i * rowBytes
    const at = b + ((<usize>i) << 2)
    store<f32>(at, (load<f32>(at) - dot(row, b, i)) / load<f32>(row + ((<usize>i) << 2)))
  }
  for (let i: i32 = <i32>size - 1; i >= 0; i--) {
    const row = a + <usize>i * rowBytes
    const at = b + ((<usize>i) << 2)
    const x: f32 = load<f32>(at) / load<f32>(row + ((<usize>i) << 2))
    store<f32>(at, x)
    const by = f32x4.splat(-x)
    const whole = (<usize>i & ~3) << 2
    for (let j: usize = 0; j < whole; j += 16) {
      v128.store(b + j, f32x4.add(v128.load(b + j), f32x4.mul(by, v128.load(row + j))))
    }
    for (let j = whole; j < (<usize>i) << 2; j += 4) store<f32>(b + j, load<f32>(b + j) - x * load<f32>(row + j))
  }
}

function dot(x: usize, y: usize, count: u32): f32 {
  let s = f32x4.splat(0)
  let t = s
  const pairs = ((<usize>count) & ~7) << 2
  let at: usize = 0
  for (; at < pairs; at += 32) {
    s = f32x4.add(s, f32x4.mul(v128.load(x + at), v128.load(y + at)))
    t = f32x4.add(t, f32x4.mul(v128.load(x + at, 16), v128.load(y + at, 16)))
  }
  s = f32x4.add(s, t)
  let sum: f32 =
    f32x4.extract_lane(s, 0) + f32x4.extract_lane(s, 1) + (f32x4.extract_lane(s, 2) + f32x4.extract_lane(s, 3))
  for (; at < (<usize>count) << 2; at += 4) sum += load<f32>(x + at) * load<f32>(y + at)
  return sum
}
