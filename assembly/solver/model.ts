// The quadratic model of a Newton step, min over p of -g'p + p'Hp / 2 + sum_c penalty_c |w_c + p_c|: coordinate descent and
// products with H = G + diag(ridge), where G is symmetric, f32 [size, ld], both triangles filled; everything else is f64.

/**
 * One round of coordinate descent over all coordinates; p and gradient = H p - g are kept up to date.
 *
 * ridge, penalty, w, p, gradient  f64 [count]
 */
export function sweep(
  g: usize,
  ld: u32,
  count: u32,
  ridge: usize,
  penalty: usize,
  w: usize,
  p: usize,
  gradient: usize,
): void {
  for (let c: u32 = 0; c < count; c++) {
    const at = (<usize>c) << 3
    const row = g + ((<usize>c * ld) << 2)
    const curvature = <f64>load<f32>(row + ((<usize>c) << 2)) + load<f64>(ridge + at)
    if (!(curvature > 0)) continue
    const weight = load<f64>(w + at)
    const before = load<f64>(p + at)
    const z = weight + before
    const free = z - load<f64>(gradient + at) / curvature
    const shrink = load<f64>(penalty + at) / curvature
    const next = free > shrink ? free - shrink : free < -shrink ? free + shrink : 0
    if (next == z) continue
    // A coordinate that reaches zero must be zero exactly.
    const after = next == 0 ? -weight : before + (next - z)
    store<f64>(p + at, after)
    axpy(row, count, after - before, gradient)
    store<f64>(gradient + at, load<f64>(gradient + at) + (after - before) * load<f64>(ridge + at))
  }
}

/** out = H d; coordinates where d is zero cost nothing. d and out are f64 [count]. */
export function model_times(g: usize, ld: u32, count: u32, ridge: usize, d: usize, out: usize): void {
  for (let c: u32 = 0; c < count; c++) {
    const at = (<usize>c) << 3
    store<f64>(out + at, load<f64>(d + at) * load<f64>(ridge + at))
  }
  for (let c: u32 = 0; c < count; c++) {
    const by = load<f64>(d + ((<usize>c) << 3))
    if (by != 0) axpy(g + ((<usize>c * ld) << 2), count, by, out)
  }
}

function axpy(row: usize, count: u32, by: f64, to: usize): void {
  const scale = f64x2.splat(by)
  const whole = (<usize>count & ~3) << 2
  for (let j: usize = 0; j < whole; j += 16) {
    const v = v128.load(row + j)
    const at = to + (j << 1)
    v128.store(at, f64x2.add(v128.load(at), f64x2.mul(scale, f64x2.promote_low_f32x4(v))))
    const upper = f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3))
    v128.store(at, f64x2.add(v128.load(at, 16), f64x2.mul(scale, upper)), 16)
  }
  for (let j = whole; j < (<usize>count) << 2; j += 4) {
    const at = to + (j << 1)
    store<f64>(at, load<f64>(at) + by * <f64>load<f32>(row + j))
  }
}
