// pinball generate: continues prompts by a causal model, streamed, as texts or as JSON; of several samples the best by a reward model.
import { type Command, Option } from 'commander'
import { leftTail } from '../evaluate/left_tail.ts'
import type { FileRecord } from '../files/records.ts'
import type { RewardTokens } from '../generate/best_of.ts'
import type { CacheStorage } from '../generate/cache.ts'
import { type CausalModel, loadCausalModel } from '../generate/causal_model.ts'
import { GENERATION_DEFAULTS, type GenerationSettings } from '../generate/continuation.ts'
import { type FinishedOptions, finishedTexts, rankFinished } from '../generate/finished.ts'
import type { PromptRow } from '../generate/prompt_rows.ts'
import type { GeneratedText } from '../generate/texts.ts'
import {
  bestOfBlock,
  bestOfDocument,
  forTerminal,
  generationDocument,
  tailTable,
  textBlock,
  writingText,
} from '../report/generation.ts'
import { loadRewardModel, type RewardModel } from '../reward/model.ts'
import { parseScoreKind } from '../reward/scoring.ts'
import { openModel, withModel } from './engine.ts'
import { type Interrupt, interruptible } from './interrupt.ts'
import {
  adapterOption,
  checkOption,
  deviceOptions,
  fileName,
  type ModelChoice,
  parseInput,
  parseLambda,
  positive,
  realNumber,
  usageError,
  wholeNumber,
} from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress, startStatus } from './progress.ts'
import { readRows } from './rows.ts'
import { collect } from './score/score.ts'

interface GenerateCommand extends ModelChoice, Omit<GenerationSettings, 'stopTokens' | 'stopStrings'> {
  readonly prompt?: string
  readonly input?: string
  readonly samples?: number
  readonly stop?: string[]
  readonly plain?: boolean
  readonly batch: number
  readonly cache: CacheStorage
  readonly bestOf?: number
  readonly rank?: string
  readonly lambda?: number
  readonly reward?: string
  readonly rewardAdapter?: string
  readonly rewardTokens?: RewardTokens
  readonly json?: boolean
}

const EXAMPLES = `
Rows of an input file are JSON objects, one a line, each with an "id" if it is to have one:
  {"prompt": "..."}
  {"messages": [{"role": "user", "content": "..."}]}
  {"input_ids": [1, 2, 3]}

Prompts go through the model's chat template with the answer begun; where it has none, or with --plain, texts are continued as
they are. Tokens are drawn in this order: repetition penalty, temperature, top-k, top-p, min-p. What generation_config.json says
of sampling does not apply, only its EOS ids. A sample depends on seed, prompt and its number alone: neither on --batch nor on
the rows beside it.

--json prints {"results": [{"id", "prompt", "text", "tokens", "logprobs", "finish_reason"}]}, rows in order, the samples of a
row one after the other; "id" is the number of the row from 0 where it has none. "tokens" and "logprobs" have the stop token
that ended a text, "text" does not. Log-probabilities are those before top-k, top-p and min-p; where the temperature is 0, those of
temperature 1. A repetition penalty counts in both. Ctrl-C prints what is finished ("interrupted": true) and ends with 130.

--best-of N draws N samples of each prompt, scores all by the reward model and keeps the best by --rank: expectation, utility,
cvar[:LEVEL], quantile:LEVEL or certainty-equivalent. A result then also has "sample", "score" (what ranked), "expectation",
"utility" and "quantiles" of the chosen one, and "scores" and "expectations" of all; "best_of" says how the choice moves the
left tail: q05 to q25 and the expectation of all samples, of the chosen, and of the best by expectation, by the reward model's
own estimate, with 95 % bootstrap intervals over prompts.

Examples:
  $ pinball generate --adapter models/nano-sft --prompt "How was the film?"
  $ pinball generate --model ./SmolLM2-135M-Instruct --input prompts.jsonl --samples 4 --temperature 0.7 --json
  $ pinball generate --model ./Llama-3-8B --adapter sft --prompt "Once upon" --plain --temperature 0 --stop $'\\n\\n'
  $ pinball generate --model ./Llama-3-8B --input prompts.jsonl --best-of 16 --rank cvar:0.1 --reward ./QRM-Llama3.1-8B --json
`

