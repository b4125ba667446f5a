// What `pinball start` shows of the responses to each prompt: which is best by expectation, which by utility, and where they part.
import type { Example } from '../data/reviews.ts'
import type { Score } from '../reward/model.ts'
import { entropic } from '../reward/risk.ts'
import { axis, commonScale, figure, nearest, type Scale, sketch, snippet, table } from './draw.ts'

const PROMPT_CHARACTERS = 100
const RESPONSE_CHARACTERS = 60
const DRAWING_CHARACTERS = 30

/** A table for each prompt, what its letters mean, and what risk aversion changes; `scores` are those of all responses in order. */
export function choicesText(
  levels: readonly number[],
  examples: readonly Example[],
  scores: readonly Score[],
  lambda: number,
): string {
  const scale = commonScale(
    scores.map(({ quantiles }) => quantiles),
    DRAWING_CHARACTERS,
  )
  const tables: string[] = []
  const verdicts: string[] = []
  let at = 0
  for (const [i, { prompt, responses }] of examples.entries()) {
    const own = scores.slice(at, at + responses.length)
    at += responses.length
    const title = `${i + 1}. ${snippet(prompt, PROMPT_CHARACTERS)}`
    tables.push(`\n${title}\n${choiceTable(levels, responses, own, scale, lambda)}`)
    if (responses.length > 1) verdicts.push(`  ${i + 1}. ${verdict(own, lambda)}\n`)
  }
  const letters = '\nE: best by expectation. U: best by the utility -E[exp(-lambda r)], which shuns low rewards.\n'
  const changes = verdicts.length > 0 ? `What risk aversion changes:\n${verdicts.join('')}` : ''
  return `${tables.join('')}${letters}${changes}`
}

/** A line for each response to one prompt; marks the best by expectation and by utility. */
function choiceTable(
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
function verdict(scores: readonly Score[], lambda: number): string {
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
