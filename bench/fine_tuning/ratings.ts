// Quantile heads on several people's ratings of a sentence: on frozen features by the solver, and adapted from there by LoRA.

import { calibration, constantQuantiles, type RatedValues } from '../../src/evaluate/calibration.ts'
import { quantilesOfFeatures, type RatedQuantiles, ratingsByAttribute } from '../../src/evaluate/rated_quantiles.ts'
import { directoryStore, directoryTree, openDirectory, openFile } from '../../src/files/disk.ts'
import { recordsOf } from '../../src/files/records.ts'
import type { ModelFiles } from '../../src/files/source.ts'
import type { Checkpoint } from '../../src/reward/checkpoint.ts'
import { evenLevels } from '../../src/reward/distribution.ts'
import { makeFeatures } from '../../src/reward/feature_files/make.ts'
import { readFeatureRows } from '../../src/reward/feature_files/rows.ts'
import { loadFeatureModel } from '../../src/reward/features.ts'
import { headsCheckpoint } from '../../src/reward/heads_directory.ts'
import { encodeHeads, type HeadsFile, readHeadsFile } from '../../src/reward/heads_file.ts'
import { openRatings, type RatingFile } from '../../src/reward/rating_file.ts'
import { fitHeads } from '../../src/train/heads.ts'
import { ratingsProblem } from '../../src/train/problem.ts'
import { trainQuantileModel } from '../../src/train/quantile_model.ts'
import { encodeRatedExamples } from '../../src/train/rated_examples.ts'
import { openTextRules } from '../../src/train/row_text.ts'
import { bootstrap, type Run, readLines, split, teller } from './run.ts'

const FILES = ['movie_reviews', 'amazon_reviews', 'nyt_editorials']
const LEVELS = evenLevels(19)
const NAME = 'sentiment'
/** One for all, so that it is computed once for many sentences. */
const PROMPT = 'How does this sound?'

interface Sentence {
  readonly text: string
  readonly ratings: readonly number[]
}

type Row = { readonly prompt: string; readonly response: string; readonly [NAME]: readonly number[] }

async function readSentences(folder: string): Promise<Sentence[]> {
  const all = await Promise.all(FILES.map((file) => readLines<Sentence>(folder, `${file}.jsonl.gz`)))
  return all.flat().filter(({ text, ratings }) => text.trim() !== '' && ratings.length > 0)
}

export async function runRatings(run: Run, folder: string, sizes: { readonly rows: number; readonly held: number }) {
  const { device, files, seed } = run
  const sentences = await readSentences(folder)
  const parts = split(sentences, ({ text }) => text, seed, { training: sizes.rows, held: sizes.held })
  const [training, held] = [parts.training, parts.held].map((some) =>
    some.map(({ text, ratings }): Row => ({ prompt: PROMPT, response: text, [NAME]: ratings })),
  ) as [Row[], Row[]]
  console.error(`ratings: ${training.length} sentences, ${held.length} held out`)
  const own = await run.folder('ratings')
  return withFeatures(run, 'training', training, null, (trained) =>
    withFeatures(run, 'held_out', held, null, async (frozen) => {
      const heads = await fitFrozen(own, trained)
      const before = await quantilesOfFeatures(device, checkpointOf(heads), frozen)
      const rules = await openTextRules(files, 512)
      const { rows } = await encodeRatedExamples(recordsOf(training), [NAME], rules)
      const store = directoryTree(await run.folder('ratings/lora'))
      const begin = performance.now()
      const { heads: adapted, ...tuned } = await trainQuantileModel(device, files, rows, [], {
        ...{
          ...run.adapter,
          attributes: [NAME],
          levels: LEVELS,
          heads,
          intercept: true,
          microBatch: run.adapter.batch,
        },
        ...{ store, onProgress: teller('ratings') },
      })
      const seconds = Math.round((performance.now() - begin) / 1000)
      const adapter = await openDirectory(`${own}/lora`)
      const after = await withFeatures(run, 'held_out_lora', held, adapter, (features) =>
        quantilesOfFeatures(device, checkpointOf(adapted), features),
      )
      const constant = constantQuantiles(ratingsByAttribute(trained).get(NAME)!, LEVELS)
      const { steps, ratings, parameters, num_tokens } = tuned
      return {
        ...{
          rows: rows.length,
          ratings,
          held: held.length,
          steps,
          parameters,
          tokens: num_tokens,
          seconds,
        },
        alpha: heads.metadata.alpha,
        ...compare(before, after, constant),
      }
    }),
  )
}

/** Heads as a checkpoint that says how wide its states are. */
const checkpointOf = (heads: HeadsFile): Checkpoint => ({
  ...headsCheckpoint(heads),
  config: { model_type: 'llama', hidden_size: heads.columns },
})

/** Makes features of rows, unless they are there, and opens them. */
async function withFeatures<T>(
  { device, files, folder }: Run,
  name: string,
  rows: readonly Row[],
  adapter: ModelFiles | null,
  use: (features: RatingFile) => Promise<T>,
): Promise<T> {
  const path = await folder('ratings/features')
  const partial = await folder(`ratings/features/${name}.partial`)
  const model = await loadFeatureModel(device, files, adapter ? { adapter } : {})
  try {
    await makeFeatures(model, await readFeatureRows(recordsOf(rows), { labels: [NAME] }), {
      ...{ store: directoryStore(path), file: `${name}.safetensors`, partial: directoryStore(partial) },
      onProgress: ({ done, rows }) => console.error(`ratings: features ${name}, ${done} of ${rows}`),
    })
  } finally {
    await model.destroy()
  }
  const source = await openFile(`${path}/${name}.safetensors`)
  try {
    return await use(await openRatings([source]))
  } finally {
    await source.close()
  }
}

