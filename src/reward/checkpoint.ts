// A reward model's checkpoint: reads and checks the heads of a model directory, with a backbone or without, as plain arrays.
import { show } from '../files/json.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Adapter } from '../llama/adapter_files.ts'
import { type Calibration, readCalibration } from './conformal.ts'
import { type ModelDirectory, openModelDirectory } from './directory.ts'
import { evenLevels } from './distribution.ts'
import { type Fitted, readFitted } from './fitted.ts'
import { findLayout, type Layout, readHeads, readSizes } from './layouts.ts'
import { attributeNames, MANIFEST_FILE, type Manifest } from './manifest.ts'

/** One hidden layer of the gate: linear, ReLU, and in a QRM batch norm with running statistics. */
export interface GateLayer {
  /** [H, D] in the first layer, [H, H] after it. */
  readonly weight: Float32Array
  /** [H] in ArmoRM, null in a QRM. */
  readonly bias: Float32Array | null
  /** null in ArmoRM. */
  readonly norm: {
    readonly weight: Float32Array
    readonly bias: Float32Array
    readonly mean: Float32Array
    readonly variance: Float32Array
  } | null
}

export interface GateWeights {
  readonly temperature: number
  readonly logitScale: number
  readonly hidden: readonly GateLayer[]
  /** [M, H] */
  readonly weight: Float32Array
  /** [M] */
  readonly bias: Float32Array
}

export interface Checkpoint {
  readonly layout: Layout
  /** The object of config.json as it stands. */
  readonly config: Readonly<Record<string, unknown>>
  /** With the names [M] and levels [K] filled in; point estimates are one level of 0.5. */
  readonly manifest: Manifest & { readonly attributes: readonly string[]; readonly levels: readonly number[] }
  readonly regression: {
    /** [M K, D] */
    readonly weight: Float32Array
    /** [M K] */
    readonly bias: Float32Array | null
  }
  /** [M, M], rows = from; null: identity. */
  readonly transform: Float32Array | null
  /** null in a classifier, and where the manifest's weights take its place. */
  readonly gate: GateWeights | null
  /** What a conformal calibration adds to the quantiles; null where there was none. */
  readonly calibration: Calibration | null
  /** The rows that the heads were fitted to, where that is known. */
  readonly fitted?: Fitted | null
}

const HIDDEN_LIMIT = 2 ** 20

/**
 * Reads configuration, manifest, heads and calibration of a model directory; the backbone's tensors are not read and may be absent.
 * Throws on missing, unexpected and mis-shaped tensors, other dtypes than floats, NaN and infinity, and impossible counts.
 */
export async function readCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const directory = await openModelDirectory(files)
  try {
    return await checkpointOf(directory)
  } finally {
    await directory.close()
  }
}

/** As `readCheckpoint`, of a directory that is open. */
export async function checkpointOf({ files, config, manifest, tensors }: ModelDirectory): Promise<Checkpoint> {
  const where = `${files.name}/config.json`
  const hidden = config.hidden_size
  if (!Number.isSafeInteger(hidden) || (hidden as number) < 1 || (hidden as number) > HIDDEN_LIMIT) {
    throw new Error(`${where}: hidden_size must be a whole number from 1 to ${HIDDEN_LIMIT}, got ${show(hidden)}`)
  }
  const layout = findLayout(config, tensors)
  const sizes = readSizes(layout, config, where)
  const { objectives, quantiles } = sizes
  checkCount(manifest.attributes, objectives, 'attributes', 'num_objectives', files)
  checkCount(manifest.levels, quantiles, 'levels', 'num_quantiles', files)
  const needsGate = manifest.weights === null
  const heads = await readHeads(layout, tensors, sizes, hidden as number, { name: files.name, needsGate })
  const names = layout === 'classifier' ? ['reward'] : attributeNames(objectives)
  return {
    layout,
    config,
    manifest: {
      ...manifest,
      attributes: manifest.attributes ?? names,
      levels: manifest.levels ?? evenLevels(quantiles),
    },
    ...heads,
    calibration: await readCalibration(files, heads.regression, objectives * quantiles),
    fitted: await readFitted(files, heads.regression),
  }
}

/**
 * The checkpoint that a directory comes to under an adapter: the adapter's `score` head in the place of the base's, in the layout of
 * LlamaForSequenceClassification, or the base's own heads where the adapter has none. A calibration holds for the states of the base
 * alone and is left out. Throws where the head has several labels, or the base has other heads that it cannot stand beside.
 */
export async function adaptedCheckpoint(directory: ModelDirectory, { name, score }: Adapter): Promise<Checkpoint> {
  if (score === null) return { ...(await checkpointOf(directory)), calibration: null }
  const { files, config, manifest, tensors } = directory
  if (score.labels !== 1) throw new Error(`${name}: has a score head of ${score.labels} labels; a reward model has one`)
  const body = /^(model|embed_tokens|layers|norm)\./
  const other = [...tensors.keys()].find((key) => !body.test(key) && key !== 'score.weight' && key !== 'lm_head.weight')
  if (other !== undefined) {
    throw new Error(
      `${files.name}: has heads of its own (${show(other)}), which the score head of ${name} cannot stand beside`,
    )
  }
  checkCount(manifest.attributes, 1, 'attributes', 'num_labels', files)
  checkCount(manifest.levels, 1, 'levels', 'num_labels', files)
  return {
    layout: 'classifier',
    config,
    manifest: { ...manifest, attributes: manifest.attributes ?? ['reward'], levels: manifest.levels ?? evenLevels(1) },
    regression: { weight: score.weight, bias: null },
    transform: null,
    gate: null,
    calibration: null,
  }
}

function checkCount(list: readonly unknown[] | null, count: number, key: string, field: string, files: ModelFiles) {
  if (list === null || list.length === count) return
  throw new Error(
    `${files.name}/${MANIFEST_FILE}: ${key} must be as many as ${field} of config.json, ${count}, got ${list.length}`,
  )
}
