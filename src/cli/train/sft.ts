// pinball sft: supervised fine-tuning of a causal model with LoRA.
import { type Command, Option } from 'commander'
import { SFT_DEFAULTS, trainSft } from '../../train/sft.ts'
import { encodeSftRows, type SftLoss, type SftRow } from '../../train/sft_rows.ts'
import {
  ADAPTER_HELP,
  type AdapterCommand,
  type AdapterRecipe,
  adapterOptions,
  runAdapterTraining,
} from './adapter_options.ts'

interface SftCommand extends AdapterCommand {
  readonly loss: SftLoss
  readonly packing?: boolean
}

const EXAMPLES = `
Rows, as they may be mixed in one file:
  {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
  {"prompt": "...", "response": "..."}       through the chat template; the prompt may be a list of messages
  {"prompt": "...", "completion": "..."}     plain texts, one after the other, with EOS at the end; or two lists of messages
  {"chosen": "Human: ... Assistant: ..."}    a conversation as text, as in HH-RLHF; or a list of messages
  {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}   tokens; a label of -100 is not learned, and labels are not shifted

--loss completion learns every message of the assistant with its end of turn, or the completion; all learns every token, which is
what TRL does with "messages" by default. The loss is a mean over all learned tokens of a step. --packing puts rows together up to
--max-length, longest first; they do not see each other, and --batch then counts the packed sequences.
${ADAPTER_HELP}

Examples:
  $ pinball sft --model ./Llama-3-8B --data chats.jsonl --out sft
  $ pinball sft --model ./SmolLM2-135M --data chats.jsonl --eval 0.05 --batch 64 --checkpointing --out sft --json
  $ pinball sft --model ./SmolLM2-135M --adapter sft --data more.jsonl --packing --save-steps 100 --out sft-2
  $ pinball merge --model ./SmolLM2-135M --adapter sft --out merged
`

/** Adds the command to the program. */
export function addSft(program: Command): void {
  const command = program.command('sft').description('fine-tune a causal model on conversations or texts, with LoRA')
  adapterOptions(command, SFT_DEFAULTS, { rows: 'rows', unit: 'sequences' })
    .addOption(new Option('--loss <loss>', 'what is learned').choices(['completion', 'all']).default('completion'))
    .option('--packing', 'put rows together into sequences of up to --max-length tokens')
    .addHelpText('after', EXAMPLES)
    .action((options: SftCommand) => runAdapterTraining('sft', options, recipe(options)))
}

function recipe({ loss, packing = false, maxLength }: SftCommand): AdapterRecipe<SftRow> {
  return {
    encode: (records, rules) => encodeSftRows(records, { ...rules, loss }),
    async train({ device, files }, { training, held }, settings) {
      const record = { ...settings.record, '--loss': loss }
      const choice = { ...settings, packing, maxLength, record }
      const { adapter: _, finished, ...result } = await trainSft(device, files, training, held, choice)
      const { parameters, steps, rows, loss: last, eval_loss: evaluated } = result
      const told = [`${parameters} parameters`, `${steps} steps on ${rows} rows`, `loss ${last?.toFixed(4)}`]
      if (evaluated !== null) told.push(`${evaluated.toFixed(4)} on ${result.held} held-out rows`)
      return { result, finished, line: told.join(', ') }
    },
  }
}
