// Weighted Gram matrix of selected rows and columns: G += X_KC' diag(q) X_KC, lower triangle, in f64.
//
// Rows are packed in blocks of BLOCK into two f64 panels laid out [column / 4][row][4] (one of them times q), and 4 x 4 tiles
// of G are kept in registers while a block streams through. The order of the sums depends on the row order alone.

/** Rows that are packed at a time: two panels of BLOCK x 256 doubles fit a second-level cache. */
const BLOCK: u32 = 64

/** Rows of space between tiles: at a distance of a power of two they would fight for the same cache lines. */
const SPARE: u32 = 2

/** Bytes of the packing area that `gram` needs for `columns` columns (a multiple of 4). */
export function gramScratchBytes(columns: u32): u32 {
  return 2 * (BLOCK + SPARE) * columns * 8
}

/**
 * Adds sum over k of q[k] * x[rows[k], cols[i]] * x[rows[k], cols[j]] to g[i, j] for all tiles on or below the diagonal.
 *
 * x      f32, element [row, column] at x + 4 * (row * stride + column)
 * rows   u32 [count]          rows that enter
 * q      f64 [count]          their weights
 * cols   u32 [width]          columns; width is a multiple of 4, entries beyond the real ones name a zero column
 * g      f64 [width, width]   in place
 * pack   gramScratchBytes(width) bytes
 */
export function gram(
  x: usize,
  stride: u32,
  rows: usize,
  q: usize,
  count: u32,
  cols: usize,
  width: u32,
  g: usize,
  pack: usize,
): void {
  const panel: usize = ((BLOCK + SPARE) as usize) * (width as usize) * 8
  const right = pack
  const left = pack + panel
  for (let from: u32 = 0; from < count; from += BLOCK) {
    const size = min(BLOCK, count - from)
    packRows(x, stride, rows + ((from as usize) << 2), q + ((from as usize) << 3), size, cols, width, left, right)
    const tileBytes: usize = ((size + SPARE) as usize) << 5
    for (let i: u32 = 0; i < width; i += 4) {
      const a = left + ((i >> 2) as usize) * tileBytes
      for (let j: u32 = 0; j <= i; j += 4) {
        tile(a, right + ((j >> 2) as usize) * tileBytes, size, g + (((i * width + j) as usize) << 3), (width as usize) << 3)
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function packRows(
  x: usize,
  stride: u32,
  rows: usize,
  q: usize,
  size: u32,
  cols: usize,
  width: u32,
  left: usize,
  right: usize,
): void {
  const tileBytes: usize = ((size + SPARE) as usize) << 5
  for (let k: u32 = 0; k < size; ++k) {
    const row = x + (((load<u32>(rows + ((k as usize) << 2)) as usize) * (stride as usize)) << 2)
    const weight = f64x2.splat(load<f64>(q + ((k as usize) << 3)))
    let to: usize = (k as usize) << 5
    for (let c: u32 = 0; c < width; c += 4) {
      const at = cols + ((c as usize) << 2)
      const c0 = load<u32>(at) as usize
      const c1 = load<u32>(at, 4) as usize
      const c2 = load<u32>(at, 8) as usize
      const c3 = load<u32>(at, 12) as usize
      const low = f64x2(load<f32>(row + (c0 << 2)) as f64, load<f32>(row + (c1 << 2)) as f64)
      const high = f64x2(load<f32>(row + (c2 << 2)) as f64, load<f32>(row + (c3 << 2)) as f64)
      v128.store(right + to, low)
      v128.store(right + to, high, 16)
      v128.store(left + to, f64x2.mul(low, weight))
      v128.store(left + to, f64x2.mul(high, weight), 16)
      to += tileBytes
    }
  }
}

// @ts-ignore: decorator
@inline
function tile(a: usize, b: usize, size: u32, g: usize, rowBytes: usize): void {
  let g00 = v128.load(g)
  let g01 = v128.load(g, 16)
  let g10 = v128.load(g + rowBytes)
  let g11 = v128.load(g + rowBytes, 16)
  let g20 = v128.load(g + 2 * rowBytes)
  let g21 = v128.load(g + 2 * rowBytes, 16)
  let g30 = v128.load(g + 3 * rowBytes)
  let g31 = v128.load(g + 3 * rowBytes, 16)
  const end = a + ((size as usize) << 5)
  while (a < end) {
    const b0 = v128.load(b)
    const b1 = v128.load(b, 16)
    let s = v128.load_splat<f64>(a)
    g00 = f64x2.add(g00, f64x2.mul(s, b0))
    g01 = f64x2.add(g01, f64x2.mul(s, b1))
    s = v128.load_splat<f64>(a, 8)
    g10 = f64x2.add(g10, f64x2.mul(s, b0))
    g11 = f64x2.add(g11, f64x2.mul(s, b1))
    s = v128.load_splat<f64>(a, 16)
    g20 = f64x2.add(g20, f64x2.mul(s, b0))
    g21 = f64x2.add(g21, f64x2.mul(s, b1))
    s = v128.load_splat<f64>(a, 24)
    g30 = f64x2.add(g30, f64x2.mul(s, b0))
    g31 = f64x2.add(g31, f64x2.mul(s, b1))
    a += 32
    b += 32
  }
  v128.store(g, g00)
  v128.store(g, g01, 16)
  v128.store(g + rowBytes, g10)
  v128.store(g + rowBytes, g11, 16)
  v128.store(g + 2 * rowBytes, g20)
  v128.store(g + 2 * rowBytes, g21, 16)
  v128.store(g + 3 * rowBytes, g30)
  v128.store(g + 3 * rowBytes, g31, 16)
}
