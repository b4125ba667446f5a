// Fits to features of a language model and to ratings that people gave: how many weights are not zero, and what that costs.
import { existsSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { openDevice } from '../../src/device/open.ts'
import { openDirectory } from '../../src/files/disk.ts'
import { loadFeatureModel } from '../../src/reward/features.ts'
import { openSolver } from '../../src/solver/fit.ts'
import { ALPHA, checkFit, LEVELS } from './fits.ts'
import { type PartOptions, type PartResult, seconds } from './parts.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Sentences, each rated from -4 to 4 by twenty people (VADER, Hutto and Gilbert 2014). Not part of the project. */
const RATINGS = fileURLToPath(new URL('../../../shared/data/vader-multirater/', import.meta.url))
const FILES = ['amazon_reviews', 'movie_reviews', 'nyt_editorials']
/** Penalties beside the paper's, for the sparsity. */
const ALPHAS = [0.03, ALPHA, 0.0003]
const BATCH = 512

interface Item {
  readonly text: string
  readonly ratings: readonly number[]
}

/** Every rater's number is a label of its own; features of a sentence are held once. */
export async function real({ models, rows, threads }: PartOptions): Promise<PartResult> {
  const missing = FILES.map((file) => `${RATINGS}${file}.jsonl.gz`).find((path) => !existsSync(path))
  if (missing) throw new Error(`bench: the part real needs the ratings in ${missing}, which is not part of the project`)
  const items = FILES.flatMap((file) =>
    gunzipSync(readFileSync(`${RATINGS}${file}.jsonl.gz`))
      .toString()
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Item),
  ).slice(0, rows)
  const values = Float32Array.from(items.flatMap(({ ratings }) => ratings.map((rating) => (rating + 4.5) / 9)))
  const rowIndex = Uint32Array.from(items.flatMap(({ ratings }, row) => ratings.map(() => row)))
  const lines: string[][] = []
  const record: Record<string, unknown>[] = []
  for (const model of [`${ROOT}models/nano`, ...models]) {
    const features = await featuresOf(model, items)
    const solver = await openSolver(features, { threads })
    for (const alpha of ALPHAS) {
      const start = performance.now()
      const fit = await solver.fit({ values, rowIndex }, { levels: LEVELS, alpha, duals: true })
      const ms = performance.now() - start
      const gap = checkFit(fit, { features, labels: { values, rowIndex }, levels: LEVELS, alpha }).confirmed
      const nonzeros = fit.fits.map((level) => level.nonzeros)
      const [least, most] = [Math.min(...nonzeros), Math.max(...nonzeros)]
      const name = basename(model)
      const size = `${items.length} x ${features.columns}`
      lines.push([
        name,
        size,
        String(values.length),
        String(alpha),
        `${least}..${most}`,
        seconds(ms),
        gap.toExponential(1),
      ])
      record.push({
        model: name,
        rows: items.length,
        columns: features.columns,
        labels: values.length,
        alpha,
        nonzeros,
        ms,
        gap,
      })
    }
    await solver.close()
  }
  return {
    title: 'features of language models, every rating of VADER a label, 19 levels',
    head: ['model', 'features', 'labels', 'alpha', 'nonzeros', 'time', 'gap'],
    lines,
    notes: models.length === 0 ? ['give --models DIR,... for other models than the embedded one'] : [],
    record: { fits: record },
  }
}

async function featuresOf(directory: string, items: readonly Item[]) {
  const device = await openDevice('wasm')
  const model = await loadFeatureModel(device, await openDirectory(directory))
  const columns = model.config.hidden
  const data = new Float32Array(items.length * columns)
  for (let first = 0; first < items.length; first += BATCH) {
    const batch = items.slice(first, first + BATCH)
    const rows = batch.map(({ text }) => ({
      messages: [
        { role: 'user', content: 'How does this make you feel?' },
        { role: 'assistant', content: text },
      ],
    }))
    data.set((await model.features(rows)).embeddings, first * columns)
    process.stderr.write(`\r${basename(directory)}: ${first + batch.length} of ${items.length} sentences `)
  }
  process.stderr.write('\n')
  await model.destroy()
  await device.destroy()
  return { data, rows: items.length, columns }
}