/** Adds the command to the program. */
export function addGenerate(program: Command): void {
  const usual = GENERATION_DEFAULTS
  const share = realNumber((value) => value >= 0 && value <= 1, 'from 0 to 1')
  const most = 2 ** 31 - 1
  adapterOption(deviceOptions(program.command('generate')))
    .description('continue prompts by a causal model; of several samples keep the best by a reward model')
    .argument('[-]', 'read rows from standard input')
    .option('--prompt <text>', 'a prompt')
    .option('--input <file>', 'rows: JSON Lines, a JSON list (plain or gzip) or Parquet; - for stdin', parseInput)
    .option('--samples <n>', 'texts for each prompt (default: 1)', wholeNumber(1, 1_000_000))
    .option(
      '--temperature <t>',
      'divides the logits; 0 takes the most probable token',
      realNumber((value) => value >= 0 && value < Infinity, 'of at least 0'),
      usual.temperature,
    )
    .option('--max-new-tokens <n>', 'most tokens of a text', wholeNumber(1, most), usual.maxNewTokens)
    .option('--min-new-tokens <n>', 'tokens before which no text ends', wholeNumber(0, most), usual.minNewTokens)
    .option('--top-k <n>', 'most probable tokens that may be drawn; 0: all', wholeNumber(0, most), usual.topK)
    .option(
      '--top-p <p>',
      'share of probability that the most probable tokens reach; 1: all',
      realNumber((value) => value > 0 && value <= 1, 'above 0 and at most 1'),
      usual.topP,
    )
    .option('--min-p <p>', 'least probability, as a share of the largest; 0: all', share, usual.minP)
    .option(
      '--repetition-penalty <x>',
      'makes tokens rarer that are there already; 1: none',
      positive,
      usual.repetitionPenalty,
    )
    .option('--stop <text>', 'ends a text before this; may be repeated', collect)
    .option('--seed <n>', 'of all draws', wholeNumber(0, 2 ** 32 - 1), usual.seed)
    .option('--plain', 'continue prompts as they are, without the chat template')
    .option('--batch <n>', 'samples that are decoded at the same time', wholeNumber(1, 1024), 16)
    .addOption(
      new Option('--cache <type>', 'how keys and values are stored; f16 takes half the memory')
        .choices(['f32', 'f16'])
        .default('f32'),
    )
    .option(
      '--best-of <n>',
      'samples of each prompt of which the best is kept; needs --reward',
      wholeNumber(2, 100_000),
    )
    .option('--rank <kind>', 'which number of the reward distribution ranks (default: expectation)')
    .option('--reward <dir>', 'the reward model that ranks', fileName('--reward', 'directory'))
    .option('--reward-adapter <dir>', 'a LoRA adapter over it', fileName('--reward-adapter', 'directory'))
    .option('--lambda <number>', "risk aversion of the ranking (default: the reward model's)", parseLambda)
    .addOption(
      new Option('--reward-tokens <which>', 'what it reads: texts in its own template, or the tokens').choices([
        'own',
        'policy',
      ]),
    )
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (argument: string | undefined, options: GenerateCommand) => generate(argument, options))
}

async function generate(argument: string | undefined, options: GenerateCommand): Promise<void> {
  const { bestOf, reward } = options
  const rank = checkOption('--rank', () => parseScoreKind(options.rank ?? 'expectation'))
  checkChoice(options)
  const rows = await chooseRows(argument, options)
  // Asked for before the models are loaded, because it may not be there.
  const ranking = reward === undefined ? null : await openModel({ model: reward, adapter: options.rewardAdapter })
  await withModel(options, loadCausalModel, async (model, device) => {
    if (bestOf === undefined || ranking === null) return writeAll(model, rows, options)
    const ranker = await loadRewardModel(device, ranking.files, { adapter: ranking.adapter })
    try {
      await writeBest(model, ranker, rows, { ...options, bestOf, rank })
    } finally {
      await ranker.destroy()
    }
  })
}

function checkChoice({ bestOf, reward, rank, lambda, rewardTokens, samples, ...rest }: GenerateCommand): void {
  if (rest.minNewTokens > rest.maxNewTokens) usageError('--min-new-tokens must be at most --max-new-tokens')
  if (rest.stop?.includes('')) usageError('--stop: must be a text, got ""')
  if (bestOf !== undefined && reward === undefined) usageError('--best-of needs --reward')
  if (bestOf !== undefined && samples !== undefined) usageError('--samples and --best-of exclude each other')
  const ranking = {
    ...{ '--reward': reward, '--reward-adapter': rest.rewardAdapter, '--reward-tokens': rewardTokens },
    ...{ '--rank': rank, '--lambda': lambda },
  }
  for (const [name, value] of Object.entries(ranking))
    if (bestOf === undefined && value !== undefined) usageError(`${name} needs --best-of`)
}

