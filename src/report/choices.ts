// What `pinball start` shows of the responses to one prompt: which is best by expectation, which by utility, and where they part.
import type { Score } from '../reward/model.ts'
import { entropic } from '../reward/risk.ts'
import { axis, figure, nearest, type Scale, sketch, snippet, table } from './draw.ts'

const RESPONSE_CHARACTERS = 60

/** A line for each response to one prompt; marks the best by expectation and by utility. */
export function choiceTable(
  levels: readonly number[],
  responses: readonly string[],
  scores: readonly Score[],
  scale: Scale,
  lambda: number,
): string {
  const expected = bestExpected(scores)
  const averse = bestAverse(scores, lambda)
  const outer = [levels[0], levels[levels.length - 1]]
  const head = ['', 'expected', 'utility', ...outer.map((level) => `${Math.round(level * 100)} %`), axis(scale), '']
  const lines = scores.map(({ expectation, utility, quantiles }, i) => [
    `${i === expected ? 'E' : ' '}${i === averse ? 'U' : ' '}`,
    figure(expectation),
    figure(utility),
    ...outer.map((level) => figure(nearest(quantiles, levels, level))),
    sketch(quantiles, levels, scale),
    snippet(responses[i], RESPONSE_CHARACTERS),
  ])
  return table([head, ...lines], [1, 2, 3, 4])
}

function bestExpected(scores: readonly Score[]): number {
  return largest(scores.map((score) => score.expectation))
}

/** By the certainty equivalent, which ranks like the utility and does not overflow. */
function bestAverse(scores: readonly Score[], lambda: number): number {
  return lambda === 0 ? bestExpected(scores) : largest(scores.map((score) => entropic(score.quantiles, lambda)))
}

function largest(values: readonly number[]): number {
  return values.indexOf(Math.max(...values))
}

// The risk aversions that are tried for a change of mind: 0.1 to about 100, each 5 % above the one before.
const LAMBDAS = Array.from({ length: 142 }, (_, i) => 0.1 * 1.05 ** i)

/** Says which response is chosen at `lambda` and which by expectation, or the lambda from which on they differ. */
export function verdict(scores: readonly Score[], lambda: number): string {
  const expected = bestExpected(scores)
  const averse = bestAverse(scores, lambda)
  if (averse !== expected) {
    return `at lambda ${lambda} response ${averse + 1} is chosen, by expectation ${expected + 1} is`
  }
  const change = LAMBDAS.find((other) => other > lambda && bestAverse(scores, other) !== expected)
  const same = `response ${expected + 1} either way`
  if (change === undefined) return `${same}, whatever lambda`
  return `${same}; from lambda ${figure(change)} on response ${bestAverse(scores, change) + 1}`
}
