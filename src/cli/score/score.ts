// pinball score: reward distributions of rows, as JSON or as a table with a drawing of each.
import type { Command } from 'commander'
import type { Device } from '../../device/device.ts'
import { printable } from '../../files/json.ts'
import type { ModelFiles } from '../../files/source.ts'
import type { ModelOptions } from '../../reward/features.ts'
import {
  loadRewardModel,
  type RewardModel,
  type Score,
  type ScoreOptions as ScoreSettings,
} from '../../reward/model.ts'
import { axis, commonScale, figure, nearest, sketch, snippet, table } from '../draw.ts'
import { type Compute, withModel } from '../engine.ts'
import {
  adapterOption,
  chosenHeads,
  deviceOptions,
  type HeadChoice,
  headOptions,
  type ModelChoice,
  parseInput,
  parseLambda,
  shareOption,
  usageError,
} from '../options.ts'
import { print, printJson } from '../output.ts'
import { startRows } from '../progress.ts'
import { encodeAll, type InputRow, readRows } from '../rows.ts'

interface ScoreOptions extends ModelChoice, HeadChoice {
  readonly prompt?: string
  readonly response?: string[]
  readonly input?: string
  readonly lambda?: number
  readonly rearrange?: boolean
  readonly share: boolean
  readonly json?: boolean
}

const EXAMPLES = `
Rows of an input file are JSON objects, one a line:
  {"prompt": "...", "response": "..."}
  {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
  {"input_ids": [1, 2, 3], "gate_position": 0}

Tables and drawings show quantiles that cross in ascending order; --json prints them as the model gives them, unless
--rearrange sorts them. Scores, expectations and utilities do not depend on that order.

Examples:
  $ pinball score --prompt "How was the film?" --response "A delight." --response "Dull."
  $ pinball score --input rows.jsonl --json > scores.json
  $ pinball score --model ./Llama-3-8B --adapter reward-lora --input rows.jsonl
  $ generate | pinball score --model ./QRM-Llama3.1-8B --device webgpu -
`

/** Adds the command to the program. */
export function addScore(program: Command): void {
  shareOption(headOptions(adapterOption(deviceOptions(program.command('score')))))
    .description('score responses: reward distribution, expectation and risk-aware utility')
    .argument('[-]', 'read rows from standard input')
    .option('--prompt <text>', 'a prompt; needs --response')
    .option('--response <text>', 'a response to the prompt; may be repeated', collect)
    .option(
      '--input <file>',
      'rows: JSON Lines, a JSON list (plain or gzip) or Parquet; - for standard input',
      parseInput,
    )
    .option('--lambda <number>', "risk aversion of the utility (default: the model's)", parseLambda)
    .option('--rearrange', 'sort the quantiles of each attribute and of the mixture into ascending order')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (argument: string | undefined, options: ScoreOptions) => score(argument, options))
}

/** Gathers the values of an option that may be repeated. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

async function score(argument: string | undefined, options: ScoreOptions): Promise<void> {
  const rows = await chooseRows(argument, options)
  const load = (device: Device, files: ModelFiles, own: ModelOptions) =>
    loadRewardModel(device, files, { ...chosenHeads(options), ...own })
  await withModel(options, load, async (model, device, compute) => {
    const { lambda, rearrange, share } = options
    const results = await scoreRows(model, compute, rows, { lambda, rearrange, share })
    if (options.json) return printJson(document(model, device, results, options))
    await print(`${heading(model, device, rows.length, options.lambda)}\n${summary(model, rows, results)}`)
    if (results.length === 1) await print(`\n${attributes(model, results[0])}`)
  })
}

async function chooseRows(argument: string | undefined, options: ScoreOptions): Promise<InputRow[]> {
  const { prompt, response, input } = options
  if (argument !== undefined && argument !== '-') {
    usageError(`unexpected argument "${argument}"; use --input FILE, or - for standard input`)
  }
  const own = prompt !== undefined || response !== undefined
  if ([own, input !== undefined, argument !== undefined].filter(Boolean).length > 1) {
    usageError('--prompt with --response, --input and - exclude each other')
  }
  if (own) return ownRows(prompt, response)
  const file = input ?? argument
  if (file === undefined) usageError('nothing to score; give --prompt and --response, --input FILE, or -')
  return readRows(file)
}

/** Rows of --prompt and each --response; wrong usage without both. */
export function ownRows(prompt: string | undefined, responses: readonly string[] | undefined): InputRow[] {
  if (prompt === undefined) usageError('--response needs --prompt')
  if (responses === undefined) usageError('--prompt needs --response')
  return responses.map((response) => ({ where: '', row: { prompt, response } }))
}

