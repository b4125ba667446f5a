// The baseline of point estimates: ridge regression's prediction with a Gaussian of the spread of its residuals, as quantiles.
import { openDevice } from '../src/device/open.ts'
import { type CalibrationResult, calibration, constantQuantiles } from '../src/evaluate/calibration.ts'
import { normalQuantile } from '../src/evaluate/normal.ts'
import { openFile } from '../src/files/disk.ts'
import { readHeadsFile } from '../src/reward/heads_file.ts'
import { predictRows } from '../src/reward/predict.ts'
import { openRatings, type RatingFile } from '../src/reward/rating_file.ts'
import { type Unit, unitWeights } from '../src/reward/unit.ts'

/** Measures of held-out ratings, by attribute, by a unit; the spread is that of all ratings that the ridge was fitted to. */
export async function gaussianBaseline(
  ridge: string,
  fitted: string,
  heldOut: string,
  levels: readonly number[],
  unit: Unit,
): Promise<Record<string, CalibrationResult>> {
  const sources = await Promise.all([ridge, fitted, heldOut].map((path) => openFile(path)))
  const device = await openDevice('wasm')
  try {
    const heads = await readHeadsFile(sources[0])
    const [train, test] = [await openRatings([sources[1]]), await openRatings([sources[2]])]
    const count = heads.attributes.length
    const [own, predicted] = [
      await predictRows(device, train.features, heads),
      await predictRows(device, test.features, heads),
    ]
    const normal = levels.map(normalQuantile)
    return Object.fromEntries(
      heads.attributes.map((name, j) => {
        const seen = ratingsOf(train, name)
        let [sum, n] = [0, 0]
        for (let i = 0; i < seen.ratings.length; i++) {
          if (Number.isNaN(seen.ratings[i])) continue
          sum += (seen.ratings[i] - own[seen.rows[i] * count + j]) ** 2
          n++
        }
        const spread = Math.sqrt(sum / n)
        const quantiles = new Float64Array(test.features.rows * levels.length)
        for (let row = 0; row < test.features.rows; row++) {
          for (const [k, z] of normal.entries())
            quantiles[row * levels.length + k] = predicted[row * count + j] + spread * z
        }
        const counted = (rated: ReturnType<typeof ratingsOf>) => ({ ...rated, weights: unitWeights(unit, rated) })
        const constant = constantQuantiles(counted(seen), levels)
        return [name, calibration(quantiles, levels, counted(ratingsOf(test, name)), constant)]
      }),
    )
  } finally {
    await device.destroy()
    for (const source of sources) await source.close()
  }
}

function ratingsOf({ labels, attributes, rowIndex }: RatingFile, name: string) {
  const m = attributes.indexOf(name)
  const count = labels.length / attributes.length
  const ratings = Float64Array.from({ length: count }, (_, i) => labels[i * attributes.length + m])
  return { ratings, rows: rowIndex ?? Uint32Array.from({ length: count }, (_, i) => i) }
}
