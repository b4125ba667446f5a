// pinball debias: takes an unwanted attribute, verbosity in the published models, out of the others' heads.
import type { Command } from 'commander'
import type { DeviceKind } from '../../device/open.ts'
import { writeFileAtomic } from '../../files/disk.ts'
import { listFeatureFiles, withFile, withFiles } from '../../files/file_list.ts'
import { debiasedAttributes, debiasReport } from '../../report/heads.ts'
import { debiasHeads, THRESHOLD, USUAL_UNWANTED, unwantedIndex } from '../../reward/debias.ts'
import { encodeHeads, readHeadsFile } from '../../reward/heads_file.ts'
import { stateRows } from '../../reward/state_rows.ts'
import { claimOutputs } from '../claims.ts'
import { withDevice } from '../engine.ts'
import { checkOption, computeOptions, fileName, parseFeatures, parseOut, realNumber } from '../options.ts'
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
  const heads = await withFile(options.heads, readHeadsFile)
  const unwanted = checkOption('--attribute', () => unwantedIndex(heads, attribute))
  const found = await withFiles(paths, async (sources) => {
    const features = await stateRows(sources)
    return withDevice(options, (device) => {
      const progress = startPhases()
      // Ranks may take a while, without a pause.
      return withoutInterruptHandler(() =>
        debiasHeads(device, heads, features, { attribute: unwanted, threshold, onProgress: progress.update }),
      ).finally(progress.end)
    })
  })
  await writeFileAtomic(out, encodeHeads(found.heads))
  const { rows } = found
  const ms = performance.now() - start
  return options.json
    ? printJson({ rows, unwanted: found.attribute, threshold, attributes: debiasedAttributes(found), ms })
    : print(debiasReport(found, out))
}
