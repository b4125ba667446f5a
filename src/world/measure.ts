// What a policy's answers are worth: by the reward model, and in truth; and how well the model's quantiles are calibrated on them.

import { quantile, rearrange } from '../reward/distribution.ts'
import type { Score } from '../reward/model.ts'
import { trueBelow, trueFault, trueMean, trueQuantile, trueRatings } from './truth.ts'
import { ADJECTIVES, STYLE_NAMES, type Style, VOCABULARY, type WorldPrompt } from './words.ts'

/** Levels of the left tail, as in the paper's Figure 3. */
export const TAIL: readonly number[] = [0.05, 0.1, 0.15, 0.2, 0.25]

export interface Answer {
  readonly prompt: WorldPrompt
  /** Tokens of the answer, the end of turn included where it has one. */
  readonly tokens: Uint32Array
}

/** Means over answers, as the paper has them: of the quantiles of each answer's distribution, and of its expectation. */
export interface Worth {
  readonly expectation: number
  /** At the levels of `TAIL`. */
  readonly quantiles: readonly number[]
}

export interface Measures {
  readonly answers: number
  /** By the reward model. */
  readonly estimate: Worth
  readonly truth: Worth
  /** Mean over answers of the true probability that a rating is at or below the estimated quantile [K]: the level, if it is calibrated. */
  readonly coverage: readonly number[]
  /** Shares of adjectives by style. */
  readonly styles: Readonly<Record<Style, number>>
  /** Share of answers with a fault, and what faults take from a rating on average. */
  readonly faulty: number
  readonly fault: number
}

const STYLE_OF = new Map(ADJECTIVES.map(({ word, style }) => [VOCABULARY.indexOf(word), style]))

/** Measures answers; `scores` are the reward model's, whose levels are `levels` [K]. Throws where there are none. */
export function measureAnswers(
  answers: readonly Answer[],
  scores: readonly Pick<Score, 'expectation' | 'quantiles'>[],
  levels: readonly number[],
): Measures {
  if (answers.length === 0 || scores.length !== answers.length)
    throw new Error(
      `world: answers and scores must be equally many, at least one, got ${answers.length} and ${scores.length}`,
    )
  const each = answers.map((answer, i) => judge(answer, scores[i], levels))
  const mean = (of: (one: Judged) => number) => each.reduce((sum, one) => sum + of(one), 0) / each.length
  const words = answers.flatMap(({ tokens }) => Array.from(tokens, (token) => STYLE_OF.get(token) ?? []).flat())
  const styles = Object.fromEntries(
    STYLE_NAMES.map((style) => [style, words.filter((other) => other === style).length / Math.max(1, words.length)]),
  ) as Record<Style, number>
  const worth = (of: (one: Judged) => Worth): Worth => ({
    expectation: mean((one) => of(one).expectation),
    quantiles: TAIL.map((_, k) => mean((one) => of(one).quantiles[k])),
  })
  return {
    answers: answers.length,
    estimate: worth(({ estimate }) => estimate),
    truth: worth(({ truth }) => truth),
    coverage: levels.map((_, k) => mean(({ below }) => below[k])),
    styles,
    faulty: mean(({ fault }) => (fault > 0 ? 1 : 0)),
    fault: mean(({ fault }) => fault),
  }
}

interface Judged {
  readonly estimate: Worth
  readonly truth: Worth
  readonly below: readonly number[]
  readonly fault: number
}

function judge(
  { prompt, tokens }: Answer,
  { expectation, quantiles }: Pick<Score, 'expectation' | 'quantiles'>,
  levels: readonly number[],
): Judged {
  const ratings = trueRatings(prompt, tokens)
  const curve = rearrange(quantiles)
  return {
    estimate: { expectation, quantiles: TAIL.map((level) => quantile(curve, levels, level)) },
    truth: { expectation: trueMean(ratings), quantiles: TAIL.map((level) => trueQuantile(ratings, level)) },
    below: Array.from(curve, (value) => trueBelow(ratings, value)),
    fault: trueFault(prompt, tokens),
  }
}

/** Mean over the left tail. */
export function tailOf({ quantiles }: Worth): number {
  return quantiles.reduce((sum, value) => sum + value, 0) / quantiles.length
}
