// Cholesky factor of a symmetric positive semidefinite matrix and the two triangular solves, in f64.

/** A pivot below this share of its diagonal element is rounding noise: the coordinate depends on earlier ones. */
const NOISE: f64 = 1e-14
/** Replaces such a pivot, so that the coordinate does not move. */
const STOP: f64 = 1e64

/**
 * Replaces the lower triangle of g by L with L L' = g and returns how many pivots were replaced (0 for a well-conditioned matrix).
 *
 * g  f64 [n, ld] row-major, lower triangle read; ld a multiple of 2, g 16-byte aligned
 */
export function cholesky(g: usize, n: u32, ld: u32): u32 {
  const rowBytes: usize = (ld as usize) << 3
  let replaced: u32 = 0
  let i: u32 = 0
  for (; i + 4 <= n; i += 4) {
    const row = g + (i as usize) * rowBytes
    for (let j: u32 = 0; j < i; ++j) column4(row, rowBytes, g + (j as usize) * rowBytes, j)
    for (let k: u32 = 0; k < 4; ++k) replaced += finishRow(g, rowBytes, i + k, i)
  }
  for (; i < n; ++i) replaced += finishRow(g, rowBytes, i, 0)
  return replaced
}

/** Solves L L' x = b in place. b  f64 [n] */
export function solve(l: usize, n: u32, ld: u32, b: usize): void {
  const rowBytes: usize = (ld as usize) << 3
  for (let i: u32 = 0; i < n; ++i) {
    const row = l + (i as usize) * rowBytes
    const to = b + ((i as usize) << 3)
    store<f64>(to, (load<f64>(to) - dot(row, b, i)) / load<f64>(row + ((i as usize) << 3)))
  }
  for (let k: u32 = n; k > 0; --k) {
    const i = k - 1
    const row = l + (i as usize) * rowBytes
    const to = b + ((i as usize) << 3)
    const value = load<f64>(to) / load<f64>(row + ((i as usize) << 3))
    store<f64>(to, value)
    for (let j: u32 = 0; j < i; ++j) {
      const at = b + ((j as usize) << 3)
      store<f64>(at, load<f64>(at) - value * load<f64>(row + ((j as usize) << 3)))
    }
  }
}

// Element [i..i+3, j] of L: the dot products of four rows with row j.
// @ts-ignore: decorator
@inline
function column4(row: usize, rowBytes: usize, other: usize, j: u32): void {
  let s0 = f64x2.splat(0)
  let s1 = s0
  let s2 = s0
  let s3 = s0
  let t0 = s0
  let t1 = s0
  let t2 = s0
  let t3 = s0
  const r1 = row + rowBytes
  const r2 = r1 + rowBytes
  const r3 = r2 + rowBytes
  const whole: usize = ((j & ~3) as usize) << 3
  for (let k: usize = 0; k < whole; k += 32) {
    const a = v128.load(other + k)
    const b = v128.load(other + k, 16)
    s0 = f64x2.add(s0, f64x2.mul(a, v128.load(row + k)))
    s1 = f64x2.add(s1, f64x2.mul(a, v128.load(r1 + k)))
    s2 = f64x2.add(s2, f64x2.mul(a, v128.load(r2 + k)))
    s3 = f64x2.add(s3, f64x2.mul(a, v128.load(r3 + k)))
    t0 = f64x2.add(t0, f64x2.mul(b, v128.load(row + k, 16)))
    t1 = f64x2.add(t1, f64x2.mul(b, v128.load(r1 + k, 16)))
    t2 = f64x2.add(t2, f64x2.mul(b, v128.load(r2 + k, 16)))
    t3 = f64x2.add(t3, f64x2.mul(b, v128.load(r3 + k, 16)))
  }
  let d0 = total(f64x2.add(s0, t0))
  let d1 = total(f64x2.add(s1, t1))
  let d2 = total(f64x2.add(s2, t2))
  let d3 = total(f64x2.add(s3, t3))
  const at: usize = (j as usize) << 3
  for (let k = whole; k < at; k += 8) {
    const a = load<f64>(other + k)
    d0 += a * load<f64>(row + k)
    d1 += a * load<f64>(r1 + k)
    d2 += a * load<f64>(r2 + k)
    d3 += a * load<f64>(r3 + k)
  }
  const pivot = load<f64>(other + at)
  store<f64>(row + at, (load<f64>(row + at) - d0) / pivot)
  store<f64>(r1 + at, (load<f64>(r1 + at) - d1) / pivot)
  store<f64>(r2 + at, (load<f64>(r2 + at) - d2) / pivot)
  store<f64>(r3 + at, (load<f64>(r3 + at) - d3) / pivot)
}

// Elements [i, from..i] of L, one after the other.
function finishRow(g: usize, rowBytes: usize, i: u32, from: u32): u32 {
  const row = g + (i as usize) * rowBytes
  for (let j: u32 = from; j < i; ++j) {
    const other = g + (j as usize) * rowBytes
    const at: usize = (j as usize) << 3
    store<f64>(row + at, (load<f64>(row + at) - dot(row, other, j)) / load<f64>(other + at))
  }
  const at = row + ((i as usize) << 3)
  const diagonal = load<f64>(at)
  const rest = diagonal - dot(row, row, i)
  const good = rest > NOISE * diagonal && rest > 0
  store<f64>(at, good ? Math.sqrt(rest) : STOP)
  return good ? 0 : 1
}

function dot(a: usize, b: usize, n: u32): f64 {
  let s = f64x2.splat(0)
  let t = s
  const whole: usize = ((n & ~3) as usize) << 3
  for (let k: usize = 0; k < whole; k += 32) {
    s = f64x2.add(s, f64x2.mul(v128.load(a + k), v128.load(b + k)))
    t = f64x2.add(t, f64x2.mul(v128.load(a + k, 16), v128.load(b + k, 16)))
  }
  let sum = total(f64x2.add(s, t))
  const end: usize = (n as usize) << 3
  for (let k = whole; k < end; k += 8) sum += load<f64>(a + k) * load<f64>(b + k)
  return sum
}

// @ts-ignore: decorator
@inline
function total(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1)
}
