// pinball start: scores built-in prompts (or the user's own), and shows where a risk-averse choice differs from the expected best.
import type { Command } from 'commander'
import { EVERYDAY_PROMPTS, type Example } from '../../data/everyday_prompts.ts'
import { choiceTable, verdict } from '../../report/choices.ts'
import { commonScale, snippet } from '../../report/draw.ts'
import { scoreHeading } from '../../report/scores.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { withModel } from '../engine.ts'
import { type DeviceChoice, deviceOptions, parseLambda } from '../options.ts'
import { print } from '../output.ts'
import { collect, ownRows, scoreRows } from './score.ts'

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
    await print(scoreHeading({ model, device }, rows.length, lambda))
    const verdicts: string[] = []
    let at = 0
    for (const [i, { prompt, responses }] of examples.entries()) {
      const scores = results.slice(at, at + responses.length)
      at += responses.length
      await print(`\n${i + 1}. ${snippet(prompt, 100)}\n${choiceTable(model.levels, responses, scores, scale, lambda)}`)
      if (responses.length > 1) verdicts.push(`  ${i + 1}. ${verdict(scores, lambda)}\n`)
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    await print(`\nE: best by expectation. U: best by the utility -E[exp(-lambda r)], which shuns low rewards.\n`)
    if (verdicts.length > 0) await print(`What risk aversion changes:\n${verdicts.join('')}`)
    await print(`Loaded and scored in ${seconds} s. More: pinball --help\n`)
  })
}

function chooseExamples({ prompt, response }: StartOptions): readonly Example[] {
  if (prompt === undefined && response === undefined) return EVERYDAY_PROMPTS
  ownRows(prompt, response)
  return [{ prompt: prompt as string, responses: response as string[] }]
}
