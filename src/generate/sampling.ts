// From logits to a token: penalty, temperature, truncation, and a draw that depends on seed, prompt, sample and place alone.
//
// Source: the logits processors of Hugging Face transformers, in their order: repetition penalty, banned stop tokens, temperature, top-k,
// top-p, min-p. Weights are exponentials in float64, made by arithmetic alone, so that every JavaScript engine draws the same.
import { randomBits } from '../data/random.ts'
import type { SamplingSettings } from './continuation.ts'
import { kthLargest, largestOf } from './selection.ts'

/** A token that was drawn, and its log-probability before top-k, top-p and min-p; where greedy, at temperature 1. */
export interface Drawn {
  readonly token: number
  readonly logprob: number
}

/** What is done to a row of logits before a token is drawn. */
export interface Draw {
  /** Lists of tokens that the repetition penalty is for; tokens may be there several times. */
  readonly seen: readonly ArrayLike<number>[]
  /** Tokens that must not be drawn. */
  readonly banned: readonly number[]
  /** In [0, 1): see `unitDraw`. */
  readonly unit: number
}

// exp(z) = 2^(n / 256) e^r with |r| <= ln 2 / 512, where four terms are exact to 4e-17.
const PARTS = 256
const SCALE = PARTS / Math.LN2
const STEP = Math.LN2 / PARTS
const [SIXTH, TWENTY_FOURTH] = [1 / 6, 1 / 24]
/** Weights below e^-700 are 0. */
const LEAST = -700
const LOWEST_POWER = 1011
/** 2^(i / 256) by square roots and 2^(i - 1011) by halves, because engines differ in powers. */
const FRACTIONS = new Float64Array(PARTS).fill(1)
for (let root = Math.SQRT2, bit = PARTS / 2; bit >= 1; root = Math.sqrt(root), bit /= 2) {
  for (let i = 0; i < PARTS; i++) if (i & bit) FRACTIONS[i] *= root
}
const POWERS = new Float64Array(LOWEST_POWER + 1)
for (let i = LOWEST_POWER, power = 1; i >= 0; i--, power /= 2) POWERS[i] = power
/** Weights are summed by blocks of so many, so that a draw need not walk over all of them. */
const BLOCK = 256

/** A number in [0, 1) of 53 bits for token `place` of a sample. Prompts, samples and places are told apart by 64 bits. */
export function unitDraw(seed: number, key: number, sample: number, place: number): number {
  const a = randomBits(seed, key, 2 * sample)
  const b = randomBits(seed, key, 2 * sample + 1)
  return ((randomBits(a, b, place) >>> 5) * 2 ** 26 + (randomBits(b, a, place) >>> 6)) * 2 ** -53
}

/** Draws tokens from rows of `vocab` logits, one row at a time; a token depends on its row and draw alone. */
export class Sampler {
  readonly #settings: SamplingSettings
  /** [V] e^((logit - largest) / temperature) */
  readonly #weights: Float64Array
  readonly #sums: Float64Array
  readonly #heap: Float32Array
  /** Tokens that may be drawn, and their weights in another order, where some may not. */
  readonly #tokens: Uint32Array
  readonly #reordered: Float64Array
  readonly #penalised: Uint8Array

  constructor(settings: SamplingSettings, vocab: number) {
    const { temperature, topK, topP, minP, repetitionPenalty } = settings
    const truncates = temperature > 0 && (topK > 0 || topP < 1 || minP > 0)
    this.#settings = settings
    this.#weights = new Float64Array(vocab)
    this.#sums = new Float64Array(Math.ceil(vocab / BLOCK))
    this.#heap = new Float32Array(truncates && topK < vocab ? topK : 0)
    this.#tokens = new Uint32Array(truncates ? vocab : 0)
    this.#reordered = new Float64Array(truncates ? vocab : 0)
    this.#penalised = new Uint8Array(repetitionPenalty === 1 ? 0 : vocab)
  }

