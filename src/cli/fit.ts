// pinball fit: linear quantile heads from a file of features, each level with the gap to its certified optimum.
import type { Command } from 'commander'
import { checkTarget, openFile, writeFileAtomic } from '../files/disk.ts'
import { parseJson, printable, show } from '../files/json.ts'
import {
  encodeSafetensors,
  openSafetensors,
  readTensorF32,
  type Safetensors,
  type TensorData,
  type TensorInfo,
} from '../files/safetensors.ts'
import { type LevelFit, openSolver } from '../reward/heads.ts'
import { attributeNames, isName } from '../reward/manifest.ts'
import { figure, table } from './draw.ts'
import { parseFeatures, parseLevels, parseOut, realNumber } from './options.ts'
import { note, print, printJson } from './output.ts'
import { startProgress } from './progress.ts'
import { withoutInterruptHandler } from './signals.ts'

interface FitOptions {
  readonly features: string
  readonly out: string
  readonly levels: number[]
  readonly alpha: number
  readonly intercept?: boolean
  readonly tolerance: number
  readonly json?: boolean
}

/** Features [N, D] and labels [N, M] of a file made by `pinball features`. */
interface Problem {
  readonly rows: number
  readonly columns: number
  readonly embeddings: Float32Array
  readonly labels: Float32Array
  readonly attributes: string[]
  readonly metadata: Record<string, string>
}

interface Heads {
  /** [M K, D], row = attribute * K + level */
  readonly weight: Float32Array
  /** [M K] */
  readonly bias: Float32Array | null
  readonly fits: ({ attribute: string } & LevelFit)[]
}

/** The exit code where a fit missed its tolerance; what was reached is written all the same. */
const MISSED = 3

const EXAMPLES = `
--levels 19 means the levels 0.05, 0.10, ..., 0.95; --levels 0.1,0.5,0.9 means just those.
The file holds "regression_layer.weight" [M * K, D] F32 (row = attribute * K + level) and, with --intercept,
"regression_layer.bias" [M * K]. Exit code 3: a fit missed its tolerance; what it reached is written.

Examples:
  $ pinball fit --features ratings.safetensors --out heads.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors --levels 0.1,0.5,0.9 --alpha 0.001 --json
`

/** Adds the command to the program. */
export function addFit(program: Command): void {
  program
    .command('fit')
    .description('fit quantile heads to features: L1-penalised quantile regression')
    .requiredOption('--features <file>', 'safetensors file made by "pinball features --labels"', parseFeatures)
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--levels <levels>', 'number of levels, or the levels with commas', parseLevels, parseLevels('19'))
    .option(
      '--alpha <number>',
      'penalty on the absolute weights',
      realNumber((a) => a >= 0 && a < Infinity, 'of at least 0'),
      0.003,
    )
    .option('--intercept', 'also fit a constant, without penalty')
    .option(
      '--tolerance <number>',
      'largest relative duality gap',
      realNumber((t) => t > 0 && t < 1, 'between 0 and 1'),
      1e-4,
    )
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: FitOptions) => fit(options))
}

async function fit(options: FitOptions): Promise<void> {
  const { features: file, out, levels, alpha, intercept = false, tolerance } = options
  await checkTarget(out)
  const problem = await readProblem(file)
  const start = performance.now()
  const heads = await withoutInterruptHandler(() => fitHeads(problem, options))
  const ms = performance.now() - start
  const { attributes, columns, rows } = problem
  const outputs = attributes.length * levels.length
  const tensors: TensorData[] = [
    { name: 'regression_layer.weight', dtype: 'F32', shape: [outputs, columns], data: heads.weight },
  ]
  if (heads.bias) tensors.push({ name: 'regression_layer.bias', dtype: 'F32', shape: [outputs], data: heads.bias })
  const settings = { attributes, levels, alpha, intercept, tolerance }
  const metadata: Record<string, string> = {}
  for (const [key, value] of Object.entries(settings)) metadata[key] = JSON.stringify(value)
  for (const key of ['model', 'fingerprint']) if (key in problem.metadata) metadata[key] = problem.metadata[key]
  await writeFileAtomic(out, encodeSafetensors(tensors, metadata))
  const missed = heads.fits.filter((level) => level.status !== 'optimal').length
  if (options.json) await printJson({ rows, columns, alpha, fits: heads.fits, ms })
  else
    await print(
      `${report(heads.fits)}\n${printable(out)}: ${outputs} heads over ${columns} columns from ${rows} rows\n`,
    )
  if (missed === 0) return
  note(`fit: ${missed} of ${outputs} levels missed the tolerance ${tolerance}; they are written as far as they came`)
  process.exitCode = MISSED
}

