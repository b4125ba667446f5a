// pinball eval: benchmarks of a reward model, with intervals: RewardBench, RewardBench 2, any pairs, calibration of the quantiles.
import { readFile } from 'node:fs/promises'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { DoubleBos } from '../../evaluate/pair_scores.ts'
import { readAccuracies, rewardBench, type Xstest } from '../../evaluate/reward_bench.ts'
import { parseJsonObject, printable } from '../../files/json.ts'
import { explainSystem } from '../../files/system_errors.ts'
import { sectionTable } from '../../report/evaluation.ts'
import { resultsDocument } from '../../report/pairs.ts'
import { parseScoreKind, type ScoreKind } from '../../reward/scoring.ts'
import type { Unit } from '../../reward/unit.ts'
import { claimOutputs } from '../claims.ts'
import {
  adapterOption,
  deviceOptions,
  embeddedModel,
  type HeadChoice,
  headOptions,
  headsOption,
  limitOptions,
  type ModelChoice,
  parseFeatures,
  parseLambda,
  parseOut,
  shareOption,
  unitOption,
  usageError,
} from '../options.ts'
import { note, print, printJson, writeDocument } from '../output.ts'
import { calibrationSuite } from './calibration.ts'
import { pairSuite } from './pairs.ts'
import { HUB } from './rows.ts'

const SUITES = ['rewardbench', 'rewardbench2', 'pairs', 'calibration'] as const
export type Suite = (typeof SUITES)[number]

export interface EvalCommand extends ModelChoice, HeadChoice {
  readonly suite: Suite
  readonly data?: string[]
  readonly features?: string[]
  readonly reference?: string[]
  readonly unit: Unit
  readonly fromResults?: string
  readonly compare?: string
  readonly xstest: Xstest
  readonly priorSets?: boolean
  readonly score: ScoreKind
  readonly lambda?: number
  readonly doubleBos: DoubleBos
  readonly skipInvalid?: boolean
  readonly maxLength?: number
  readonly share: boolean
  readonly out?: string
  readonly outputs?: string
  readonly json?: boolean
}

const EXAMPLES = `
Suites:
  rewardbench   rows {"prompt", "chosen", "rejected", "subset", "id"}; sections weighted as the leaderboard weights them, a tie is no
                win. --out writes the leaderboard's form: one accuracy for each subset
  rewardbench2  rows {"prompt", "chosen": [..], "rejected": [..], "subset", "id"}: best of four, ties share the credit, subset Ties
  pairs         rows as for rewardbench with any subsets, or none; or --features of pairs
  calibration   rows with ratings {"prompt", "response", ATTRIBUTE: number or list}, or --features of rated rows: coverage of every
                level, pinball loss, CRPS, sharpness, crossings, beside the unconditional quantiles of --reference (or of the same
                ratings). --unit says what counts once; both are shown, and it matters where items have unequal numbers of ratings
Prompts may be texts or lists of messages, and so may responses: whole conversations, or what comes after the prompt. "--data hub"
loads the suite's own data.

--score is what ranks: expectation (the model's score), utility, cvar[:LEVEL], quantile:LEVEL, certainty-equivalent.
--double-bos: RewardBench tokenises rendered templates with one BOS too many and masks the first. As rotary positions are relative that
changes nothing, so masked is the same as off; attended is what pipelines do that do not mask it.
Every accuracy comes with Wilson's 95 % interval; that of a section takes its weights into account. --compare scores a second model on
the same rows, without --adapter: the difference with a paired bootstrap of the rows, and McNemar's test.

Examples:
  $ pinball eval --suite rewardbench --model ./my-reward-model --data reward_bench.jsonl --out results.json
  $ pinball eval --suite rewardbench --from-results results.json --json
  $ pinball eval --suite pairs --data pairs.jsonl --score cvar:0.2 --compare ./other-model
  $ pinball eval --suite pairs --model reward --features test_pairs.safetensors --json
  $ pinball eval --suite pairs --model base --adapter reward-lora --compare base-reward --data pairs.jsonl
  $ pinball eval --suite calibration --model reward --features held_out.safetensors --reference ratings.safetensors
`