  /** Draws a token. Changes the logits. Throws where they hold NaN or Infinity, or where nothing can be drawn. */
  draw(logits: Float32Array, { seen, banned, unit }: Draw): Drawn {
    const { temperature } = this.#settings
    this.#penalise(logits, seen)
    for (const token of banned) if (token < logits.length) logits[token] = -Infinity
    const first = largest(logits)
    const top = logits[first]
    if (top === -Infinity) throw new Error('generate: no token can be drawn: all that the model knows are stop tokens')
    const total = weigh(logits, top, temperature > 0 ? temperature : 1, this.#weights, this.#sums)
    if (!Number.isFinite(total)) {
      const bad = logits.findIndex((value) => Number.isNaN(value) || value === Infinity)
      throw new Error(
        `generate: logits must be finite, got ${logits[bad]} for token ${bad}; the model's weights hold NaN or overflow`,
      )
    }
    const token = temperature > 0 ? this.#pick(logits, total, unit) : first
    const behind = temperature > 0 ? (logits[token] - top) / temperature : 0
    return { token, logprob: behind - Math.log(total) }
  }

  /** Rounds to f32, as transformers does. */
  #penalise(logits: Float32Array, seen: readonly ArrayLike<number>[]): void {
    const penalty = Math.fround(this.#settings.repetitionPenalty)
    if (this.#settings.repetitionPenalty === 1) return
    const done = this.#penalised
    for (const list of seen) {
      for (let i = 0; i < list.length; i++) {
        const token = list[i]
        if (done[token]) continue
        done[token] = 1
        logits[token] = logits[token] < 0 ? logits[token] * penalty : logits[token] / penalty
      }
    }
    for (const list of seen) for (let i = 0; i < list.length; i++) done[list[i]] = 0
  }

  #pick(logits: Float32Array, total: number, unit: number): number {
    const { topK, topP, minP } = this.#settings
    const few = topK > 0 && topK < logits.length
    if (!few && topP >= 1 && minP <= 0) return walkBlocks(this.#weights, this.#sums, unit * total)
    const [weights, tokens] = [this.#weights, this.#tokens]
    const least = few ? kthLargest(logits, topK, this.#heap) : -Infinity
    let count = 0
    let mass = few ? 0 : total
    for (let i = 0; i < logits.length; i++) {
      if (logits[i] < least || weights[i] === 0) continue
      tokens[count++] = i
      if (few) mass += weights[i]
    }
    if (topP < 1) count = this.#keepMass(count, mass, topP)
    let kept = 0
    for (let i = 0; i < count; i++) if (weights[tokens[i]] >= minP) kept += weights[tokens[i]]
    const target = unit * kept
    let sum = 0
    let last = 0
    for (let i = 0; i < count; i++) {
      if (!(weights[tokens[i]] >= minP)) continue
      last = tokens[i]
      sum += weights[last]
      if (sum > target) return last
    }
    return last
  }

  /** Of the tokens at hand, which weigh `mass`, keeps the most probable until they have the share `topP` of it; gives their number. */
  #keepMass(count: number, mass: number, topP: number): number {
    const [weights, tokens, reordered] = [this.#weights, this.#tokens, this.#reordered]
    // Tokens below this weigh less than 1 - topP in all, so that none of them is among those that are kept.
    const floor = ((1 - topP) * mass) / count
    let candidates = 0
    for (let i = 0; i < count; i++) {
      const weight = weights[tokens[i]]
      if (weight >= floor) reordered[candidates++] = weight
    }
    const { least, equals } = largestOf(reordered, candidates, topP * mass)
    let [kept, same] = [0, 0]
    for (let i = 0; i < count; i++) {
      const weight = weights[tokens[i]]
      if (weight > least || (weight === least && same++ < equals)) tokens[kept++] = tokens[i]
    }
    return kept
  }
}

/** The first of the largest values; NaN is none. */
function largest(values: Float32Array): number {
  let best = 0
  let top = -Infinity
  for (let i = 0; i < values.length; i++) {
    if (values[i] > top) {
      top = values[i]
      best = i
    }
  }
  return best
}

/** Writes e^((logit - top) / temperature) and its sums by blocks; gives the sum of all. */
function weigh(
  logits: Float32Array,
  top: number,
  temperature: number,
  weights: Float64Array,
  sums: Float64Array,
): number {
  let total = 0
  for (let block = 0; block < sums.length; block++) {
    const end = Math.min(logits.length, (block + 1) * BLOCK)
    let sum = 0
    for (let i = block * BLOCK; i < end; i++) {
      const z = (logits[i] - top) / temperature
      let weight = 0
      if (z > LEAST) {
        const n = (z * SCALE - 0.5) | 0
        const r = z - n * STEP
        const rr = r * r
        weight =
          POWERS[(n >> 8) + LOWEST_POWER] * (FRACTIONS[n & 255] * (1 + r + rr * (0.5 + r * SIXTH + rr * TWENTY_FOURTH)))
      } else if (Number.isNaN(z)) weight = z
      weights[i] = weight
      sum += weight
    }
    sums[block] = sum
    total += sum
  }
  return total
}

/** The first token at which the sum of weights goes beyond the target; the last that has a weight where rounding lets none. */
function walkBlocks(weights: Float64Array, sums: Float64Array, target: number): number {
  let rest = target
  let block = 0
  while (block < sums.length - 1 && sums[block] <= rest) rest -= sums[block++]
  const end = Math.min(weights.length, (block + 1) * BLOCK)
  let sum = 0
  for (let i = block * BLOCK; i < end; i++) {
    sum += weights[i]
    if (sum > rest) return i
  }
  let last = end - 1
  while (weights[last] === 0) last--
  return last
}
