// pinball start: scores built-in prompts (or the user's own), and shows where a risk-averse choice differs from the expected best.
import type { Command } from 'commander'
import { EVERYDAY_PROMPTS, type Example } from '../../data/everyday_prompts.ts'
import { choicesText } from '../../report/choices.ts'
import { scoreHeading } from '../../report/scores.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { readScoredRows } from '../../reward/scored_rows.ts'
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
    const records = examples.flatMap(({ prompt, responses }) => ownRows(prompt, responses))
    const { rows } = readScoredRows(records, (row) => model.encode(row, { gate: true }))
    const results = await scoreRows(model, compute, rows, { lambda: options.lambda })
    const lambda = options.lambda ?? model.lambda
    await print(scoreHeading({ model, device }, rows.length, lambda))
    await print(choicesText(model.levels, examples, results, lambda))
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    await print(`Loaded and scored in ${seconds} s. More: pinball --help\n`)
  })
}

function chooseExamples({ prompt, response }: StartOptions): readonly Example[] {
  if (prompt === undefined && response === undefined) return EVERYDAY_PROMPTS
  ownRows(prompt, response)
  return [{ prompt: prompt as string, responses: response as string[] }]
}