/** Adds the command to the program. */
export function addEval(program: Command): void {
  limitOptions(unitOption(shareOption(headOptions(headsOption(adapterOption(deviceOptions(program.command('eval'))))))))
    .description('evaluate a reward model: RewardBench, pairs, calibration')
    .addOption(new Option('--suite <suite>', 'what to evaluate').choices([...SUITES]).makeOptionMandatory())
    .option(
      '--data <files...>',
      'rows: JSON Lines (plain or gzip), a JSON list or Parquet; - for standard input; or hub',
      parseData,
    )
    .option('--features <files...>', 'features instead of rows: safetensors files, or folders of them', parseFeatures)
    .option('--reference <files...>', 'rated features whose quantiles are the unconditional ones', parseFeatures)
    .option('--from-results <file>', 'accuracies of subsets instead of a model: JSON')
    .option('--compare <dir>', 'a second model for the same rows')
    .addOption(
      new Option('--score <score>', 'what ranks').argParser(parseScore).default({ kind: 'expectation' }, 'expectation'),
    )
    .option(
      '--lambda <number>',
      "risk aversion of utility and certainty-equivalent (default: the model's)",
      parseLambda,
    )
    .addOption(
      new Option(
        '--xstest <counts>',
        "weights of RewardBench's xstest subsets: as now, or swapped as before September 2024",
      )
        .choices(['current', 'swapped'])
        .default('current'),
    )
    .option('--prior-sets', 'count the mean of the prior sets half in the score, where they are there')
    .addOption(
      new Option('--double-bos <mode>', 'a second BOS before each row')
        .choices(['off', 'masked', 'attended'])
        .default('off'),
    )
    .option('--out <file>', 'also write the results: JSON', parseOut)
    .option('--outputs <file>', 'also write the scores of every row: JSON Lines', parseOut)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: EvalCommand) => evaluate(options))
}

function parseData(text: string, before: readonly string[] = []): string[] {
  if (text === '') usageError('--data: must be a file name, - or hub, got ""')
  return [...before, text]
}

function parseScore(text: string): ScoreKind {
  try {
    return parseScoreKind(text)
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
}

async function evaluate(options: EvalCommand): Promise<void> {
  const { suite, fromResults, data, features, out, outputs, compare, reference, doubleBos, adapter } = options
  const sources = [fromResults, data, features].filter((given) => given !== undefined).length
  if (sources !== 1) usageError('exactly one of --data, --features and --from-results is needed')
  if (fromResults !== undefined && suite !== 'rewardbench')
    usageError('--from-results goes with --suite rewardbench only')
  if (features && (suite === 'rewardbench2' || (compare && suite === 'calibration'))) {
    usageError(`--features does not go with --suite ${suite}${compare ? ' and --compare' : ''}`)
  }
  if (reference && suite !== 'calibration') usageError('--reference goes with --suite calibration only')
  if (compare && (suite === 'calibration' || suite === 'rewardbench2' || fromResults !== undefined)) {
    usageError('--compare goes with --suite pairs and rewardbench only')
  }
  if (outputs !== undefined && (suite === 'calibration' || fromResults !== undefined)) {
    usageError('--outputs goes with --data and --features of pairs and questions only')
  }
  if (adapter !== undefined && !data)
    usageError(
      '--adapter: goes with --data only; features already hold what an adapter does ("pinball features --adapter"), and --model gives the heads: ' +
        'for the score head of an adapter, what "pinball merge" makes of it',
    )
  if (options.heads !== undefined && !data)
    usageError('--heads: goes with --data only; on features give the heads themselves as --model')
  if (features && doubleBos === 'attended') usageError('--double-bos attended goes with --data only')
  await claimOutputs({
    inputs: {
      '--data': data?.filter((file) => file !== HUB),
      '--features': features,
      '--reference': reference,
      '--from-results': fromResults,
      '--model': fromResults === undefined ? (options.model ?? embeddedModel()) : undefined,
      '--adapter': adapter,
      '--heads': options.heads,
      '--compare': compare,
    },
    files: { '--out': out, '--outputs': outputs },
  })
  if (fromResults !== undefined) return evaluateResults(fromResults, options)
  return suite === 'calibration' ? calibrationSuite(options) : pairSuite(options)
}

async function evaluateResults(path: string, { xstest, priorSets, json, out }: EvalCommand): Promise<void> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${explainSystem(error)}`)
  })
  const results = parseJsonObject(text, path)
  const accuracies = readAccuracies(results, path)
  const bench = rewardBench(accuracies, { xstest, priorSets })
  const document = resultsDocument(bench, accuracies, { model: results.model, xstest })
  if (out !== undefined) await writeDocument(out, document)
  if (bench.missing.length > 0) note(`eval: note: ${printable(path)} has no accuracy of ${bench.missing.join(', ')}`)
  if (json) return printJson(document)
  return print(sectionTable(bench, null))
}