async function readProblem(file: string): Promise<Problem> {
  const source = await openFile(file)
  try {
    const opened = await openSafetensors(source)
    const embeddings = find(opened, file, 'embeddings')
    const labels = find(opened, file, 'labels')
    const [rows, columns] = embeddings.shape
    if (rows === 0 || columns === 0) throw new Error(`${file}: embeddings are empty: ${show(embeddings.shape)}`)
    if (labels.shape[0] !== rows || labels.shape[1] === 0) {
      throw new Error(`${file}: labels must be [${rows}, M], as embeddings has ${rows} rows, got ${show(labels.shape)}`)
    }
    const problem: Problem = {
      rows,
      columns,
      attributes: readAttributes(opened.metadata.attributes, labels.shape[1], file),
      embeddings: await readTensorF32(embeddings),
      labels: await readTensorF32(labels),
      metadata: opened.metadata,
    }
    checkValues(problem, file)
    return problem
  } finally {
    await source.close()
  }
}

function find({ tensors }: Safetensors, file: string, name: string): TensorInfo {
  const info = tensors.get(name)
  if (info === undefined) {
    throw new Error(`${file}: has no tensor "${name}"; make the file with "pinball features --labels ..."`)
  }
  if (info.shape.length !== 2) throw new Error(`${file}: ${name} must have two dimensions, got ${show(info.shape)}`)
  return info
}

function readAttributes(text: string | undefined, count: number, file: string): string[] {
  if (text === undefined) return attributeNames(count)
  const names = parseJson(text, `${file}: attributes in the metadata`)
  if (!Array.isArray(names) || !names.every(isName) || names.length !== count) {
    throw new Error(`${file}: attributes in the metadata must be a list of ${count} names, got ${show(names)}`)
  }
  return names
}

function checkValues({ embeddings, labels, attributes, columns }: Problem, file: string): void {
  const bad = embeddings.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) {
    throw new Error(`${file}: embeddings must be finite, row ${Math.floor(bad / columns)} has ${embeddings[bad]}`)
  }
  const count = attributes.length
  for (const [m, name] of attributes.entries()) {
    let found = false
    for (let at = m; at < labels.length; at += count) {
      if (Number.isNaN(labels[at])) continue
      found = true
      if (!Number.isFinite(labels[at])) {
        throw new Error(`${file}: labels of ${show(name)} must be finite, row ${(at - m) / count} has ${labels[at]}`)
      }
    }
    if (!found) throw new Error(`${file}: labels of ${show(name)} are all missing; leave it out of --labels`)
  }
}

async function fitHeads(
  { rows, columns, embeddings, labels, attributes }: Problem,
  options: FitOptions,
): Promise<Heads> {
  const { levels, alpha, intercept = false, tolerance } = options
  const [count, outputs] = [attributes.length, attributes.length * levels.length]
  const weight = new Float32Array(outputs * columns)
  const bias = intercept ? new Float32Array(outputs) : null
  const fits: Heads['fits'] = []
  const solver = openSolver({ rows, columns, data: embeddings })
  const progress = startProgress('levels')
  try {
    for (const [m, attribute] of attributes.entries()) {
      const values = Float32Array.from({ length: rows }, (_, n) => labels[n * count + m])
      const onProgress = () => progress.update(fits.length + 1, outputs)
      const result = await solver.fit({ values }, { levels, alpha, intercept, tolerance, onProgress })
      weight.set(result.weights, m * levels.length * columns)
      if (result.intercepts) bias?.set(result.intercepts, m * levels.length)
      for (const level of result.fits) fits.push({ attribute, ...level })
    }
  } finally {
    progress.end()
  }
  return { weight, bias, fits }
}

function report(fits: Heads['fits']): string {
  const head = ['attribute', 'level', 'objective', 'gap', 'nonzeros', 'iterations', 'ms', 'method']
  const lines = fits.map((level) => [
    level.attribute,
    figure(level.level),
    figure(level.objective),
    level.gap.toExponential(1),
    String(level.nonzeros),
    String(level.iterations),
    String(Math.round(level.ms)),
    level.status === 'optimal' ? level.method : `${level.method}, ${level.status}`,
  ])
  return table([head, ...lines], [1, 2, 3, 4, 5, 6])
}
