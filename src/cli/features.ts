// pinball features: hidden states of rows, with their labels, as a safetensors file for `pinball fit`.
import type { Command } from 'commander'
import { checkTarget, writeFileAtomic } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import { encodeSafetensors, type TensorData } from '../files/safetensors.ts'
import { type Features, loadFeatureModel } from '../reward/features.ts'
import { withModel } from './engine.ts'
import { type DeviceChoice, deviceOptions, parseInput, parseNames, parseOut, usageError } from './options.ts'
import { note, print } from './output.ts'
import { duration, startRows } from './progress.ts'
import { encodeAll, readRows, reservedName, takeLabels } from './rows.ts'

interface FeaturesOptions extends DeviceChoice {
  readonly input: string
  readonly out: string
  readonly labels?: string[]
  readonly gate?: boolean
}

const EXAMPLES = `
The file holds "embeddings" [N, D] F32, with --labels "labels" [N, M] F32 (NaN where a row has none), with --gate
"prompt_embeddings" [N, D] F32; attribute names and the fingerprint of the model are in its metadata.

Examples:
  $ pinball features --input ratings.jsonl --labels helpful,harmless --out ratings.safetensors
  $ pinball features --model ./QRM-Llama3.1-8B --input pairs.jsonl --gate --out pairs.safetensors

A row: {"prompt": "...", "response": "...", "helpful": 0.8, "harmless": null}
`

/** Adds the command to the program. */
export function addFeatures(program: Command): void {
  deviceOptions(program.command('features'))
    .description('compute the features of rows and keep them in a file')
    .requiredOption('--input <file>', 'rows as JSON Lines; - for standard input', parseInput)
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--labels <names>', 'fields of the rows that hold labels, with commas', parseNames)
    .option('--gate', "also the features of the gate's token")
    .addHelpText('after', EXAMPLES)
    .action(async (options: FeaturesOptions) => features(options))
}

async function features(options: FeaturesOptions): Promise<void> {
  const { input, out, labels: names = [], gate = false } = options
  const reserved = reservedName(names)
  if (reserved !== undefined) usageError(`--labels: ${show(reserved)} is what is scored, not a label`)
  await checkTarget(out)
  const { rows, labels, ignored } = takeLabels(await readRows(input), names)
  const start = performance.now()
  const hidden = await withModel(options, loadFeatureModel, async (model, _device, compute) => {
    const encoded = encodeAll(model, rows, gate)
    const progress = startRows()
    try {
      const found = await compute(() => model.features(encoded, { gate, onProgress: progress.update }))
      const tensors = featureTensors(found, rows.length)
      if (names.length > 0) {
        tensors.push({ name: 'labels', dtype: 'F32', shape: [rows.length, names.length], data: labels })
      }
      const metadata: Record<string, string> = { model: model.name, fingerprint: await model.fingerprint() }
      if (names.length > 0) metadata.attributes = JSON.stringify(names)
      await writeFileAtomic(out, encodeSafetensors(tensors, metadata))
      return model.config.hidden
    } finally {
      progress.end()
    }
  })
  // Only now: an error is the one line on standard error.
  if (ignored.length > 0) note(`note: fields that --labels does not name are left out: ${ignored.map(show).join(', ')}`)
  const time = duration((performance.now() - start) / 1000)
  await print(
    `${printable(out)}: features of ${rows.length} rows, ${hidden} columns, ${names.length} labels (${time})\n`,
  )
}

function featureTensors({ embeddings, promptEmbeddings }: Features, rows: number): TensorData[] {
  const shape = [rows, embeddings.length / rows]
  const tensors: TensorData[] = [{ name: 'embeddings', dtype: 'F32', shape, data: embeddings }]
  if (promptEmbeddings) tensors.push({ name: 'prompt_embeddings', dtype: 'F32', shape, data: promptEmbeddings })
  return tensors
}
