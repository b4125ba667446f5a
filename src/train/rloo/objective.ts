// The loss of RLOO and what it asks of each log-probability: a clipped ratio of probabilities times the advantage.
//
//   sequence   loss = mean over completions of -min(rho A, clip(rho) A),   rho = exp(sum over tokens of (logp - old))
//   token      loss = mean over tokens of the same with a rho for each token
//   constant   the same, divided by completions times the longest completion that is allowed
//
// Sources: RLOOTrainer of TRL (sequence); verl, loss_agg_mode (token); Liu et al. 2025, "Understanding R1-Zero-Like Training" (constant).

/** What the loss is a mean of, and with it whether a completion has one ratio, exp of the SUM of its differences, or each token its own. */
export type Aggregation = 'sequence' | 'token' | 'constant'

/** Ratios from 1 - low to 1 + high keep their gradient. */
export interface ClipRange {
  readonly low: number
  readonly high: number
}

/** What a completion adds to the loss. */
export interface Term {
  /** Not yet divided by the total weight. */
  readonly loss: number
  /** -(derivative of `loss` by the log-probability) of each token [T]. */
  readonly slopes: Float64Array
  /** Ratios, one or one a token; those whose gradient is cut off below and above. */
  readonly ratios: number
  readonly low: number
  readonly high: number
}

/** What a completion counts in the divisor of the loss. */
export function weightOf(aggregation: Aggregation, tokens: number, maxNewTokens: number): number {
  return aggregation === 'sequence' ? 1 : aggregation === 'token' ? tokens : maxNewTokens
}

/** The term of a completion with log-probabilities now and when it was sampled [T], and its advantage. */
export function clippedTerm(
  aggregation: Aggregation,
  logprobs: ArrayLike<number>,
  old: ArrayLike<number>,
  advantage: number,
  range: ClipRange,
): Term {
  const T = logprobs.length
  const slopes = new Float64Array(T)
  if (aggregation === 'sequence') {
    let change = 0
    for (let t = 0; t < T; t++) change += logprobs[t] - old[t]
    const one = clipped(Math.exp(change), advantage, range)
    slopes.fill(one.slope)
    return { loss: one.loss, slopes, ratios: 1, low: Number(one.low), high: Number(one.high) }
  }
  let [loss, low, high] = [0, 0, 0]
  for (let t = 0; t < T; t++) {
    const one = clipped(Math.exp(logprobs[t] - old[t]), advantage, range)
    loss += one.loss
    slopes[t] = one.slope
    low += Number(one.low)
    high += Number(one.high)
  }
  return { loss, slopes, ratios: T, low, high }
}

/** -min(rho A, clip(rho) A), and rho A where the gradient goes on: the derivative of rho by its logarithm is rho. */
function clipped(ratio: number, advantage: number, range: ClipRange) {
  // Whatever the ratio has come to.
  if (advantage === 0) return { loss: 0, slope: 0, low: false, high: false }
  const bounded = Math.min(1 + range.high, Math.max(1 - range.low, ratio))
  const [free, cut] = [ratio * advantage, bounded * advantage]
  const open = free <= cut
  return {
    loss: -Math.min(free, cut),
    slope: open ? free : 0,
    low: !open && ratio < 1,
    high: !open && ratio > 1,
  }
}
