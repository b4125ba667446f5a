// The standard normal distribution in float64: probability and quantile.
// Source: Marsaglia 2004, "Evaluating the Normal Distribution" (the series of the integrated density).

/** Beyond this the rest of the probability is below 1e-23, which no sum with 1 can hold. */
const FAR = 10

/** P(Z <= z), good to 1e-15. */
export function normalBelow(z: number): number {
  if (z < -FAR) return 0
  if (z > FAR) return 1
  let [sum, term, n] = [z, z, 1]
  while (Math.abs(term) > 1e-17 * Math.abs(sum) + 1e-300) {
    n += 2
    term *= (z * z) / n
    sum += term
  }
  return Math.min(1, Math.max(0, 0.5 + (sum * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI)))
}

/** The z with P(Z <= z) = level, 0 < level < 1, by bisection: good to 1e-10. */
export function normalQuantile(level: number): number {
  let [low, high] = [-9, 9]
  while (high - low > 1e-10) {
    const middle = (low + high) / 2
    if (normalBelow(middle) < level) low = middle
    else high = middle
  }
  return (low + high) / 2
}
