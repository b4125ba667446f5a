// pinball merge: an adapter and its base become one model directory.
import { type Command, Option } from 'commander'
import type { DeviceKind } from '../device/open.ts'
import { directoryStore, openDirectory } from '../files/disk.ts'
import type { FloatDType } from '../files/narrow.ts'
import { checkVacant, listFolders, putInPlace } from '../files/new_folder.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Adapter } from '../llama/adapter_files.ts'
import { compareOutputs } from '../llama/merge_compare.ts'
import { mergeAnew } from '../llama/merge_work.ts'
import { mergeDocument, mergeNotes, mergeText } from '../report/merge.ts'
import { claimOutputs } from './claims.ts'
import { withDevice } from './engine.ts'
import { computeOptions, fileName, parseOut } from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress } from './progress.ts'

interface MergeCommand {
  readonly model: string
  readonly adapter: string
  readonly out: string
  readonly dtype?: keyof typeof DTYPES
  readonly compare: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const satisfies Record<string, FloatDType>

const EXAMPLES = `
Every adapted map becomes W + scaling * B A, rounded once to the type that W is stored in, or to --dtype. Tokenizer and other files
are copied, except weights in other formats, adapters and a calibration, which holds for the base alone. A score head of the adapter
takes the place of the output layer. What was written is read back and compared, and the largest loss by rounding is printed: a
change that is small beside the weights suffers most in bf16. Then a few sequences of tokens go through the base under the adapter and
through the merged model, one after the other, and the largest difference of outputs is printed: of scores where there is a score head,
of log-probabilities where there is an output layer, else of the last hidden states.

Examples:
  $ pinball merge --model ./Llama-3-8B --adapter sft --out ./Llama-3-8B-sft
  $ pinball merge --model ./Llama-3-8B --adapter sft --out ./merged-f32 --dtype f32 --json
`

/** Adds the command to the program. */
export function addMerge(program: Command): void {
  const folder = (option: string) => fileName(option, 'directory')
  const command = program
    .command('merge')
    .description('merge a LoRA adapter into its base')
    .requiredOption('--model <dir>', 'model directory of the base', folder('--model'))
    .requiredOption('--adapter <dir>', 'directory with the adapter, as PEFT or Pinball writes it', folder('--adapter'))
    .requiredOption('--out <dir>', 'directory to make; must be missing or empty', parseOut)
    .addOption(
      new Option('--dtype <type>', "type of all floats (default: each tensor's own)").choices(Object.keys(DTYPES)),
    )
    .option('--no-compare', 'do not compare what base and merged model compute')
  computeOptions(command, 'wasm')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: MergeCommand) => merge(options))
}

async function merge(options: MergeCommand): Promise<void> {
  const { model, adapter, out, dtype, json } = options
  const start = performance.now()
  // Everything is made beside it and gets its name at the end: a kill leaves nothing that looks like a model.
  const target = out.replace(/(?<=.)[\\/]+$/, '')
  const partial = `${target}.partial`
  await claimOutputs({ inputs: { '--model': model, '--adapter': adapter }, folders: { '--out': [target, partial] } })
  const base = await openDirectory(model)
  const own = await openDirectory(adapter)
  await checkVacant(target)
  const progress = startProgress('tensors')
  const compare = (merged: ModelFiles, found: Adapter) => {
    progress.end()
    return withDevice(options, (device) => compareOutputs(device, base, found, merged))
  }
  const choice = {
    dtype: dtype ? DTYPES[dtype] : null,
    onTensor: progress.update,
    ...(options.compare && { compare }),
  }
  const report = await mergeAnew(base, own, directoryStore(partial), choice).finally(progress.end)
  await putInPlace(partial, target, 'the merged model')
  for (const line of mergeNotes(report, await listFolders(model))) note(`merge: note: ${line}`)
  if (json) return printJson(mergeDocument(report, target, performance.now() - start))
  await print(mergeText(report, target))
}
