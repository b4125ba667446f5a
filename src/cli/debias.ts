// pinball debias: takes an unwanted attribute, verbosity in the published models, out of the others' heads.
import type { Command } from 'commander'
import type { DeviceKind } from '../device/open.ts'
import { openDevice } from '../device/open.ts'
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensor, type TensorData } from '../files/safetensors.ts'
import { debias, THRESHOLD } from '../reward/debias.ts'
import { expectationMap, type HeadsFile, readHeadsFile } from '../reward/heads_file.ts'
import { predictRows } from '../reward/predict.ts'
import { claimOutputs } from './claims.ts'
import { figure, table } from './draw.ts'
import { listFeatureFiles, openFiles, stateRows } from './feature_files.ts'
import { computeOptions, fileName, parseFeatures, parseOut, realNumber, usageError } from './options.ts'
import { print, printJson } from './output.ts'
import { startProgress } from './progress.ts'
import { withoutInterruptHandler } from './signals.ts'

interface DebiasCommand {
  readonly features: string[]
  readonly heads: string
  readonly out: string
  readonly attribute?: string
  readonly threshold: number
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

/** Taken where the heads have it and no other is named. */
const USUAL = 'helpsteer-verbosity'

const EXAMPLES = `
--features are the reference responses: pairs (both sides count) or rated rows. With the heads' point predictions of them, each
attribute r_i becomes r_i - p r_v, where p is the first of 0, 0.01, 0.025, .., 0.95 for which Spearman's rank correlation with the
unwanted attribute r_v is at most --threshold; 1 where none is. The file holds the heads as they are and "reward_transform_matrix"
[M, M], which "pinball gate" and scoring apply to every quantile level.

Examples:
  $ pinball debias --features pairs.safetensors --heads heads.safetensors --out debiased.safetensors
  $ pinball debias --features pairs/ --heads heads.safetensors --attribute verbosity --threshold 0.028 --out debiased.safetensors --json
`

/** Adds the command to the program. */
export function addDebias(program: Command): void {
  const command = program
    .command('debias')
    .description('take an unwanted attribute (verbosity) out of the others: the transform matrix of the heads')
    .requiredOption('--features <files...>', 'reference features: safetensors files, or folders of them', parseFeatures)
    .requiredOption('--heads <file>', 'heads: safetensors', fileName('--heads', 'file name'))
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--attribute <name>', `the unwanted attribute, by name or number from 0 (default: ${USUAL})`)
    .option(
      '--threshold <number>',
      'largest rank correlation that may be left',
      realNumber((value) => value >= -1 && value <= 1, 'from -1 to 1'),
      THRESHOLD,
    )
  computeOptions(command)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: DebiasCommand) => run(options))
}

function unwantedIndex({ attributes, name }: HeadsFile, wanted = USUAL): number {
  const index = attributes.indexOf(wanted)
  if (index >= 0) return index
  if (/^\d+$/.test(wanted) && Number(wanted) < attributes.length) return Number(wanted)
  usageError(
    `--attribute: ${printable(name)} has no attribute ${show(wanted)}; it has ${attributes.map(show).join(', ')}`,
  )
}

async function run(options: DebiasCommand): Promise<void> {
  const { out, threshold } = options
  await claimOutputs({
    inputs: { '--features': await listFeatureFiles(options.features), '--heads': options.heads },
    files: { '--out': out },
  })
  const start = performance.now()
  const file = await openFile(options.heads)
  try {
    const heads = await readHeadsFile(file)
    const unwanted = unwantedIndex(heads, options.attribute)
    const rewards = await predict(heads, options)
    const count = heads.attributes.length
    const progress = startProgress('attributes')
    const result = await withoutInterruptHandler(async () =>
      debias(rewards, count, unwanted, threshold, progress.update),
    ).finally(progress.end)
    const opened = await openSafetensors(file)
    const tensors: TensorData[] = []
    for (const info of opened.tensors.values()) {
      const { name, dtype, shape } = info
      if (name !== 'reward_transform_matrix') tensors.push({ name, dtype, shape, data: await readTensor(info) })
    }
    tensors.push({ name: 'reward_transform_matrix', dtype: 'F32', shape: [count, count], data: result.transform })
    const debiasing = { attribute: heads.attributes[unwanted], threshold, penalties: result.penalties }
    const metadata = { ...opened.metadata, debias: JSON.stringify(debiasing) }
    await writeFileAtomic(out, encodeSafetensors(tensors, metadata))
    const finite = (value: number) => (Number.isFinite(value) ? value : null)
    const attributes = heads.attributes.map((attribute, j) => ({
      attribute,
      penalty: result.penalties[j],
      correlation: finite(result.before[j]),
      debiased_correlation: j === unwanted ? null : finite(result.after[j]),
    }))
    const rows = rewards.length / count
    const ms = performance.now() - start
    if (options.json) return await printJson({ rows, unwanted: heads.attributes[unwanted], threshold, attributes, ms })
    const cell = (value: number | null) => (value === null ? '' : figure(value))
    const lines = attributes.map((a) => [
      a.attribute,
      cell(a.penalty),
      cell(a.correlation),
      cell(a.debiased_correlation),
    ])
    const head = ['attribute', 'penalty', `correlation with ${heads.attributes[unwanted]}`, 'debiased']
    await print(`${table([head, ...lines], [1, 2, 3])}\n${printable(out)}: penalties from ${rows} responses\n`)
  } finally {
    await file.close()
  }
}

/** Point predictions of the heads, not debiased [R, M]. */
async function predict(heads: HeadsFile, { features, device: kind, threads }: DebiasCommand): Promise<Float32Array> {
  const sources = await openFiles(await listFeatureFiles(features))
  const progress = startProgress('rows')
  try {
    const rows = await stateRows(sources)
    if (rows.columns !== heads.columns) {
      throw new Error(
        `${heads.name}: heads must be for features of ${rows.columns} columns, as those of ${rows.name} are, got ${heads.columns}`,
      )
    }
    const device = await openDevice(kind, { threads })
    try {
      const map = expectationMap({ ...heads, transform: null })
      return await predictRows(device, rows, map, { onProgress: (done, total) => progress.update(done, total) })
    } finally {
      await device.destroy()
    }
  } finally {
    progress.end()
    for (const source of sources) await source.close()
  }
}