/** Checks all rows, then scores them with a progress line. */
export async function scoreRows(
  model: RewardModel,
  compute: Compute,
  rows: readonly InputRow[],
  options: Pick<ScoreSettings, 'lambda' | 'rearrange' | 'share'>,
): Promise<Score[]> {
  const encoded = encodeAll(model, rows, true)
  const progress = startRows()
  try {
    return await compute(() => model.score(encoded, { ...options, onProgress: progress.update }))
  } finally {
    progress.end()
  }
}

/** The document of `score --json`. */
function document(
  model: RewardModel,
  device: Device,
  results: readonly Score[],
  { adapter, rearrange }: ScoreOptions,
): unknown {
  return {
    model: model.name,
    ...(adapter !== undefined && { adapter }),
    device: device.name,
    levels: [...model.levels],
    attributes: [...model.attributes],
    ...(rearrange && { rearranged: true }),
    results: results.map((result) => ({
      score: result.score,
      expectation: result.expectation,
      utility: result.utility,
      quantiles: Array.from(result.quantiles),
      attributes: result.attributes,
      gate: result.gate,
      tokens: result.tokens,
    })),
  }
}

/** One line that says what was scored by what. */
export function heading(model: RewardModel, device: Device, rows: number, lambda = model.lambda): string {
  const count = `${rows} ${rows === 1 ? 'row' : 'rows'}`
  const { attributes: names, levels } = model
  const where = printable(`${model.name} on ${device.description}`)
  const many = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`
  return `${where}: ${count}, ${many(names.length, 'attribute')} at ${many(levels.length, 'level')}, lambda ${lambda}\n`
}

/** A line for each row: score, utility, three quantiles, drawing, the beginning of the response. */
export function summary(model: RewardModel, rows: readonly InputRow[], results: readonly Score[]): string {
  const scale = commonScale(
    results.map((result) => result.quantiles),
    28,
  )
  const { levels } = model
  const marks = [levels[0], 0.5, levels[levels.length - 1]]
  const shown = levels.length === 1 ? [levels[0]] : marks
  const head = ['row', 'score', 'utility', ...shown.map(percent), axis(scale), 'response']
  const lines = results.map((result, i) => [
    String(i + 1),
    figure(result.score),
    figure(result.utility),
    ...shown.map((level) => figure(nearest(result.quantiles, levels, level))),
    sketch(result.quantiles, levels, scale),
    snippet(textOf(rows[i]), 40),
  ])
  const numeric = Array.from({ length: 3 + shown.length }, (_, i) => i)
  return table([head, ...lines], numeric)
}

/** A line for each attribute: weight of the gate, expectation, outer quantiles, drawing; largest weights first. */
export function attributes(model: RewardModel, result: Score): string {
  const { levels } = model
  const names = [...model.attributes].sort((a, b) => result.gate[b] - result.gate[a])
  const scale = commonScale(
    names.map((name) => result.attributes[name].quantiles),
    28,
  )
  const outer = levels.length === 1 ? [levels[0]] : [levels[0], levels[levels.length - 1]]
  const lines = names.map((name) => {
    const { expectation, quantiles } = result.attributes[name]
    const ends = outer.map((level) => figure(nearest(quantiles, levels, level)))
    return [name, figure(result.gate[name]), figure(expectation), ...ends, sketch(quantiles, levels, scale)]
  })
  const numeric = Array.from({ length: 2 + outer.length }, (_, i) => i + 1)
  return table([['attribute', 'weight', 'expected', ...outer.map(percent), axis(scale)], ...lines], numeric)
}

function percent(level: number): string {
  return `${Number((level * 100).toPrecision(3))} %`
}

/** What people recognise a row by: its response, its last message, or its token ids. */
function textOf({ row }: InputRow): string {
  const { response, messages, input_ids: tokens } = row
  if (typeof response === 'string') return response
  if (Array.isArray(messages)) return String((messages[messages.length - 1] as { content: unknown }).content)
  return Array.isArray(tokens) ? `[${tokens.slice(0, 12).join(' ')}]` : ''
}
