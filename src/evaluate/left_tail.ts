// How a choice among several texts moves the distribution of the reward, above all its left tail.
import { quantile, rearrange } from '../reward/distribution.ts'
import { type PairedDifference, pairedBootstrap } from './intervals.ts'

/** Levels of the left tail in the paper's Figure 3. */
const LEVELS = [0.05, 0.1, 0.15, 0.2, 0.25]

/** Scored texts of one prompt, and which of them were chosen; as `rankTexts` gives them. */
export interface ScoredChoice {
  readonly scores: readonly { readonly expectation: number; readonly quantiles: ArrayLike<number> }[]
  /** Index of the one that is chosen. */
  readonly chosen: number
  /** Index of the best by expectation. */
  readonly expected: number
}

/** A mean over prompts with its 95 % percentile interval of the bootstrap over prompts; null for a single prompt. */
export interface MeanDifference extends Pick<PairedDifference, 'difference'> {
  readonly interval: [number, number] | null
}

export interface TailMeasure {
  /** q05 to q25, or expectation. */
  readonly name: string
  /** Mean over prompts of the mean over all texts. */
  readonly all: number
  /** Mean over prompts of the text that is chosen. */
  readonly chosen: number
  /** Mean over prompts of the best by expectation. */
  readonly byExpectation: number
  /** chosen - all */
  readonly gain: MeanDifference
  /** chosen - byExpectation */
  readonly againstExpectation: MeanDifference
}

/**
 * Quantiles of the left tail, interpolated as `quantile` does after rearrangement, and the expectation: of the chosen texts beside the
 * mean of all and beside the best by expectation. Of a model without a distribution only the expectation. All of them are what the
 * reward model says, whose errors a choice by its scores favours.
 */
export function leftTail(rows: readonly ScoredChoice[], levels: readonly number[]): TailMeasure[] {
  if (rows.length === 0) return []
  type Measure = (score: ScoredChoice['scores'][number]) => number
  const measures: [string, Measure][] = levels.length === 1 ? [] : LEVELS.map((level) => [nameOf(level), at(level)])
  function at(level: number): Measure {
    return ({ quantiles }) => quantile(rearrange(quantiles), levels, level)
  }
  measures.push(['expectation', ({ expectation }) => expectation])
  return measures.map(([name, measure]) => {
    const values = rows.map(({ scores }) => scores.map(measure))
    const all = values.map(mean)
    const chosen = values.map((own, i) => own[rows[i].chosen])
    const byExpectation = values.map((own, i) => own[rows[i].expected])
    return {
      ...{ name, all: mean(all), chosen: mean(chosen), byExpectation: mean(byExpectation) },
      gain: difference(chosen, all),
      againstExpectation: difference(chosen, byExpectation),
    }
  })
}

const nameOf = (level: number): string => `q${String(Math.round(100 * level)).padStart(2, '0')}`

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

function difference(first: readonly number[], second: readonly number[]): MeanDifference {
  const { difference, interval } = pairedBootstrap(first, second)
  return { difference, interval: first.length > 1 ? interval : null }
}
