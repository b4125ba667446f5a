// Sums over the labels of the inner problem (see src/solver/proximal_newton.ts): scores, curvatures, and the line search.
//
// Labels are sorted by row: those of row k are first[k] .. first[k + 1] - 1. Everything is f64 and serial: a label costs
// about a nanosecond.

/**
 * Scores a_i = clip(centre_i + residual_i / bandwidth, 0, 1), and per row the sum of weight_i a_i and, over labels strictly
 * inside, of weight_i. Lists the rows whose sum changed; gives their number.
 *
 * first  u32 [R + 1]
 * residual, centre, score, weight  f64 [N]
 * scale  f64 [1]                    1 / bandwidth
 * sum, curvature  f64 [R]
 * changed  u32 [R], by  f64 [R]    positions of the rows that changed, and by how much
 */
export function scores(
  rows: u32,
  first: usize,
  residual: usize,
  centre: usize,
  score: usize,
  weight: usize,
  scale: usize,
  sum: usize,
  curvature: usize,
  changed: usize,
  by: usize,
): u32 {
  const factor = load<f64>(scale)
  let count: u32 = 0
  let i = <usize>load<u32>(first) << 3
  for (let k: u32 = 0; k < rows; k++) {
    const end = <usize>load<u32>(first + ((<usize>k + 1) << 2)) << 3
    let total: f64 = 0
    let inside: f64 = 0
    for (; i < end; i += 8) {
      const v = load<f64>(weight + i)
      const a = load<f64>(centre + i) + load<f64>(residual + i) * factor
      if (a > 0) {
        if (a < 1) {
          inside += v
          total += v * a
          store<f64>(score + i, a)
        } else {
          total += v
          store<f64>(score + i, 1)
        }
      } else store<f64>(score + i, 0)
    }
    const at = (<usize>k) << 3
    store<f64>(curvature + at, inside)
    const difference = total - load<f64>(sum + at)
    if (difference != 0) {
      store<f64>(sum + at, total)
      store<u32>(changed + ((<usize>count) << 2), k)
      store<f64>(by + ((<usize>count) << 3), difference)
      count++
    }
  }
  return count
}

/**
 * Value and slope of the smooth part of the inner objective at w + t p: result[0], result[1].
 *
 * line      f64 [2]     t, 1 / bandwidth
 * fitted    f64 [R]     X p
 * offset    f64 [N]     level of each label minus 1
 */
export function along(
  rows: u32,
  first: usize,
  residual: usize,
  centre: usize,
  weight: usize,
  offset: usize,
  fitted: usize,
  line: usize,
  result: usize,
): void {
  const t = load<f64>(line)
  const scale = load<f64>(line, 8)
  const half = 0.5 / scale
  let value: f64 = 0
  let slope: f64 = 0
  let i = <usize>load<u32>(first) << 3
  for (let k: u32 = 0; k < rows; k++) {
    const end = <usize>load<u32>(first + ((<usize>k + 1) << 2)) << 3
    const x = load<f64>(fitted + ((<usize>k) << 3))
    const move = t * x
    for (; i < end; i += 8) {
      const r = load<f64>(residual + i) - move
      const c = load<f64>(centre + i)
      const a = min<f64>(1, max<f64>(0, c + r * scale))
      const v = load<f64>(weight + i)
      const u = a + load<f64>(offset + i)
      value += v * (u * r - half * (a - c) * (a - c))
      slope -= v * u * x
    }
  }
  store<f64>(result, value)
  store<f64>(result, slope, 8)
}

/** residual_i -= t * fitted[row of i]; `line` holds t. */
export function advance(rows: u32, first: usize, residual: usize, fitted: usize, line: usize): void {
  const t = load<f64>(line)
  let i = <usize>load<u32>(first) << 3
  for (let k: u32 = 0; k < rows; k++) {
    const end = <usize>load<u32>(first + ((<usize>k + 1) << 2)) << 3
    const move = t * load<f64>(fitted + ((<usize>k) << 3))
    for (; i < end; i += 8) store<f64>(residual + i, load<f64>(residual + i) - move)
  }
}
