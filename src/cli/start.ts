// pinball start: scores built-in prompts (or the user's own), and shows where a risk-averse choice differs from the expected best.
import type { Command } from 'commander'
import { loadRewardModel, type RewardModel, type Score } from '../reward/model.ts'
import { entropic } from '../reward/risk.ts'
import { axis, commonScale, figure, nearest, type Scale, sketch, snippet, table } from './draw.ts'
import { withModel } from './engine.ts'
import { type DeviceChoice, deviceOptions, parseLambda } from './options.ts'
import { print } from './output.ts'
import { EXAMPLES, type Example } from './prompts.ts'
import { collect, heading, ownRows, scoreRows } from './score.ts'

interface StartOptions extends DeviceChoice {
  readonly prompt?: string
  readonly response?: string[]
  readonly lambda?: number
}

const HELP = `
Quantiles that cross are shown in ascending order.

Examples:
  $ pinball start
  $ pinball start --prompt "How are you?" --response "Fine." --response "Go away." --lambda 4
`

/** Adds the command to the program. */
export function addStart(program: Command): void {
  deviceOptions(program.command('start'))
    .description('score a few built-in prompts, or your own, and show what risk aversion changes')
    .option('--prompt <text>', 'your own prompt; needs --response')
    .option('--response <text>', 'a response to it; may be repeated', collect)
    .option('--lambda <number>', "risk aversion of the utility (default: the model's)", parseLambda)
    .addHelpText('after', HELP)
    .action(async (options: StartOptions) => start(options))
}

async function start(options: StartOptions): Promise<void> {
  const examples = chooseExamples(options)
  const began = performance.now()
  await withModel(options, loadRewardModel, async (model, device, compute) => {
    const rows = examples.flatMap(({ prompt, responses }) => ownRows(prompt, responses))
    const results = await scoreRows(model, compute, rows, { lambda: options.lambda })
    const lambda = options.lambda ?? model.lambda
    const scale = commonScale(
      results.map((result) => result.quantiles),
      30,
    )
    await print(heading(model, device, rows.length, lambda))
    const verdicts: string[] = []
    let at = 0
    for (const [i, { prompt, responses }] of examples.entries()) {
      const scores = results.slice(at, at + responses.length)
      at += responses.length
      await print(`\n${i + 1}. ${snippet(prompt, 100)}\n${group(model, responses, scores, scale, lambda)}`)
      if (responses.length > 1) verdicts.push(`  ${i + 1}. ${verdict(scores, lambda)}\n`)
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    await print(`\nE: best by expectation. U: best by the utility -E[exp(-lambda r)], which shuns low rewards.\n`)
    if (verdicts.length > 0) await print(`What risk aversion changes:\n${verdicts.join('')}`)
    await print(`Loaded and scored in ${seconds} s. More: pinball --help\n`)
  })
}

function chooseExamples({ prompt, response }: StartOptions): readonly Example[] {
  if (prompt === undefined && response === undefined) return EXAMPLES
  ownRows(prompt, response)
  return [{ prompt: prompt as string, responses: response as string[] }]
}

/** A line for each response to one prompt; marks the best by expectation and by utility. */
function group(
  { levels }: RewardModel,
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
    snippet(responses[i], 60),
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
