// Fits the quantile heads of models/nano by Pinball itself: features of the frozen backbone, every rating a label, an
// intercept, the penalty chosen on a tenth of the items, all attributes at 19 levels.
//
//   tsx models/nano/fit.ts --model DIR --rows heads.jsonl --pairs heads.pairs.jsonl --out heads.safetensors
//
// The rows are those that make.py writes: {"messages", "ratings": {attribute: [a number per rater]}}; a pair's sides count as
// ratings of 0.75 (chosen) and 0.25 (rejected) on a scale of two levels.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { openDevice } from '../../src/device/open.ts'
import { openDirectory, writeFileAtomic } from '../../src/files/disk.ts'
import { encodeSafetensors } from '../../src/files/safetensors.ts'
import { evenLevels } from '../../src/reward/distribution.ts'
import { loadFeatureModel } from '../../src/reward/features.ts'
import { openSolver } from '../../src/solver/fit.ts'
import type { Message } from '../../src/text/chat.ts'

const LEVELS = evenLevels(19)

interface Item {
  readonly messages: Message[]
  readonly ratings: Readonly<Record<string, readonly number[]>>
}

interface Pair {
  readonly set: string
  readonly chosen: Message[]
  readonly rejected: Message[]
}

const readLines = <T>(path: string): T[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T)

/** A tenth of the items, by a hash of the text; for the sides of a pair, of the first message, which they share. */
const isValidation = ({ messages, ratings }: Item): boolean => {
  const text = 'helpful' in ratings || 'harmless' in ratings ? messages[0]!.content : JSON.stringify(messages)
  return createHash('sha256').update(text).digest()[0]! < 26
}

/** Labels of one attribute over the items kept; the row index spares a copy of the features for every rater. */
function labelsOf(items: readonly Item[], attribute: string, keep: (item: Item) => boolean) {
  const values: number[] = []
  const rowIndex: number[] = []
  for (const [row, item] of items.entries()) {
    if (!keep(item)) continue
    for (const rating of item.ratings[attribute] ?? []) {
      values.push(rating)
      rowIndex.push(row)
    }
  }
  return { values: Float32Array.from(values), rowIndex: Uint32Array.from(rowIndex) }
}

type Labels = ReturnType<typeof labelsOf>

/** Mean pinball loss over labels and levels of predictions made for feature rows. */
function pinball({ values, rowIndex }: Labels, predict: (row: number, level: number) => number): number {
  let sum = 0
  for (let i = 0; i < values.length; i++)
    for (const [k, level] of LEVELS.entries()) {
      const residual = values[i]! - predict(rowIndex[i]!, k)
      sum += Math.max(level * residual, (level - 1) * residual)
    }
  return sum / values.length / LEVELS.length
}

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'models/nano' },
    rows: { type: 'string' },
    pairs: { type: 'string' },
    alpha: { type: 'string', default: '0.03,0.003,0.0005' },
    out: { type: 'string' },
  },
})
const { rows: rowsFile, pairs: pairsFile, out } = options
if (!rowsFile || !pairsFile || !out) throw new Error('fit: --rows, --pairs and --out are needed')

const items = [
  ...readLines<Item>(rowsFile),
  ...readLines<Pair>(pairsFile).flatMap(({ set, chosen, rejected }) => [
    { messages: chosen, ratings: { [set]: [0.75] } },
    { messages: rejected, ratings: { [set]: [0.25] } },
  ]),
]
const files = await openDirectory(options.model)
const device = await openDevice('auto')
const model = await loadFeatureModel(device, files)
const fits = ({ messages }: Item): boolean => {
  try {
    return model.encode({ messages }).input_ids.length > 0
  } catch (error) {
    if (/max_position_embeddings/.test((error as Error).message)) return false
    throw error
  }
}
const kept = items.filter(fits)
console.log(`${kept.length} rows (${items.length - kept.length} are too long) on ${device.description}`)
const { embeddings } = await model.features(kept.map(({ messages }) => ({ messages })))
const columns = model.config.hidden
await model.destroy()
await device.destroy()

const manifest = JSON.parse(readFileSync(`${options.model}/pinball.json`, 'utf8')) as { attributes: string[] }
const solver = await openSolver({ data: embeddings, rows: kept.length, columns })
const value = (weights: Float32Array, row: number, level: number): number => {
  let sum = 0
  for (let d = 0; d < columns; d++) sum += weights[level * columns + d]! * embeddings[row * columns + d]!
  return sum
}

const biases = new Float32Array(manifest.attributes.length * LEVELS.length)
const weights = new Float32Array(manifest.attributes.length * LEVELS.length * columns)
for (const [m, attribute] of manifest.attributes.entries()) {
  const [train, check] = [false, true].map((side) => labelsOf(kept, attribute, (item) => isValidation(item) === side))
  const sorted = Float32Array.from(train!.values).sort()
  const constant = pinball(check!, (_, k) => sorted[Math.max(0, Math.ceil(LEVELS[k]! * sorted.length) - 1)]!)
  let best = { alpha: 0, loss: Number.POSITIVE_INFINITY }
  const tried: string[] = []
  for (const alpha of options.alpha.split(',').map(Number)) {
    const fit = await solver.fit(train!, { levels: LEVELS, alpha, intercept: true, tolerance: 1e-3 })
    const loss = pinball(check!, (row, k) => value(fit.weights, row, k) + fit.intercepts![k]!) / constant
    tried.push(`${alpha}: ${loss.toFixed(4)}`)
    if (loss < best.loss) best = { alpha, loss }
  }
  const all = labelsOf(kept, attribute, () => true)
  const final = { levels: LEVELS, alpha: best.alpha, intercept: true }
  const { weights: fitted, intercepts, fits } = await solver.fit(all, final)
  biases.set(intercepts!, m * LEVELS.length)
  weights.set(fitted, m * fitted.length)
  const gap = Math.max(...fits.map((fit) => fit.gap))
  console.log(
    `${attribute}: ${all.values.length} ratings; pinball over constant on the validation items by alpha ${tried.join(', ')}; alpha ${best.alpha}, worst gap ${gap.toExponential(1)}`,
  )
}
const shape = [manifest.attributes.length * LEVELS.length, columns]
await writeFileAtomic(
  out,
  encodeSafetensors([
    { name: 'regression_layer.weight', dtype: 'F32', shape, data: weights },
    { name: 'regression_layer.bias', dtype: 'F32', shape: [biases.length], data: biases },
  ]),
)
