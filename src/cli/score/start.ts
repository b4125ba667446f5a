// pinball start: what reward distributions are, in a minute: reviews scored by the embedded model, then a risk-neutral and a risk-aware
// policy side by side in the small world. Or the user's own responses, scored.
import type { Command } from 'commander'
import { type Example, REVIEWS } from '../../data/reviews.ts'
import type { Device } from '../../device/device.ts'
import { printable } from '../../files/json.ts'
import type { ModelFiles } from '../../files/source.ts'
import { choicesText } from '../../report/choices.ts'
import { duration } from '../../report/draw.ts'
import { figure3Examples, figure3Text, WORLD_TEXT } from '../../report/figure3.ts'
import { scoreHeading } from '../../report/scores.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { readScoredRows } from '../../reward/scored_rows.ts'
import { START_SETTINGS } from '../../world/settings.ts'
import { withModel } from '../engine.ts'
import { type DeviceChoice, deviceOptions, fileName, parseLambda } from '../options.ts'
import { print } from '../output.ts'
import { makeFigure3 } from '../reproduce.ts'
import { collect, ownRows, scoreRows } from './score.ts'

interface StartOptions extends DeviceChoice {
  readonly prompt?: string
  readonly response?: string[]
  readonly lambda?: number
  readonly out: string
  readonly world: boolean
}

const HELP = `
Quantiles that cross are shown in ascending order. The small world takes well below a minute on two cores; after Ctrl-C the same
command goes on, and a second call shows what --out holds.

Examples:
  $ pinball start
  $ pinball start --prompt "How are you?" --response "Fine." --response "Go away." --lambda 4
  $ pinball start --no-world
`

/** Adds the command to the program. */
export function addStart(program: Command): void {
  deviceOptions(program.command('start'))
    .description('score a few reviews, then train a risk-neutral and a risk-aware policy in a small world')
    .option('--prompt <text>', 'your own prompt, to be scored instead; needs --response')
    .option('--response <text>', 'a response to it; may be repeated', collect)
    .option('--lambda <number>', "risk aversion of the utility (default: the model's)", parseLambda)
    .option(
      '--out <dir>',
      'directory for the report of the small world',
      fileName('--out', 'directory'),
      'pinball-start',
    )
    .option('--no-world', 'leave the small world out')
    .addHelpText('after', HELP)
    .action(async (options: StartOptions) => start(options))
}

async function start(options: StartOptions): Promise<void> {
  const { prompt, response, model: folder, out, world } = options
  const own = prompt !== undefined || response !== undefined
  const examples = own ? ownExample(options) : REVIEWS
  const began = performance.now()
  // Of reviews, what the embedded model is good at: their sentiment, as it was fitted.
  const heads = own || folder !== undefined ? {} : { weights: { sentiment: 1 }, debias: false }
  const load = (device: Device, files: ModelFiles) => loadRewardModel(device, files, heads)
  await withModel(options, load, async (model, device, compute) => {
    const records = examples.flatMap(({ prompt, responses }) => ownRows(prompt, responses))
    const { rows } = readScoredRows(records, (row) => model.encode(row, { gate: true }))
    const results = await scoreRows(model, compute, rows, { lambda: options.lambda })
    const lambda = options.lambda ?? model.lambda
    if ('weights' in heads) await print(ABOUT_NANO)
    await print(scoreHeading({ model, device }, rows.length, lambda))
    await print(choicesText(model.levels, examples, results, lambda))
    if (!own && world) await showWorld(device, out)
    await print(`\nDone in ${duration((performance.now() - began) / 1000)}. More: pinball --help\n`)
  })
}

const ABOUT_NANO =
  'The embedded model knows something about the sentiment of English sentences, which is shown here, and little else: it is no judge of answers.\n'

async function showWorld(device: Device, out: string): Promise<void> {
  await print(`\nA small world with known truth\n\n${WORLD_TEXT}\n\n`)
  await makeFigure3(device, START_SETTINGS, { out }, async (figure) => {
    await print(
      `${figure3Examples(figure, 4)}\n${figure3Text(figure)}\nThe report with its plots: ${printable(out)}/report.html\n`,
    )
  })
}

function ownExample({ prompt, response }: StartOptions): readonly Example[] {
  ownRows(prompt, response)
  return [{ prompt: prompt as string, responses: response as string[] }]
}
