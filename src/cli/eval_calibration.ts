// The suite calibration: quantiles of attributes against ratings, from rows by a model or from features by its heads.
import { openDevice } from '../device/open.ts'
import { type CalibrationResult, calibration, constantQuantiles, type RatedValues } from '../evaluate/calibration.ts'
import { openDirectory, writeFileAtomic } from '../files/disk.ts'
import { printable } from '../files/json.ts'
import { readCheckpoint } from '../reward/checkpoint.ts'
import { predictRows } from '../reward/predict.ts'
import { openRatings, type RatingFile } from '../reward/rating_file.ts'
import { figure, table } from './draw.ts'
import { withModel } from './engine.ts'
import type { EvalCommand } from './eval.ts'
import { readEvalRows } from './eval_data.ts'
import { readRated } from './eval_rows.ts'
import { loader } from './eval_scores.ts'
import { listFeatureFiles, openFiles } from './feature_files.ts'
import { EMBEDDED, embeddedModel } from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress, startRows } from './progress.ts'
import { encodeAll } from './rows.ts'

interface Predicted {
  readonly model: string
  readonly device: string
  readonly levels: readonly number[]
  readonly calibrated: boolean
  /** Of each attribute that has ratings: quantiles [R, K] and the ratings. */
  readonly attributes: readonly {
    readonly name: string
    readonly quantiles: Float64Array
    readonly rated: RatedValues
  }[]
}

/** Measures every attribute of the model that has ratings, and reports. */
export async function calibrationSuite(options: EvalCommand): Promise<void> {
  const start = performance.now()
  const predicted = options.features ? await predictFeatures(options.features, options) : await predictRated(options)
  const { model, device, levels, attributes, calibrated } = predicted
  if (attributes.length === 0) throw new Error(`${model}: none of its attributes has ratings in the data`)
  const references = options.reference ? await withRatings(options.reference, (ratings) => byAttribute(ratings)) : null
  const results: Record<string, CalibrationResult> = {}
  const missing: string[] = []
  for (const { name, quantiles, rated } of attributes) {
    const reference = references?.get(name)
    if (references && !reference) missing.push(name)
    results[name] = calibration(quantiles, levels, rated, constantQuantiles(reference ?? rated, levels))
  }
  const mean = (key: 'pinball' | 'crps' | 'coverage_error') =>
    Object.values(results).reduce((sum, result) => sum + result[key], 0) / attributes.length
  const document = {
    suite: 'calibration',
    model,
    device,
    calibrated,
    levels,
    unconditional: options.reference ? 'quantiles of --reference' : 'quantiles of the same ratings',
    attributes: results,
    mean: { pinball: mean('pinball'), crps: mean('crps'), coverage_error: mean('coverage_error') },
  }
  if (options.out !== undefined) {
    await writeFileAtomic(options.out, [new TextEncoder().encode(`${JSON.stringify(document, null, 2)}\n`)])
  }
  if (missing.length > 0)
    note(`eval: note: --reference has no ratings of ${missing.join(', ')}; theirs are compared with themselves`)
  if (options.json) return printJson({ ...document, ms: performance.now() - start })
  const head = [
    'attribute',
    'items',
    'ratings',
    'pinball',
    'unconditional',
    'gain',
    'CRPS',
    'coverage error',
    'worst',
    'sharpness',
    'crossings',
  ]
  const lines = Object.entries(results).map(([name, r]) => [
    name,
    String(r.items),
    String(r.ratings),
    figure(r.pinball),
    figure(r.unconditional_pinball),
    `${(100 * r.gain).toFixed(1)} %`,
    figure(r.crps),
    r.coverage_error.toFixed(4),
    r.worst_coverage_error.toFixed(4),
    r.sharpness === null ? '' : figure(r.sharpness),
    `${(100 * r.crossings).toFixed(1)} %`,
  ])
  const about = `${printable(`${model} on ${device}`)}, ${levels.length} levels, ${calibrated ? 'calibrated' : 'not calibrated'}`
  return print(
    `${about}; unconditional: ${document.unconditional}\n\n${table([head, ...lines], head.map((_, i) => i).slice(1))}\n`,
  )
}

/** Ratings of each attribute with the rows they belong to. */
function byAttribute({ labels, attributes, rowIndex, weights }: RatingFile): Map<string, RatedValues> {
  const count = labels.length / attributes.length
  const rows = rowIndex ?? Uint32Array.from({ length: count }, (_, i) => i)
  return new Map(
    attributes.map((name, m) => {
      const ratings = Float64Array.from({ length: count }, (_, i) => labels[i * attributes.length + m])
      return [name, { ratings, rows, ...(weights && { weights }) }]
    }),
  )
}

async function withRatings<T>(paths: readonly string[], work: (ratings: RatingFile) => T | Promise<T>): Promise<T> {
  const sources = await openFiles(await listFeatureFiles(paths))
  try {
    return await work(await openRatings(sources))
  } finally {
    for (const source of sources) await source.close()
  }
}

function predictFeatures(paths: readonly string[], options: EvalCommand): Promise<Predicted> {
  return withRatings(paths, async (ratings) => {
    const folder = options.model ?? embeddedModel()
    const { regression, manifest, config, calibration: found } = await readCheckpoint(await openDirectory(folder))
    const { columns, name: file, rows } = ratings.features
    if (columns !== config.hidden_size) {
      throw new Error(
        `${file}: must have the ${config.hidden_size} columns that the heads of ${folder} are for, got ${columns}`,
      )
    }
    const device = await openDevice(options.device, { threads: options.threads })
    const progress = startProgress('rows')
    try {
      const onProgress = (done: number, all: number) => progress.update(done, all)
      const values = await predictRows(device, ratings.features, regression, { onProgress })
      const offsets = options.calibration ? (found?.offsets ?? null) : null
      const K = manifest.levels.length
      const M = manifest.attributes.length
      const rated = byAttribute(ratings)
      const attributes = manifest.attributes.flatMap((name, j) => {
        const own = rated.get(name)
        if (!own || own.ratings.length === 0 || Array.from(own.ratings as Float64Array).every(Number.isNaN)) return []
        const quantiles = new Float64Array(rows * K)
        for (let i = 0; i < rows; i++) {
          for (let k = 0; k < K; k++) quantiles[i * K + k] = values[(i * M + j) * K + k] + (offsets?.[j * K + k] ?? 0)
        }
        return [{ name, quantiles, rated: own }]
      })
      return {
        model: options.model ?? EMBEDDED,
        device: device.name,
        levels: manifest.levels,
        calibrated: offsets !== null,
        attributes,
      }
    } finally {
      progress.end()
      await device.destroy()
    }
  })
}

async function predictRated(options: EvalCommand): Promise<Predicted> {
  const given = await readEvalRows(options)
  return withModel(options, loader({ ...options, rewards: 'raw' }), async (model, device, compute) => {
    const { rows, ratings, unused } = readRated(given, model.attributes)
    if (unused.length > 0)
      note(`eval: note: fields that are no attributes of the model: ${printable(unused.join(', '))}`)
    const encoded = encodeAll(model, rows, true)
    const progress = startRows()
    try {
      const scores = await compute(() => model.score(encoded, { share: options.share, onProgress: progress.update }))
      const attributes = model.attributes.flatMap((name) => {
        const rated = ratings.get(name)!
        if (rated.ratings.length === 0) return []
        return [{ name, quantiles: Float64Array.from(scores.flatMap((s) => s.attributes[name].quantiles)), rated }]
      })
      return { model: model.name, device: device.name, levels: model.levels, calibrated: model.calibrated, attributes }
    } finally {
      progress.end()
    }
  })
}
