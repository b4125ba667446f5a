// The suite calibration: quantiles of attributes against ratings, from rows by a model or from features by its heads.
import {
  evaluateCalibration,
  quantilesOfFeatures,
  quantilesOfRows,
  type RatedQuantiles,
  ratingsByAttribute,
  readRatedRows,
} from '../../evaluate/rated_quantiles.ts'
import { printable } from '../../files/json.ts'
import { calibrationTable } from '../../report/evaluation.ts'
import { evaluationNotes } from '../../report/heads.ts'
import { skippedNotes } from '../../report/scores.ts'
import { type Checkpoint, readCheckpoint } from '../../reward/checkpoint.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { openRatings, type RatingFile } from '../../reward/rating_file.ts'
import { openModel, withDevice, withFeatures, withModel } from '../engine.ts'
import { chosenHeads, EMBEDDED } from '../options.ts'
import { note, print, printJson, writeDocument } from '../output.ts'
import { startProgress, startRows } from '../progress.ts'
import type { EvalCommand } from './eval.ts'
import { readEvalRows } from './rows.ts'

type Predicted = RatedQuantiles & {
  readonly model: string
  readonly device: string
  /** What its heads were fitted to and calibrated on. */
  readonly made: Pick<Checkpoint, 'fitted' | 'calibration'>
}

/** Measures every attribute of the model that has ratings, and reports. */
export async function calibrationSuite(options: EvalCommand): Promise<void> {
  const start = performance.now()
  const { features, reference, unit } = options
  const predicted = features ? await predictFeatures(features, options) : await predictRated(options)
  const { model, device, levels, calibrated } = predicted
  if (predicted.attributes.length === 0) throw new Error(`${model}: none of its attributes has ratings in the data`)
  const references = reference ? await withRatings(reference, async (ratings) => ratingsByAttribute(ratings)) : null
  const measured = evaluateCalibration(predicted, references, { unit })
  const { attributes, mean, missing, units } = measured
  const unconditional = reference ? 'quantiles of --reference' : 'quantiles of the same ratings'
  const { adapter } = options
  const own = adapter === undefined ? {} : { adapter }
  const document = {
    suite: 'calibration',
    model,
    ...own,
    device,
    calibrated,
    unit,
    levels,
    unconditional,
    attributes,
    mean,
    units,
  }
  if (options.out !== undefined) await writeDocument(options.out, document)
  for (const line of evaluationNotes(predicted.made, predicted, measured)) note(`eval: note: ${line}`)
  if (missing.length > 0)
    note(`eval: note: --reference has no ratings of ${missing.join(', ')}; theirs are compared with themselves`)
  if (options.json) return printJson({ ...document, ms: performance.now() - start })
  const about = `${printable(`${model} on ${device}`)}, ${levels.length} levels, ${calibrated ? 'calibrated' : 'not calibrated'}`
  return print(`${about}; unconditional: ${unconditional}\n\n${calibrationTable(measured)}\n`)
}

const withRatings = <T>(paths: readonly string[], work: (ratings: RatingFile) => Promise<T>): Promise<T> =>
  withFeatures(paths, async (sources) => work(await openRatings(sources)))

function predictFeatures(paths: readonly string[], options: EvalCommand): Promise<Predicted> {
  const { model = EMBEDDED, calibration } = options
  return withRatings(paths, async (ratings) => {
    const checkpoint = await readCheckpoint((await openModel(options)).files)
    return withDevice(options, async (device) => {
      const progress = startProgress('rows')
      const choice = { calibration, onProgress: progress.update }
      const found = await quantilesOfFeatures(device, checkpoint, ratings, choice).finally(progress.end)
      return { model, device: device.name, made: checkpoint, ...found }
    })
  })
}

async function predictRated(options: EvalCommand): Promise<Predicted> {
  const records = await readEvalRows(options)
  const { files, adapter, heads } = await openModel(options)
  // Under an adapter states are others, and a calibration is not used.
  const made = adapter && !heads ? { calibration: null } : await readCheckpoint(heads ?? files)
  return withModel(
    options,
    // Ratings are not debiased.
    (device, files, own) => loadRewardModel(device, files, { ...chosenHeads(options), ...own, rewards: 'raw' }),
    async (model, device, compute) => {
      const rated = readRatedRows(records, model.attributes)
      if (rated.unused.length > 0)
        note(`eval: note: fields that are no attributes of the model: ${printable(rated.unused.join(', '))}`)
      const progress = startRows()
      const { share, skipInvalid, maxLength } = options
      const run = { share, skipInvalid, maxLength, onProgress: progress.update }
      const found = await compute(() => quantilesOfRows(model, rated, run)).finally(progress.end)
      for (const line of skippedNotes(found.skipped)) note(`eval: note: ${line}`)
      return { model: model.name, device: device.name, made, ...found }
    },
  )
}
