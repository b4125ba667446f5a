// pinball train-rm: fine-tuning of reward models with LoRA, a score head on pairs or quantile heads on ratings.
import { type Command, Option } from 'commander'
import { withFile } from '../../files/file_list.ts'
import { show } from '../../files/json.ts'
import { quantileText, rewardText } from '../../report/adapter_training.ts'
import { reservedName } from '../../reward/feature_files/rows.ts'
import { quantileRecipe, scoreRecipe } from '../../train/adapter_recipes.ts'
import { QUANTILE_DEFAULTS, readStartHeads } from '../../train/quantile_model.ts'
import { REWARD_DEFAULTS } from '../../train/reward_model.ts'
import { fileName, parseLevels, parseNames, realNumber, usageError } from '../options.ts'
import { note } from '../output.ts'
import { ADAPTER_HELP, type AdapterCommand, adapterOptions, runAdapterTraining } from './adapter_options.ts'

interface TrainRmCommand extends AdapterCommand {
  readonly head: 'score' | 'quantile'
  /** Absent: TRL's. */
  readonly center?: number
  readonly merge?: boolean
  readonly attributes?: readonly string[]
  readonly levels?: readonly number[]
  readonly heads?: string
  readonly intercept?: boolean
}

const EXAMPLES = `
Pairs, as they may be mixed in one file:
  {"prompt": "...", "chosen": "...", "rejected": "..."}    through the chat template; the prompt may be a list of messages
  {"chosen": [{"role": "user", ...}, ...], "rejected": [...]}    conversations, whole or after a prompt
  {"chosen": "Human: ... Assistant: ...", "rejected": "..."}     conversations as texts, as in HH-RLHF; else plain texts with EOS
  {"chosen_input_ids": [1, 2], "rejected_input_ids": [1, 3]}     tokens
each with "margin", a number, if it is to count: the loss is softplus(-(r_c - r_r - margin)) + center * (r_c + r_r)^2, a mean over the
pairs of a step. A pair with a side over --max-length is dropped. --batch and --micro-batch count pairs. The score head begins as
--adapter or --model has it, else at random. --out is an adapter of task SEQ_CLS whose "score" is saved whole; with --merge it is a
LlamaForSequenceClassification instead, which "pinball score" loads.

--head quantile learns ratings: rows as "pinball features" reads them, {"prompt", "response"} or {"messages"}, with the fields of
--attributes, each a number, a list of numbers or null. The loss is the pinball loss, a mean over ratings and levels. Heads begin as
--heads (what "pinball fit" has written), else at 0. --out is then an adapter of the backbone and a directory of heads at once:
"pinball merge" takes the one, "pinball assemble" the other; heads.safetensors is for "pinball debias" and "pinball gate".
${ADAPTER_HELP}

Examples:
  $ pinball train-rm --model ./SmolLM2-135M --data pairs.jsonl --eval 0.05 --batch 64 --out rm
  $ pinball train-rm --model ./SmolLM2-135M --adapter sft --data pairs.jsonl --merge --out rm-merged
  $ pinball score --model rm-merged --prompt "How was the film?" --response "A delight."
  $ pinball train-rm --model ./SmolLM2-135M --head quantile --attributes helpful,kind --data ratings.jsonl --out qrm
  $ pinball merge --model ./SmolLM2-135M --adapter qrm --out backbone
  $ pinball assemble --backbone backbone --heads qrm --out my-qrm
  $ pinball eval --suite calibration --model my-qrm --data held-out.jsonl
`

/** Adds the command to the program. */
export function addTrainRm(program: Command): void {
  const command = program.command('train-rm').description('fine-tune a reward model on pairs, or on ratings, with LoRA')
  adapterOptions(command, { ...REWARD_DEFAULTS, maxLength: 1024 }, { rows: 'pairs, or ratings', unit: 'pairs' })
    .addOption(new Option('--head <head>', 'what is trained').choices(['score', 'quantile']).default('score'))
    .option(
      '--center <number>',
      `pull of the rewards towards 0 (default: ${REWARD_DEFAULTS.center})`,
      realNumber((value) => value >= 0 && value < Infinity, 'of at least 0'),
    )
    .option('--merge', 'write a whole model in the place of an adapter')
    .option('--attributes <names>', 'fields of the rows that hold ratings, with commas', parseNames)
    .option('--levels <levels>', `their number K for k / (K + 1), or a list (default: ${LEVELS})`, parseLevels)
    .option('--heads <file>', 'quantile heads to begin with: safetensors', fileName('--heads', 'file name'))
    .option('--intercept', 'also train a constant for each quantile, from that of the ratings')
    .addHelpText('after', EXAMPLES)
    .action(trainRm)
}

const LEVELS = QUANTILE_DEFAULTS.levels.length
/** Options of one kind of head. */
const OF_SCORE = ['center', 'merge'] as const
const OF_QUANTILE = ['attributes', 'levels', 'heads', 'intercept'] as const

async function trainRm(options: TrainRmCommand): Promise<void> {
  const quantile = options.head === 'quantile'
  const other = (quantile ? OF_SCORE : OF_QUANTILE).find((key) => options[key] !== undefined)
  if (other === 'merge') {
    usageError(
      '--merge: quantile heads stand beside the adapter; "pinball merge" and "pinball assemble" make one model',
    )
  }
  if (other !== undefined) usageError(`--${other}: is for --head ${quantile ? 'score' : 'quantile'}`)
  if (!quantile) return runAdapterTraining('train-rm', options, scoreRecipe(options), rewardText)
  const { levels, intercept } = options
  const heads = options.heads === undefined ? null : await withFile(options.heads, readStartHeads)
  const attributes = options.attributes ?? heads?.attributes
  if (attributes === undefined) usageError('--attributes: is needed for --head quantile, or --heads')
  const reserved = reservedName(attributes)
  if (reserved !== undefined) usageError(`--attributes: ${show(reserved)} is what is scored, not a rating`)
  const onUnrated = (rows: number) => note(`train-rm: note: rows without a rating are left out: ${rows}`)
  const recipe = quantileRecipe({ attributes, heads, levels, intercept, onUnrated })
  return runAdapterTraining('train-rm', options, recipe, quantileText, { inputs: { '--heads': options.heads } })
}
