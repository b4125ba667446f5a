// pinball merge: an adapter and its base become one model directory.
import { readdir, rename, rmdir } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import type { DeviceKind } from '../device/open.ts'
import { directoryStore, openDirectory } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import type { FloatDType } from '../files/narrow.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { openWork, WORK_FILE } from '../files/work.ts'
import type { Adapter } from '../llama/adapter_files.ts'
import { type MergeReport, mergeAdapter } from '../llama/merge.ts'
import { compareOutputs } from '../llama/merge_compare.ts'
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

/** Files of tensors that a merge writes; all others have their names from the base. */
const TENSOR_FILE = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/

async function merge(options: MergeCommand): Promise<void> {
  const { model, adapter, out, dtype, json } = options
  const start = performance.now()
  // Everything is made beside it and gets its name at the end: a kill leaves nothing that looks like a model.
  const target = out.replace(/(?<=.)[\\/]+$/, '')
  const partial = `${target}.partial`
  await claimOutputs({ inputs: { '--model': model, '--adapter': adapter }, folders: { '--out': [target, partial] } })
  const base = await openDirectory(model)
  const own = await openDirectory(adapter)
  await checkEmpty(target)
  const store = directoryStore(partial)
  const work = await openWork(store, { command: 'merge', settings: {}, restart: true })
  await removeEarlier(store, (await base.list?.()) ?? [])
  const progress = startProgress('tensors')
  let report: MergeReport
  try {
    const onTensor = (done: number, total: number) => progress.update(done, total)
    const compare = (merged: ModelFiles, found: Adapter) => {
      progress.end()
      return withDevice(options, (device) => compareOutputs(device, base, found, merged))
    }
    const choice = { dtype: dtype ? DTYPES[dtype] : null, onTensor, ...(options.compare && { compare }) }
    report = await mergeAdapter(base, own, store, choice)
  } catch (error) {
    if ((await store.list()).length === 1) await work.end() // nothing but its mark
    throw error
  } finally {
    progress.end()
  }
  await work.end()
  await rmdir(target).catch(() => {})
  await rename(partial, target).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${target}: cannot be made (${error.code}); the merged model is in ${partial}`)
  })
  for (const name of await foldersOf(model))
    note(`merge: note: the folder ${printable(name)} of the base is not copied`)
  if (report.leftOut.length > 0) note(`merge: note: not copied: ${printable(report.leftOut.join(', '))}`)
  if (json) return printJson(documentOf(report, target, performance.now() - start))
  await print(textOf(report, target))
}

/** Throws unless the folder is missing or empty. */
async function checkEmpty(folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new Error(`${folder}: ${error.code === 'ENOTDIR' ? 'must be a directory, it is a file' : error.code}`)
  })
  if (names.length > 0)
    throw new Error(`${folder}: must be missing or empty, it has ${show(names[0])}; choose another --out`)
}

/** Removes what a merge that was cut off has left; throws on anything else. */
async function removeEarlier(store: Store, copied: readonly string[]): Promise<void> {
  const names = (await store.list()).filter((name) => name !== WORK_FILE)
  const strange = names.find((name) => !TENSOR_FILE.test(name) && !copied.includes(name))
  if (strange !== undefined) throw new Error(`${store.name}: has ${show(strange)}, which no merge wrote; move it away`)
  for (const name of names) await store.remove(name)
}

async function foldersOf(model: string): Promise<string[]> {
  const entries = await readdir(model, { withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.')).map(({ name }) => name)
}

function documentOf({ tensors, largest, outputs, files, leftOut }: MergeReport, out: string, ms: number) {
  return {
    out,
    adapted: tensors.length,
    largest_loss: largest.loss,
    largest_loss_tensor: largest.name,
    largest_output_difference: outputs,
    tensors: tensors.map(({ lossShare, ...tensor }) => ({ ...tensor, loss_share: lossShare })),
    files,
    left_out: leftOut,
    ms,
  }
}

function textOf({ tensors, largest, outputs, files }: MergeReport, out: string): string {
  const worst = tensors.reduce((a, b) => (b.lossShare > a.lossShare ? b : a))
  const share = `${Number((100 * worst.lossShare).toPrecision(3))} %`
  const about = `${printable(out)}: ${tensors.length} maps merged, ${files.length} files, read back and compared
`
  const compared =
    outputs === null
      ? ''
      : `largest difference of outputs: ${outputs.toPrecision(3)}
`
  if (largest.loss === 0)
    return `${about}nothing is lost by rounding
${compared}`
  return `${about}largest loss by rounding: ${largest.loss.toPrecision(3)} (${printable(largest.name)})
${compared}largest share of a change lost: ${share} (${printable(worst.name)}, root mean square)
`
}
