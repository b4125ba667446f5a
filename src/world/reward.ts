// The reward model of the small world, by the path that every reward model of this library takes: ratings by simulated raters, features
// of the seeded backbone, quantile heads, a conformal calibration on ratings that the heads have not seen, one model directory.
import type { Device } from '../device/device.ts'
import { recordsOf } from '../files/records.ts'
import type { ModelFiles } from '../files/source.ts'
import { memoryStore, type Store } from '../files/store.ts'
import { assemble } from '../reward/assemble.ts'
import { calibrate, readUncalibrated } from '../reward/calibrate.ts'
import { CALIBRATION_FILE, encodeCalibration } from '../reward/conformal.ts'
import { evenLevels } from '../reward/distribution.ts'
import { encodeCheckpoint } from '../reward/encode.ts'
import { makeFeatures } from '../reward/feature_files/make.ts'
import { readFeatureRows } from '../reward/feature_files/rows.ts'
import { type FeatureModel, loadFeatureModel } from '../reward/features.ts'
import { headsCheckpoint } from '../reward/heads_directory.ts'
import { openRatings, type RatingFile } from '../reward/rating_file.ts'
import { fitHeads } from '../train/heads.ts'
import { ratingsProblem } from '../train/problem.ts'
import { type WrittenAnswer, writeAnswers } from './answers.ts'
import { simulateRating, trueRatings } from './truth.ts'

/** The one attribute of the world's reward model. */
export const ATTRIBUTE = 'rating'
export const LEVELS: readonly number[] = evenLevels(19)

export interface RewardSettings {
  /** Answers whose ratings the heads are fitted to, and those that are held out for the calibration. */
  readonly answers: number
  readonly held: number
  /** Raters that each answer is shown to. */
  readonly raters: number
  /** Share of answers with a fault. */
  readonly careless: number
  /** Penalty on the absolute weights of the heads. */
  readonly alpha: number
  /** Risk aversion that the model directory names. */
  readonly lambda: number
}

export const REWARD_DEFAULTS: RewardSettings = {
  answers: 4000,
  held: 1000,
  raters: 3,
  careless: 0.15,
  alpha: 1e-5,
  lambda: 4,
}

/**
 * Draws ratings, fits and calibrates a reward model on the backbone, and writes its model directory into `out`, which must be missing,
 * empty or hold just that. The same seed gives the same bits on one device.
 */
export async function fitWorldReward(
  device: Device,
  backbone: ModelFiles,
  seed: number,
  out: Store,
  settings: RewardSettings = REWARD_DEFAULTS,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<void> {
  const { answers, held, raters, careless, alpha, lambda } = settings
  const written = writeAnswers(seed, answers + held, careless)
  const model = await loadFeatureModel(device, backbone)
  const heads = memoryStore('heads')
  try {
    const known = { answers: written.slice(0, answers), first: 0 }
    const fitted = await withRatings(model, known, { seed, raters, signal }, (ratings) =>
      fitHeads(ratingsProblem(ratings), { levels: LEVELS, alpha, intercept: true, device, signal }),
    )
    const checkpoint = headsCheckpoint(fitted)
    const whole = { ...checkpoint, manifest: { ...checkpoint.manifest, lambda } }
    for await (const { file, chunks } of encodeCheckpoint(whole)) await heads.write(file, chunks)
    const unseen = { answers: written.slice(answers), first: answers * raters }
    const found = await withRatings(model, unseen, { seed, raters, signal }, async (ratings) =>
      calibrate(device, await readUncalibrated(heads), ratings, { signal }),
    )
    await heads.write(CALIBRATION_FILE, encodeCalibration(found))
  } finally {
    await model.destroy()
  }
  await assemble(backbone, heads, out)
}

/** Asks raters about answers, from the rater with number `first` on, and runs `work` with the features and ratings. */
async function withRatings<T>(
  model: FeatureModel,
  { answers, first }: { readonly answers: readonly WrittenAnswer[]; readonly first: number },
  { seed, raters, signal }: { readonly seed: number; readonly raters: number; readonly signal?: AbortSignal },
  work: (ratings: RatingFile) => Promise<T>,
): Promise<T> {
  const rows = answers.map(({ prompt, tokens }, i) => {
    const truth = trueRatings(prompt, tokens)
    const ratings = Array.from({ length: raters }, (_, r) => simulateRating(truth, seed, first + i * raters + r))
    return { input_ids: [...prompt.tokens, ...tokens], [ATTRIBUTE]: ratings }
  })
  const [store, file] = [memoryStore('ratings'), 'ratings.safetensors']
  await makeFeatures(model, await readFeatureRows(recordsOf(rows), { labels: [ATTRIBUTE] }), { store, file, signal })
  const source = (await store.open(file))!
  try {
    return await work(await openRatings([source]))
  } finally {
    await source.close()
  }
}
