// pinball sft: supervised fine-tuning of a causal model with LoRA.
import { type Command, Option } from 'commander'
import { sftText } from '../../report/adapter_training.ts'
import { sftRecipe } from '../../train/adapter_recipes.ts'
import { SFT_DEFAULTS } from '../../train/sft.ts'
import type { SftLoss } from '../../train/sft_rows.ts'
import { ADAPTER_HELP, type AdapterCommand, adapterOptions, runAdapterTraining } from './adapter_options.ts'

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
    .action((options: SftCommand) => runAdapterTraining('sft', options, sftRecipe(options), sftText))
}