async function chooseRows(argument: string | undefined, { prompt, input }: GenerateCommand): Promise<FileRecord[]> {
  if (argument !== undefined && argument !== '-')
    usageError(`unexpected argument "${argument}"; use --input FILE, or - for standard input`)
  if ([prompt, input, argument].filter((given) => given !== undefined).length > 1)
    usageError('--prompt, --input and - exclude each other')
  if (prompt !== undefined) return [{ where: '--prompt', value: { prompt } }]
  const file = input ?? argument
  return file === undefined ? usageError('nothing to continue; give --prompt, --input FILE, or -') : readRows([file])
}

const whereOf = (rows: readonly FileRecord[]) => (row: number) => rows[row].where
const isTerminal = (): boolean => process.stdout.isTTY === true

/** Writes texts until they are there or an interrupt comes; gives those that are finished, by row and sample. */
async function write(
  model: CausalModel,
  rows: readonly FileRecord[],
  options: GenerateCommand,
  { signal }: Interrupt,
  { onPiece, onText }: Pick<FinishedOptions, 'onPiece' | 'onText'> = {},
): Promise<GeneratedText[]> {
  const { bestOf, samples = bestOf ?? 1, stop: stopStrings = [], batch: slots, cache: storage } = options
  const texts = rows.length * samples
  const status = startStatus()
  const start = performance.now()
  const values = rows.map(({ value }) => value as unknown as PromptRow)
  return finishedTexts(model, values, {
    ...{ ...options, samples, stopStrings, slots, storage, signal, nameRow: whereOf(rows) },
    async onPiece(piece, done, tokens) {
      await onPiece?.(piece, done, tokens)
      // A line that is redrawn would stand in the text.
      if (onPiece && isTerminal()) return
      status.show(() => writingText({ done, texts, tokens }, (performance.now() - start) / 1000))
    },
    async onText(text) {
      if (onText) status.end()
      await onText?.(text)
    },
  }).finally(status.end)
}

/** Ends with the code of an interrupt, if there was one. */
function leave({ signal, code }: Interrupt, finished: number, all: number, what: string): void {
  if (!signal.aborted) return
  note(`generate: interrupted; ${finished} of ${all} ${what} are finished`)
  process.exitCode = code()
}

function writeAll(model: CausalModel, rows: readonly FileRecord[], options: GenerateCommand): Promise<void> {
  const { adapter, json, samples = 1 } = options
  return interruptible('generate', async (interrupt) => {
    const all = rows.length * samples
    const single = all === 1 && !json && model.tokenizer !== null
    const terminal = isTerminal()
    const told: Pick<FinishedOptions, 'onPiece' | 'onText'> = json
      ? {}
      : single
        ? { onPiece: ({ text }) => (text === '' ? undefined : print(terminal ? forTerminal(text) : text)) }
        : { onText: (text) => print(textBlock(text, samples, terminal)) }
    const texts = await write(model, rows, options, interrupt, told)
    if (single) await print('\n')
    const { aborted: interrupted } = interrupt.signal
    if (json) await printJson(generationDocument({ model, adapter, device: model.device, interrupted }, texts))
    leave(interrupt, texts.length, all, 'texts')
  })
}

type BestOfCommand = Omit<GenerateCommand, 'rank'> & {
  readonly bestOf: number
  readonly rank: ReturnType<typeof parseScoreKind>
}

function writeBest(
  model: CausalModel,
  reward: RewardModel,
  rows: readonly FileRecord[],
  { rank, ...options }: BestOfCommand,
): Promise<void> {
  const { adapter, json, bestOf, lambda = reward.lambda, rewardTokens } = options
  if (rank.kind === 'utility' && lambda === 0) usageError('--rank utility needs a --lambda above 0')
  return interruptible('generate', async (interrupt) => {
    const texts = await write(model, rows, options, interrupt)
    const progress = startProgress('texts')
    const ranked = await rankFinished(reward, texts, bestOf, {
      ...{ rank, lambda, rewardTokens, signal: interrupt.signal, nameRow: whereOf(rows) },
      onProgress: ({ done, texts }) => progress.update(done, texts),
    }).finally(progress.end)
    const ranking = { n: bestOf, rank, lambda, reward }
    const tail = leftTail(ranked, reward.levels)
    const writing = { model, adapter, device: model.device, interrupted: interrupt.signal.aborted }
    if (json) await printJson(bestOfDocument(writing, ranked, ranking, tail))
    else {
      for (const row of ranked) await print(bestOfBlock(row, isTerminal()))
      if (tail.length > 0) await print(tailTable(tail, ranking, ranked.length))
    }
    leave(interrupt, ranked.length, rows.length, 'prompts')
  })
}
