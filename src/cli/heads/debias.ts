// pinball debias: takes an unwanted attribute, verbosity in the published models, out of the others' heads.
import type { Command } from 'commander'
import { type DeviceKind, openDevice } from '../../device/open.ts'
import { openFile, writeFileAtomic } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import { debiasHeads, THRESHOLD, USUAL_UNWANTED, unwantedIndex } from '../../reward/debias.ts'
import { encodeHeads, type HeadsFile, readHeadsFile } from '../../reward/heads_file.ts'
import { stateRows } from '../../reward/state_rows.ts'
import { claimOutputs } from '../claims.ts'
import { figure, table } from '../draw.ts'
import { listFeatureFiles, openFiles } from '../feature_files.ts'
import { computeOptions, fileName, parseFeatures, parseOut, realNumber, usageError } from '../options.ts'
import { print, printJson } from '../output.ts'
import { startPhases } from '../progress.ts'
import { withoutInterruptHandler } from '../signals.ts'

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
    .option('--attribute <name>', `the unwanted attribute, by name or number from 0 (default: ${USUAL_UNWANTED})`)
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

async function run(options: DebiasCommand): Promise<void> {
  const { out, threshold, attribute } = options
  const paths = await listFeatureFiles(options.features)
  await claimOutputs({ inputs: { '--features': paths, '--heads': options.heads }, files: { '--out': out } })
  const start = performance.now()
  const heads = await readHeads(options.heads)
  const unwanted = chosenAttribute(heads, attribute)
  const sources = await openFiles(paths)
  const progress = startPhases()
  try {
    const features = await stateRows(sources)
    const device = await openDevice(options.device, { threads: options.threads })
    // Ranks may take a while, without a pause.
    const found = await withoutInterruptHandler(() =>
      debiasHeads(device, heads, features, { attribute: unwanted, threshold, onProgress: progress.update }),
    ).finally(async () => {
      progress.end()
      await device.destroy()
    })
    await writeFileAtomic(out, encodeHeads(found.heads, found.heads.metadata))
    const finite = (value: number) => (Number.isFinite(value) ? value : null)
    const attributes = heads.attributes.map((name, j) => ({
      attribute: name,
      penalty: found.penalties[j],
      correlation: finite(found.before[j]),
      debiased_correlation: j === unwanted ? null : finite(found.after[j]),
    }))
    const { rows } = found
    const ms = performance.now() - start
    if (options.json) return await printJson({ rows, unwanted: found.attribute, threshold, attributes, ms })
    const cell = (value: number | null) => (value === null ? '' : figure(value))
    const lines = attributes.map((a) => [
      a.attribute,
      cell(a.penalty),
      cell(a.correlation),
      cell(a.debiased_correlation),
    ])
    const head = ['attribute', 'penalty', `correlation with ${found.attribute}`, 'debiased']
    await print(`${table([head, ...lines], [1, 2, 3])}\n${printable(out)}: penalties from ${rows} responses\n`)
  } finally {
    for (const source of sources) await source.close()
  }
}

async function readHeads(path: string): Promise<HeadsFile> {
  const file = await openFile(path)
  try {
    return await readHeadsFile(file)
  } finally {
    await file.close()
  }
}

/** The number of the unwanted attribute, which may be given by name or number. */
function chosenAttribute(heads: HeadsFile, wanted = USUAL_UNWANTED): number {
  const number = !heads.attributes.includes(wanted) && /^\d+$/.test(wanted) && Number(wanted) < heads.attributes.length
  try {
    return unwantedIndex(heads, number ? Number(wanted) : wanted)
  } catch (error) {
    return usageError(`--attribute: ${printable((error as Error).message)}`)
  }
}
