// Weighted Gram matrix of selected rows and columns in f64, for the interior point method: G += X_KC' diag(q) X_KC.
//
// Rows come in blocks: `gram_pack` lays a block out as two f64 panels [column / 4][row][4], one of them times q; `gram_tiles`
// keeps 4 x 4 tiles of G in registers while the block streams through. x is as in features.ts.

/** Rows of space between the groups of a panel: at a distance of a power of two they would fight for the same cache lines. */
const SPARE: u32 = 2

/** Bytes of one panel for `columns` columns (a multiple of 4) and blocks of `rows` rows. */
export function gram_panel_bytes(columns: u32, rows: u32): u32 {
  return (rows + SPARE) * columns * 8
}

/**
 * Packs groups of four columns in [start, end).
 *
 * rows  u32 [count], q f64 [count]    rows of the block and their weights
 * cols  u32 [*]                       entries beyond the real ones name a column of zeros
 */
export function gram_pack<T>(
  x: usize,
  stride: u32,
  rows: usize,
  q: usize,
  count: u32,
  cols: usize,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  const groupBytes = (<usize>(count + SPARE)) << 5
  for (let k: usize = 0; k < <usize>count; k++) {
    const row = x + <usize>load<u32>(rows + (k << 2)) * stride * sizeof<T>()
    const weight = f64x2.splat(load<f64>(q + (k << 3)))
    for (let group = <usize>start; group < <usize>end; group++) {
      const at = cols + (group << 4)
      const to = group * groupBytes + (k << 5)
      const low = f64x2(element<T>(row, load<u32>(at)), element<T>(row, load<u32>(at, 4)))
      const high = f64x2(element<T>(row, load<u32>(at, 8)), element<T>(row, load<u32>(at, 12)))
      v128.store(right + to, low)
      v128.store(right + to, high, 16)
      v128.store(left + to, f64x2.mul(low, weight))
      v128.store(left + to, f64x2.mul(high, weight), 16)
    }
  }
}

@inline
function element<T>(row: usize, column: u32): f64 {
  if (isFloat<T>()) return <f64>load<f32>(row + ((<usize>column) << 2))
  return <f64>reinterpret<f32>((<u32>load<u16>(row + ((<usize>column) << 1))) << 16)
}

/** Adds the block to g f64 [width, width] on and below the diagonal, for groups of four rows, the last ones first. */
export function gram_tiles(
  left: usize,
  right: usize,
  count: u32,
  width: u32,
  g: usize,
  start: u32,
  end: u32,
): void {
  const groupBytes = (<usize>(count + SPARE)) << 5
  const rowBytes = (<usize>width) << 3
  for (let turn = start; turn < end; turn++) {
    const group = <usize>((width >> 2) - 1 - turn)
    const a = left + group * groupBytes
    for (let other: usize = 0; other <= group; other++) {
      tile(a, right + other * groupBytes, count, g + (group << 2) * rowBytes + (other << 5), rowBytes)
    }
  }
}

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
