// pinball score: reward distributions of rows, as JSON or as a table with a drawing of each.
import type { Command } from 'commander'
import type { Device } from '../../device/device.ts'
import type { FileRecord } from '../../files/records.ts'
import type { ModelFiles } from '../../files/source.ts'
import {
  attributeTable,
  scoreDocument,
  scoreHeading,
  scoreTable,
  skippedNotes,
  utilityNote,
} from '../../report/scores.ts'
import {
  loadRewardModel,
  type RewardModel,
  type Score,
  type ScoreOptions as ScoreSettings,
} from '../../reward/model.ts'
import { readScoredRows, type ScoredRow } from '../../reward/scored_rows.ts'
import { type Compute, type OwnParts, withModel } from '../engine.ts'
import {
  adapterOption,
  chosenHeads,
  deviceOptions,
  type HeadChoice,
  headOptions,
  headsOption,
  limitOptions,
  type ModelChoice,
  parseInput,
  parseLambda,
  shareOption,
  usageError,
} from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startRows } from '../progress.ts'
import { readRows } from '../rows.ts'

interface ScoreOptions extends ModelChoice, HeadChoice {
  readonly prompt?: string
  readonly response?: string[]
  readonly input?: string
  readonly lambda?: number
  readonly rearrange?: boolean
  readonly share: boolean
  readonly maxLength?: number
  readonly skipInvalid?: boolean
  readonly json?: boolean
}

const EXAMPLES = `
Rows of an input are:
  {"prompt": "...", "response": "..."}
  {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
  {"input_ids": [1, 2, 3], "gate_position": 0}
The prompt may be a list of messages; "completion" is a response too (TRL), and so are "input" with "output" (OpenRLHF). Messages may have
a null "name" or "tool_calls" and content in parts of text, as Hugging Face writes them. Files are JSON Lines, a JSON list (either plain or
gzip), Parquet or CSV with a header. A result has the "id" of its row and, as "fields", all that the row has beside what is scored.

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
  limitOptions(shareOption(headOptions(headsOption(adapterOption(deviceOptions(program.command('score')))))))
    .description('score responses: reward distribution, expectation and risk-aware utility')
    .argument('[-]', 'read rows from standard input')
    .option('--prompt <text>', 'a prompt; needs --response')
    .option('--response <text>', 'a response to the prompt; may be repeated', collect)
    .option(
      '--input <file>',
      'rows: JSON Lines, a JSON list (plain or gzip), Parquet or CSV; - for standard input',
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
  const records = await chooseRows(argument, options)
  const load = (device: Device, files: ModelFiles, own: OwnParts) =>
    loadRewardModel(device, files, { ...chosenHeads(options), ...own })
  await withModel(options, load, async (model, device, compute) => {
    const { lambda, rearrange, share, maxLength, skipInvalid } = options
    const { rows, skipped } = readScoredRows(records, (row) => model.encode(row, { gate: true }), {
      maxLength,
      skipInvalid,
    })
    const results = await scoreRows(model, compute, rows, { lambda, rearrange, share })
    const scorer = { model, adapter: options.adapter, device }
    for (const line of skippedNotes(skipped)) note(`score: note: ${line}`)
    const far = utilityNote(rows, results)
    if (far !== null) note(`score: note: ${far}`)
    if (options.json) return printJson(scoreDocument(scorer, rows, results, rearrange))
    await print(`${scoreHeading(scorer, rows.length, lambda)}\n${scoreTable(model.levels, rows, results)}`)
    if (results.length === 1) await print(`\n${attributeTable(model, results[0])}`)
  })
}

async function chooseRows(argument: string | undefined, options: ScoreOptions): Promise<FileRecord[]> {
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
  return readRows([file])
}

/** Rows of --prompt and each --response; wrong usage without both. */
export function ownRows(prompt: string | undefined, responses: readonly string[] | undefined): FileRecord[] {
  if (prompt === undefined) usageError('--response needs --prompt')
  if (responses === undefined) usageError('--prompt needs --response')
  return responses.map((response) => ({ where: '', value: { prompt, response } }))
}

/** Scores rows with a progress line. */
export async function scoreRows(
  model: RewardModel,
  compute: Compute,
  rows: readonly Pick<ScoredRow, 'encoded'>[],
  options: Pick<ScoreSettings, 'lambda' | 'rearrange' | 'share'>,
): Promise<Score[]> {
  const encoded = rows.map((row) => row.encoded)
  const progress = startRows()
  return compute(() => model.score(encoded, { ...options, onProgress: progress.update })).finally(progress.end)
}
