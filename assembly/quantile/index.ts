// Arithmetic on quantile vectors in f64: mixing, rearrangement, the risk measures and the piecewise-linear curve.
//
// A module of its own (one thread, its own memory, no runtime). Arguments are addresses of f64 arrays that the caller
// placed above heap_base(), then sizes. src/reward/quantile.ts is the only caller; it has checked that everything is
// finite, that sizes agree and, for the curve, that levels increase and values do not decrease.
//
// Two readings of a vector q [K] at the levels t [K] are used, and never mixed:
//   masses   K equally likely values (the paper's expectation): expectation, utility, cvar, entropic, variance
//   curve    the quantile function that is linear between the points (t[k], q[k]): quantile, cdf, below, density,
//            tail_mean. On [0, t[0]] and [t[K-1], 1] the first and the last piece go on; K = 1 is a constant

const BYTES: usize = 8

export function heap_base(): usize {
  return __heap_base
}

@inline
function get(array: usize, index: i32): f64 {
  return load<f64>(array + BYTES * index)
}

@inline
function set(array: usize, index: i32, value: f64): void {
  store<f64>(array + BYTES * index, value)
}

// y [count] += factor * x [count]; two lanes at a time give the same bits as one
function add_scaled(y: usize, x: usize, factor: f64, count: i32): void {
  const factors = f64x2.splat(factor)
  const pairs = count & ~1
  let i = 0
  for (; i < pairs; i += 2) {
    const at = BYTES * i
    v128.store(y + at, f64x2.add(v128.load(y + at), f64x2.mul(factors, v128.load(x + at))))
  }
  if (i < count) set(y, i, get(y, i) + factor * get(x, i))
}

// Mixes the attributes' quantiles into one vector a row.
//   debiased[n, j, k] = sum over i of values[n, i, k] * transform[i, j]      (a copy where transform is 0)
//   mixture[n, k]     = sum over j of gate[n, j] * debiased[n, j, k]         (divided by M where mean is not 0)
//   score[n]          = sum over j of gate[n, j] * mean over k of debiased[n, j, k]
// values [N, M, K], transform [M, M] or address 0, gate [N, M], debiased [N, M, K], mixture [N, K], score [N]
export function mix(
  values: usize,
  transform: usize,
  gate: usize,
  debiased: usize,
  mixture: usize,
  score: usize,
  rows: i32,
  objectives: i32,
  levels: i32,
  mean: i32,
): void {
  const rowBytes = BYTES * objectives * levels
  for (let n = 0; n < rows; n++) {
    const row = values + rowBytes * n
    const out = debiased + rowBytes * n
    const mixed = mixture + BYTES * levels * n
    memory.fill(out, 0, rowBytes)
    memory.fill(mixed, 0, BYTES * levels)
    let total = 0.0
    for (let j = 0; j < objectives; j++) {
      const target = out + BYTES * levels * j
      if (transform == 0) memory.copy(target, row + BYTES * levels * j, BYTES * levels)
      else {
        for (let i = 0; i < objectives; i++) {
          add_scaled(target, row + BYTES * levels * i, get(transform, i * objectives + j), levels)
        }
      }
      const weight = get(gate, n * objectives + j)
      add_scaled(mixed, target, weight, levels)
      total += weight * expectation(target, levels)
    }
    if (mean) for (let k = 0; k < levels; k++) set(mixed, k, get(mixed, k) / objectives)
    set(score, n, total)
  }
}

// Sorts in place (insertion: vectors are short and nearly sorted)
export function rearrange(values: usize, count: i32): void {
  for (let i = 1; i < count; i++) {
    const value = get(values, i)
    let j = i - 1
    for (; j >= 0 && get(values, j) > value; j--) set(values, j + 1, get(values, j))
    set(values, j + 1, value)
  }
}

// mean over k of q[k]; where the plain sum overflows, the values are divided before they are added
function expectation(values: usize, count: i32): f64 {
  let sum = 0.0
  for (let i = 0; i < count; i++) sum += get(values, i)
  if (isFinite(sum)) return sum / count
  sum = 0
  for (let i = 0; i < count; i++) sum += get(values, i) / count
  return sum
}

// mean over k of (q[k] - mean)^2
export function variance(values: usize, count: i32): f64 {
  const centre = expectation(values, count)
  let sum = 0.0
  for (let i = 0; i < count; i++) {
    const difference = get(values, i) - centre
    sum += difference * difference
  }
  return sum / count
}

function smallest(values: usize, count: i32): f64 {
  let result = Infinity
  for (let i = 0; i < count; i++) result = min(result, get(values, i))
  return result
}

function largest(values: usize, count: i32): f64 {
  let result = -Infinity
  for (let i = 0; i < count; i++) result = max(result, get(values, i))
  return result
}

// -mean over k of exp(-lambda * q[k]), lambda >= 0. The largest factor is taken out and put back in two halves, so that
// nothing overflows unless the result does (then -Infinity)
export function utility(values: usize, count: i32, lambda: f64): f64 {
  if (lambda == 0) return -1
  const least = smallest(values, count)
  let sum = 0.0
  for (let i = 0; i < count; i++) sum += Math.exp(-lambda * (get(values, i) - least))
  const half = Math.exp(-lambda * least * 0.5)
  return 0 - half * (sum / count) * half
}