/** Quantile heads on frozen features, the penalty by cross-validation; kept in a file. */
async function fitFrozen(
  folder: string,
  trained: RatingFile,
): Promise<HeadsFile & { metadata: Record<string, string> }> {
  const store = directoryStore(folder)
  const kept = await store.open('frozen_heads.safetensors')
  const begin = performance.now()
  if (kept === null) {
    const fit = await fitHeads(ratingsProblem(trained), { levels: LEVELS, alpha: 'auto', intercept: true, threads: 1 })
    console.error(
      `ratings: frozen heads fitted in ${((performance.now() - begin) / 1000).toFixed(0)} s, ${fit.metadata.alpha}`,
    )
    await store.write('frozen_heads.safetensors', encodeHeads(fit, fit.metadata))
  } else await kept.close()
  const source = await store.open('frozen_heads.safetensors')
  try {
    const heads = await readHeadsFile(source!)
    return heads as HeadsFile & { metadata: Record<string, string> }
  } finally {
    await source!.close()
  }
}

/** Frozen and adapted quantiles of the same ratings, beside constant ones and those of the sentence's own ratings. */
function compare(before: RatedQuantiles, after: RatedQuantiles, constant: Float64Array) {
  const [{ quantiles: frozen, rated }] = before.attributes
  const [{ quantiles: adapted }] = after.attributes
  const items = new Set(Array.from(rated.rows)).size
  const repeated = (one: ArrayLike<number>) =>
    Float64Array.from({ length: items * LEVELS.length }, (_, i) => one[i % LEVELS.length]!)
  const ways = { frozen, adapted, constant: repeated(constant), own_ratings: ownQuantiles(rated, items) }
  const sums = Object.fromEntries(Object.entries(ways).map(([name, q]) => [name, sumsOf(q, rated, items)]))
  const measured = Object.entries(ways).map(([name, q]) => {
    const { pinball, crps, coverage_error, worst_coverage_error, sharpness, crossings } = calibration(
      q,
      LEVELS,
      rated,
      constant,
    )
    const intervals = {
      pinball_interval: bootstrap(sums[name]!, pinballOf).interval,
      crps_interval: bootstrap(sums[name]!, (all) => 2 * pinballOf(all)).interval,
      coverage_error_interval: bootstrap(sums[name]!, coverageErrorOf).interval,
      central_90: bootstrap(sums[name]!, (all) => all[2]! / all[0]!),
    }
    return [name, { pinball, crps, coverage_error, worst_coverage_error, sharpness, crossings, ...intervals }]
  })
  const both = sums.frozen!.map((one, i) => Float64Array.of(...one, ...sums.adapted![i]!))
  const width = sums.frozen![0]!.length
  const difference = bootstrap(both, (all) => pinballOf(all.subarray(width)) - pinballOf(all.subarray(0, width)))
  const share = bootstrap(both, (all) => 1 - pinballOf(all.subarray(width)) / pinballOf(all.subarray(0, width)))
  return { ...Object.fromEntries(measured), adapted_less_frozen: difference, gain_over_frozen: share }
}

/** Of each sentence: ratings, loss, ratings within the central 90 %, and at or below and below each level [3 + 2 K]. */
function sumsOf(q: ArrayLike<number>, { ratings, rows }: RatedValues, items: number): Float64Array[] {
  const K = LEVELS.length
  const all = Array.from({ length: items }, () => new Float64Array(3 + 2 * K))
  for (let i = 0; i < ratings.length; i++) {
    const [y, sums, at] = [ratings[i]!, all[rows[i]!]!, rows[i]! * K]
    sums[0]!++
    // As calibration() sees ties: values come from sums in f32.
    const near = 1e-6 * Math.max(1, Math.abs(y))
    if (y >= q[at]! - near && y <= q[at + K - 1]! + near) sums[2]!++
    for (let k = 0; k < K; k++) {
      const r = y - q[at + k]!
      sums[1]! += (r > 0 ? LEVELS[k]! * r : (LEVELS[k]! - 1) * r) / K
      if (y <= q[at + k]! + near) sums[3 + k]!++
      if (y < q[at + k]! - near) sums[3 + K + k]!++
    }
  }
  return all
}

const pinballOf = (sums: Float64Array): number => sums[1]! / sums[0]!

function coverageErrorOf(sums: Float64Array): number {
  const K = LEVELS.length
  const errors = LEVELS.map((level, k) =>
    Math.max(0, sums[3 + K + k]! / sums[0]! - level, level - sums[3 + k]! / sums[0]!),
  )
  return errors.reduce((sum, error) => sum + error, 0) / K
}

/** The quantiles of a sentence's own ratings: no prediction can lose less on them. */
function ownQuantiles({ ratings, rows }: RatedValues, items: number): Float64Array {
  const own = Array.from({ length: items }, () => [] as number[])
  for (let i = 0; i < ratings.length; i++) own[rows[i]!]!.push(ratings[i]!)
  return Float64Array.from(
    own.flatMap((values) => [...constantQuantiles({ ratings: values, rows: values.map(() => 0) }, LEVELS)]),
  )
}
