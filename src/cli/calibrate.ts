// pinball calibrate: conformal calibration of a model's quantiles on ratings that its heads have not seen.

import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { type DeviceKind, openDevice } from '../device/open.ts'
import { openDirectory, writeFileAtomic } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import { readCheckpoint } from '../reward/checkpoint.ts'
import {
  CALIBRATION_FILE,
  type CalibratedAttribute,
  conformalOffset,
  encodeCalibration,
  headsDigest,
  roundUp,
} from '../reward/conformal.ts'
import { predictRows } from '../reward/predict.ts'
import { openRatings, type RatingFile } from '../reward/rating_file.ts'
import { claimOutputs } from './claims.ts'
import { figure, table } from './draw.ts'
import { listFeatureFiles, openFiles } from './feature_files.ts'
import { computeOptions, fileName, parseFeatures } from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress } from './progress.ts'
import { withoutInterruptHandler } from './signals.ts'

interface CalibrateCommand {
  readonly heads: string
  readonly features: string[]
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

const EXAMPLES = `
To every attribute and level t of the heads in --heads (a model directory, with or without a backbone) an offset is found on ratings
that the heads were not fitted to: the ceil((n + 1) t)-th smallest of rating - quantile, for n items. If these items and a new one are
exchangeable and have one rating each, the new rating is at or below the calibrated quantile with probability t to t + 1 / (n + 1)
(the upper bound where no two differences are equal). Ratings of one item share its weight. Levels above n / (n + 1) have no such
guarantee: they get the largest difference, and the output counts them. Offsets are written to DIR/${CALIBRATION_FILE}, which scoring
applies before debiasing and mixing; "pinball score --no-calibration" leaves them out.

Examples:
  $ pinball calibrate --heads reward --features held_out.safetensors
  $ pinball calibrate --heads reward --features held_out/ --json
`

/** Adds the command to the program. */
export function addCalibrate(program: Command): void {
  const command = program
    .command('calibrate')
    .description('calibrate the quantiles of a model on held-out ratings: split conformal, level by level')
    .addOption(
      new Option('--heads <dir>', 'model directory whose heads are calibrated; the result is written into it')
        .argParser(fileName('--heads', 'directory'))
        .makeOptionMandatory(),
    )
    .requiredOption('--features <files...>', 'rated features: safetensors files, or folders of them', parseFeatures)
  computeOptions(command)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: CalibrateCommand) => calibrate(options))
}

async function calibrate({ heads: folder, features, device: kind, threads, json }: CalibrateCommand): Promise<void> {
  const start = performance.now()
  const files = await openDirectory(folder)
  // What was there of a calibration is replaced; it may belong to heads that were there before these.
  const open = (file: string) => (file === CALIBRATION_FILE ? Promise.resolve(null) : files.open(file))
  const { regression, manifest, config } = await readCheckpoint({ ...files, open })
  const { attributes, levels } = manifest
  const K = levels.length
  const path = join(folder, CALIBRATION_FILE)
  await claimOutputs({ inputs: { '--features': await listFeatureFiles(features) }, files: { '--heads': path } })
  const sources = await openFiles(await listFeatureFiles(features))
  const device = await openDevice(kind, { threads })
  const progress = startProgress('rows')
  try {
    const ratings = await openRatings(sources)
    const { columns, name } = ratings.features
    if (columns !== config.hidden_size) {
      throw new Error(
        `${name}: must have the ${config.hidden_size} columns that the heads of ${folder} are for, got ${columns}`,
      )
    }
    checkRated(ratings, attributes)
    if (ratings.weights) note('calibrate: note: label_weights are not used; every item counts alike')
    const values = await predictRows(device, ratings.features, regression, {
      onProgress: (done, rows) => progress.update(done, rows),
    })
    progress.end()
    const { offsets, about } = await findOffsets(ratings, attributes, levels, values)
    const heads = await headsDigest(regression)
    await writeFileAtomic(path, encodeCalibration({ offsets, attributes: about, heads }))
    const far = about.filter(({ unreachable }) => unreachable > 0)
    if (far.length > 0) {
      note(
        `calibrate: too few items for the highest levels of ${far.map(({ name, unreachable }) => `${name} (${unreachable})`).join(', ')}`,
      )
    }
    const largest = (j: number) =>
      offsets.subarray(j * K, (j + 1) * K).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    const result = about.map((entry, j) => ({
      ...entry,
      coverage_excess: 1 / (entry.items + 1),
      largest_offset: largest(j),
    }))
    if (json) return await printJson({ file: path, levels, attributes: result, ms: performance.now() - start })
    const lines = result.map((a) => [
      a.name,
      String(a.items),
      String(a.ratings),
      figure(a.coverage_excess),
      figure(a.largest_offset),
    ])
    const head = ['attribute', 'items', 'ratings', 'coverage at most t +', 'largest offset']
    await print(
      `${table([head, ...lines], [1, 2, 3, 4])}\n${printable(path)}: offsets of ${offsets.length} quantiles\n`,
    )
  } finally {
    progress.end()
    await device.destroy()
    for (const source of sources) await source.close()
  }
}

/** Throws unless every attribute has a rating, before anything is computed. */
function checkRated({ name, labels, attributes: rated }: RatingFile, attributes: readonly string[]): void {
  for (const attribute of attributes) {
    const m = rated.indexOf(attribute)
    if (m < 0) throw new Error(`${name}: has no ratings of ${show(attribute)}, it has ${rated.map(show).join(', ')}`)
    let i = m
    while (i < labels.length && Number.isNaN(labels[i])) i += rated.length
    if (i >= labels.length) throw new Error(`${name}: ratings of ${show(attribute)} are all missing`)
  }
}

/** The offsets [M, K] for the values [R, M, K] of the heads; one sort of the ratings each, which may take a while. */
function findOffsets(
  ratings: RatingFile,
  attributes: readonly string[],
  levels: readonly number[],
  values: Float32Array,
): Promise<{ readonly offsets: Float32Array; readonly about: CalibratedAttribute[] }> {
  const K = levels.length
  const offsets = new Float32Array(attributes.length * K)
  const about: CalibratedAttribute[] = []
  const progress = startProgress('quantiles')
  return withoutInterruptHandler(async () => {
    for (const [j, attribute] of attributes.entries()) {
      const m = ratings.attributes.indexOf(attribute)
      let unreachable = 0
      let found = { items: 0, ratings: 0 }
      for (const [k, level] of levels.entries()) {
        const { scores, items } = scoresOf(ratings, m, (row) => values[(row * attributes.length + j) * K + k])
        const { offset, reached, ...counts } = conformalOffset(scores, items, level)
        offsets[j * K + k] = roundUp(offset)
        if (!reached) unreachable++
        found = counts
        progress.update(j * K + k + 1, offsets.length)
      }
      about.push({ name: attribute, ...found, unreachable })
    }
    return { offsets, about }
  }).finally(progress.end)
}

/** Differences of the ratings of attribute m and what is predicted for their rows, with these rows. */
function scoresOf({ labels, attributes, rowIndex }: RatingFile, m: number, predicted: (row: number) => number) {
  const scores: number[] = []
  const items: number[] = []
  const count = labels.length / attributes.length
  for (let i = 0; i < count; i++) {
    const rating = labels[i * attributes.length + m]
    if (Number.isNaN(rating)) continue
    const row = rowIndex?.[i] ?? i
    scores.push(rating - predicted(row))
    items.push(row)
  }
  return { scores, items }
}