// -ln(mean over k of exp(-lambda * q[k])) / lambda, any lambda; at 0 its limit, the expectation. Relative to the value
// with the largest factor, with expm1 and log1p, so that small lambda loses nothing; two terms of the series below 1e-8
export function entropic(values: usize, count: i32, lambda: f64): f64 {
  const centre = expectation(values, count)
  const least = smallest(values, count)
  const most = largest(values, count)
  if (lambda == 0 || least == most) return centre
  const range = most - least
  if (abs(lambda) * range < 1e-8) {
    let squares = 0.0
    for (let i = 0; i < count; i++) {
      const difference = (get(values, i) - centre) / range
      squares += difference * difference
    }
    return centre - 0.5 * (lambda * range) * (squares / count) * range
  }
  const origin = lambda > 0 ? least : most
  let sum = 0.0
  for (let i = 0; i < count; i++) sum += Math.expm1(-lambda * (get(values, i) - origin))
  return origin - Math.log1p(sum / count) / lambda
}

// Mean of the lowest share (0 < share <= 1) of the masses; the mass at the edge counts in part. Sorts in place
export function cvar(values: usize, count: i32, share: f64): f64 {
  rearrange(values, count)
  const masses = share * count
  const whole = min(<i32>Math.floor(masses), count)
  // below one mass all of it comes from the lowest value, also where share * count has underflowed
  if (whole == 0) return get(values, 0)
  let sum = 0.0
  for (let i = 0; i < whole; i++) sum += get(values, i)
  if (whole == count) return expectation(values, count)
  return (sum + (masses - whole) * get(values, whole)) / masses
}

// Puts the ends of the curve around the points: t [K + 2] starts with 0 and ends with 1, q [K + 2] likewise.
// On entry the K points lie at index 1..K of both arrays
export function extend(t: usize, q: usize, count: i32): void {
  set(t, 0, 0)
  set(t, count + 1, 1)
  const first = get(q, 1)
  const last = get(q, count)
  if (count == 1) {
    set(q, 0, first)
    set(q, 2, last)
    return
  }
  const slope = (get(q, 2) - first) / (get(t, 2) - get(t, 1))
  const end = (last - get(q, count - 1)) / (get(t, count) - get(t, count - 1))
  set(q, 0, first - slope * get(t, 1))
  set(q, count + 1, last + end * (1 - get(t, count)))
}

// The remaining functions take an extended curve of `points` = K + 2 points.

// Height of the straight line through (x0, y0) and (x1, y1) at x0 <= x <= x1, exact at both ends
function line(x: f64, x0: f64, x1: f64, y0: f64, y1: f64): f64 {
  if (x == x1) return y1
  return y0 + (y1 - y0) * ((x - x0) / (x1 - x0))
}

// Q(at), 0 <= at <= 1
export function quantile(t: usize, q: usize, points: i32, at: f64): f64 {
  let i = 1
  while (get(t, i) < at) i++
  return line(at, get(t, i - 1), get(t, i), get(q, i - 1), get(q, i))
}

// P(R <= r): the largest level whose quantile is at most r
export function cdf(t: usize, q: usize, points: i32, r: f64): f64 {
  const last = points - 1
  if (r >= get(q, last)) return 1
  if (r < get(q, 0)) return 0
  let i = last
  while (get(q, i - 1) > r) i--
  return line(r, get(q, i - 1), get(q, i), get(t, i - 1), get(t, i))
}

// P(R < r): the smallest level whose quantile is at least r
export function below(t: usize, q: usize, points: i32, r: f64): f64 {
  const last = points - 1
  if (r > get(q, last)) return 1
  if (r <= get(q, 0)) return 0
  let i = 1
  while (get(q, i) < r) i++
  return line(r, get(q, i - 1), get(q, i), get(t, i - 1), get(t, i))
}

// dF/dr from the right; Infinity at an atom (a flat piece of the curve), 0 outside of the curve
export function density(t: usize, q: usize, points: i32, r: f64): f64 {
  for (let i = 1; i < points; i++) if (get(q, i - 1) == r && get(q, i) == r) return Infinity
  for (let i = 1; i < points; i++) {
    if (get(q, i - 1) <= r && r < get(q, i)) return (get(t, i) - get(t, i - 1)) / (get(q, i) - get(q, i - 1))
  }
  return 0
}

// 1 / share * integral of Q from 0 to share, 0 < share <= 1; relative to Q(0), where nothing cancels
export function tail_mean(t: usize, q: usize, points: i32, share: f64): f64 {
  const start = get(q, 0)
  let sum = 0.0
  for (let i = 1; i < points && get(t, i - 1) < share; i++) {
    const end = min(get(t, i), share)
    const height = line(end, get(t, i - 1), get(t, i), get(q, i - 1), get(q, i))
    sum += ((end - get(t, i - 1)) / share) * (0.5 * (get(q, i - 1) - start) + 0.5 * (height - start))
  }
  return start + sum
}
