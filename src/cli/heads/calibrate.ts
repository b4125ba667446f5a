// pinball calibrate: conformal calibration of a model's quantiles on ratings that its heads have not seen.
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import type { DeviceKind } from '../../device/open.ts'
import { writeFileAtomic } from '../../files/disk.ts'
import { isFile, listFeatureFiles, withFiles } from '../../files/file_list.ts'
import { calibrationLines, calibrationNotes, calibrationReport, unreachableNote } from '../../report/heads.ts'
import { calibrate, readUncalibrated } from '../../reward/calibrate.ts'
import { CALIBRATION_FILE, encodeCalibration } from '../../reward/conformal.ts'
import { calibrationBeside } from '../../reward/heads_directory.ts'
import { openRatings } from '../../reward/rating_file.ts'
import type { Unit } from '../../reward/unit.ts'
import { claimOutputs } from '../claims.ts'
import { openHeads, withDevice } from '../engine.ts'
import { computeOptions, fileName, parseFeatures, unitOption } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startPhases } from '../progress.ts'
import { withoutInterruptHandler } from '../signals.ts'

interface CalibrateCommand {
  readonly heads: string
  readonly features: string[]
  readonly unit: Unit
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

const EXAMPLES = `
To every attribute and level t of the heads in --heads (a file of heads, or a model directory with or without a backbone) an offset is found on ratings
that the heads were not fitted to: the ceil((n + 1) t)-th smallest of rating - quantile, for n items. If these items and a new one are
exchangeable and have one rating each, the new rating is at or below the calibrated quantile with probability t to t + 1 / (n + 1)
(the upper bound where no two differences are equal). With --unit item the ratings of an item share its weight; with --unit rating
every rating counts alike, and the new one is a random one of all ratings. Levels above n / (n + 1) have no such
guarantee: they get the largest difference, and the output counts them. Offsets are written to DIR/${CALIBRATION_FILE}, for a file
HEADS.safetensors to HEADS.${CALIBRATION_FILE}, which scoring
applies before debiasing and mixing; "pinball score --no-calibration" leaves them out.

Examples:
  $ pinball calibrate --heads reward --features held_out.safetensors
  $ pinball calibrate --heads reward --features held_out/ --json
  $ pinball calibrate --heads heads.safetensors --unit rating --features held_out.safetensors
`

/** Adds the command to the program. */
export function addCalibrate(program: Command): void {
  const command = program
    .command('calibrate')
    .description('calibrate the quantiles of a model on held-out ratings: split conformal, level by level')
    .addOption(
      new Option(
        '--heads <path>',
        'heads: a file, or a model directory; the result is written beside the one or into the other',
      )
        .argParser(fileName('--heads', 'file or directory'))
        .makeOptionMandatory(),
    )
    .requiredOption('--features <files...>', 'rated features: safetensors files, or folders of them', parseFeatures)
  computeOptions(unitOption(command))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: CalibrateCommand) => run(options))
}

async function run(options: CalibrateCommand): Promise<void> {
  const start = performance.now()
  const checkpoint = await readUncalibrated(await openHeads(options.heads))
  const file = await isFile(options.heads)
  const path = file ? calibrationBeside(options.heads) : join(options.heads, CALIBRATION_FILE)
  const paths = await listFeatureFiles(options.features)
  await claimOutputs({
    inputs: { '--features': paths, ...(file && { '--heads': options.heads }) },
    files: { '--heads': path },
  })
  const found = await withFiles(paths, (sources) =>
    withDevice(options, async (device) => {
      const ratings = await openRatings(sources)
      if (ratings.weights) note(`calibrate: note: label_weights are not used; every ${options.unit} counts alike`)
      const progress = startPhases()
      // Sorts may take a while, without a pause.
      return withoutInterruptHandler(() =>
        calibrate(device, checkpoint, ratings, { unit: options.unit, onProgress: progress.update }),
      ).finally(progress.end)
    }),
  )
  await writeFileAtomic(path, encodeCalibration(found))
  for (const line of calibrationNotes(checkpoint, found)) note(`calibrate: note: ${line}`)
  const far = unreachableNote(found)
  if (far !== null) note(`calibrate: ${far}`)
  const { levels } = checkpoint.manifest
  const ms = performance.now() - start
  return options.json
    ? printJson({ file: path, unit: options.unit, levels, attributes: calibrationLines(found), ms })
    : print(calibrationReport(found, path))
}
