// What `pinball fit` reads: features by blocks, labels with their names and weights, from safetensors, .npy, CSV or Parquet.
import { createHash } from 'node:crypto'
import { basename, extname } from 'node:path'
import { type Command, CommanderError } from 'commander'
import { readCsv } from '../files/csv.ts'
import { openFile } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import { openNpy } from '../files/npy.ts'
import { openParquet } from '../files/parquet.ts'
import type { Source } from '../files/source.ts'
import {
  arrayBlocks,
  type ColumnChoice,
  type FeatureBlocks,
  readFloats,
  readRowNumbers,
  type StoredArray,
  type Table,
} from '../files/table.ts'
import { isName } from '../reward/manifest.ts'
import { checkFinite, openRatings, readWeights } from '../reward/rating_file.ts'
import { claimOutputs } from './claims.ts'
import { listFeatureFiles, openFiles } from './feature_files.ts'
import { partialName } from './fit_partial.ts'
import {
  parseFeatures,
  parseLabelRows,
  parseLabels,
  parseNames,
  parseOut,
  parseWeights,
  usageError,
} from './options.ts'
import { startStatus } from './progress.ts'

/** The options that `problemOptions` adds: what to read, and the file of the heads. */
export interface ProblemOptions {
  /** Files, or folders of them. */
  readonly features: readonly string[]
  readonly out: string
  /** Names of the labels' columns, for safetensors files that do not say them. */
  readonly attributes?: readonly string[]
  readonly labels?: string
  readonly labelRows?: string
  readonly weights?: string
  readonly columns?: string
}

/** Features and labels of a fit; L labels per attribute, one for each feature row where there is no `rowIndex`. */
export interface Problem {
  readonly features: FeatureBlocks
  /** Names of the feature columns, where the file has them. */
  readonly columns: string[] | null
  readonly attributes: string[]
  /** [L, M]; NaN is a missing label. */
  readonly labels: Float32Array
  /** Feature row of each label [L]. */
  readonly rowIndex?: Uint32Array
  /** Weight of each label [L]. */
  readonly weights?: Float32Array
  /** Of the first file of features. */
  readonly metadata: Readonly<Record<string, string>>
  /** What a later run compares to know that it reads the same: features by size and sample, labels whole. */
  readonly fingerprint: { readonly bytes: number; readonly features: string; readonly labels: string }
  close(): Promise<void>
}

type Parts = Omit<Problem, 'fingerprint' | 'close'> & { readonly release?: () => void }

/** Adds the options for a fit to features. */
export function problemOptions(command: Command): Command {
  return command
    .requiredOption(
      '--features <files...>',
      'features: safetensors files or folders of them, or one .npy, .csv or .parquet file',
      parseFeatures,
    )
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--attributes <names>', 'names of the labels, for safetensors files that do not say them', parseNames)
    .option('--labels <names>', 'attributes or columns to fit, with commas; or an .npy file', parseLabels)
    .option('--label-rows <file>', '.npy file: the feature row of each label (several labels a row)', parseLabelRows)
    .option('--weights <name>', 'column, or .npy file, with a weight for each label', parseWeights)
    .option('--columns <names>', 'feature columns of a table, with commas (default: all that are left)')
}

/** Throws where options do not go with the kind of file that --features names, or --out cannot be written, before any is opened. */
export async function checkProblemOptions(options: ProblemOptions): Promise<void> {
  const [first, ...others] = options.features
  const kind = kindOf(first)
  const other = others.find((file) => kind !== 'safetensors' || kindOf(file) !== kind)
  if (other !== undefined) {
    usageError(`--features: only safetensors files go together, got ${show(first)} and ${show(other)}`)
  }
  const allowed = { safetensors: ['labels', 'attributes'], npy: ['labels', 'labelRows', 'weights'] }[
    kind as string
  ] ?? ['labels', 'weights', 'columns']
  const flags = {
    attributes: '--attributes',
    labels: '--labels',
    labelRows: '--label-rows',
    weights: '--weights',
    columns: '--columns',
  }
  for (const [key, flag] of Object.entries(flags)) {
    if (options[key as keyof ProblemOptions] === undefined || allowed.includes(key)) continue
    usageError(`${flag} does not go with ${NAMES[kind]} of features${key === 'attributes' ? '' : (HINTS[kind] ?? '')}`)
  }
  if (kind === 'npy' && options.labels === undefined) usageError('--labels: must name the .npy file of the labels')
  if ((kind === 'csv' || kind === 'parquet') && options.labels === undefined) {
    usageError('--labels: must name the columns that are labels, with commas')
  }
  const { out, features, labels, labelRows, weights } = options
  await claimOutputs({
    inputs: {
      '--features': await listFeatureFiles(features),
      '--labels': labels,
      '--label-rows': labelRows,
      '--weights': weights,
    },
    files: { '--out': out },
    folders: { '--out': partialName(out) },
  })
}

type Kind = 'safetensors' | 'npy' | 'csv' | 'parquet'
const NAMES: Record<Kind, string> = {
  safetensors: 'a safetensors file',
  npy: 'an .npy file',
  csv: 'a CSV file',
  parquet: 'a Parquet file',
}
const HINTS: Partial<Record<Kind, string>> = { safetensors: ', which holds label_rows and label_weights itself' }

function kindOf(file: string): Kind {
  const ending = extname(file).toLowerCase()
  if (ending === '.npy') return 'npy'
  if (ending === '.csv' || ending === '.tsv') return 'csv'
  return ending === '.parquet' || ending === '.pq' ? 'parquet' : 'safetensors'
}

/** Opens the features and reads the labels. The problem must be closed. */
export async function openProblem(options: ProblemOptions): Promise<Problem> {
  const kind = kindOf(options.features[0])
  const sources = await openFiles(kind === 'safetensors' ? await listFeatureFiles(options.features) : options.features)
  const progress = readingProgress(sources)
  const close = async () => {
    progress.end()
    for (const source of sources) await source.close()
  }
  try {
    const { release, ...parts } = await READERS[kind](progress.sources, options)
    checkLabels(parts, options.labels !== undefined && kind === 'npy' ? options.labels : parts.features.name)
    const fingerprint = {
      bytes: sources.reduce((sum, source) => sum + source.byteLength, 0),
      features: await sampleHashes(sources),
      labels: labelHash(parts),
    }
    return {
      ...parts,
      fingerprint,
      close() {
        release?.()
        return close()
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** The sources, with a status line that says how much of them has been read. */
function readingProgress(sources: readonly Source[]): { sources: Source[]; end(): void } {
  const status = startStatus()
  const total = sources.reduce((sum, { byteLength }) => sum + byteLength, 0)
  let bytes = 0
  return {
    sources: sources.map((source) => ({
      ...source,
      read(offset, length, into) {
        bytes += length
        status.show(() => `${printable(source.name)}: ${Math.min(100, Math.floor((100 * bytes) / total))} % read`)
        return source.read(offset, length, into)
      },
      async close() {},
    })),
    end: status.end,
  }
}

const READERS: Record<Kind, (sources: Source[], options: ProblemOptions) => Promise<Parts>> = {
  safetensors: readSafetensors,
  npy: ([source], options) => readNpy(source, options),
  csv: ([source], options) => readTable(source, options, (choice) => readCsv(source, choice, separator(source.name))),
  parquet: ([source], options) => readTable(source, options, (choice) => openParquet(source, choice)),
}

function separator(file: string): string {
  return extname(file).toLowerCase() === '.tsv' ? '\t' : ','
}

async function readSafetensors(sources: Source[], options: ProblemOptions): Promise<Parts> {
  const { features, attributes, labels, rowIndex, weights, metadata } = await openRatings(sources, options)
  return {
    features,
    columns: null,
    ...selectAttributes(labels, attributes, options.labels, features.name),
    rowIndex,
    weights,
    metadata,
  }
}

/** The labels [L, M] of the attributes that --labels names; all without it. */
function selectAttributes(
  labels: Float32Array,
  names: string[],
  text: string | undefined,
  file: string,
): Pick<Problem, 'attributes' | 'labels'> {
  if (text === undefined) return { attributes: names, labels }
  const attributes = optionNames('--labels', text)
  const places = attributes.map((name) => {
    const m = names.indexOf(name)
    if (m < 0) throw new Error(`${file}: has no labels ${show(name)} (--labels), it has ${names.map(show).join(', ')}`)
    return m
  })
  const count = labels.length / names.length
  const chosen = new Float32Array(count * places.length)
  for (let n = 0; n < count; n++) {
    for (const [at, m] of places.entries()) chosen[n * places.length + at] = labels[n * names.length + m]
  }
  return { attributes, labels: chosen }
}

function optionNames(option: string, text: string): string[] {
  try {
    return parseNames(text)
  } catch (error) {
    if (error instanceof CommanderError) usageError(`${option}: ${error.message}`)
    throw error
  }
}

async function readNpy(source: Source, options: ProblemOptions): Promise<Parts> {
  const array = await openNpy(source)
  if (array.shape.length !== 2) {
    throw new Error(`${source.name}: features must have two dimensions, got ${show(array.shape)}`)
  }
  const [rows, columns] = array.shape
  if (rows === 0 || columns === 0) throw new Error(`${source.name}: features are empty: ${show(array.shape)}`)
  const { labelRows, weights } = options
  const labelFile = options.labels as string
  const rowIndex =
    labelRows === undefined ? undefined : await withNpy(labelRows, (numbers) => readRowNumbers(numbers, rows))
  const count = rowIndex?.length ?? rows
  const labels = await withNpy(labelFile, async (stored) => {
    const [length, width = 1] = stored.shape
    if (stored.shape.length < 1 || stored.shape.length > 2 || length !== count || width === 0) {
      const why = rowIndex ? `${labelRows} has ${count} entries` : `${source.name} has ${rows} rows`
      throw new Error(`${labelFile}: labels must be [${count}] or [${count}, M], as ${why}, got ${show(stored.shape)}`)
    }
    return { values: await readFloats(stored, 0, length * width), flat: stored.shape.length === 1, width }
  })
  const name = basename(labelFile, extname(labelFile))
  const attributes = labels.flat ? [name] : Array.from({ length: labels.width }, (_, m) => `${name}_${m}`)
  if (!isName(name)) throw new Error(`${labelFile}: the name of the file names the labels, so it must be printable`)
  return {
    features: arrayBlocks(array),
    columns: null,
    attributes,
    labels: labels.values,
    ...(rowIndex && { rowIndex }),
    ...(weights !== undefined && { weights: await withNpy(weights, (stored) => readWeights(stored, count)) }),
    metadata: {},
  }
}

async function withNpy<T>(file: string, work: (array: StoredArray) => Promise<T>): Promise<T> {
  const source = await openFile(file)
  try {
    return await work(await openNpy(source))
  } finally {
    await source.close()
  }
}

async function readTable(
  source: Source,
  options: ProblemOptions,
  read: (choice: ColumnChoice) => Promise<Table>,
): Promise<Parts> {
  const attributes = optionNames('--labels', options.labels as string)
  const columns = options.columns === undefined ? undefined : optionNames('--columns', options.columns)
  const table = await read({ labels: attributes, weights: options.weights, columns })
  return {
    features: { ...table.features, name: source.name },
    columns: table.columns,
    attributes,
    labels: table.labels,
    ...(table.weights && { weights: table.weights }),
    metadata: {},
    release: table.release,
  }
}

function checkLabels(
  { labels, attributes, weights }: Pick<Parts, 'labels' | 'attributes' | 'weights'>,
  file: string,
): void {
  const count = attributes.length
  checkFinite(labels, attributes, file)
  for (const [m, name] of attributes.entries()) {
    let [found, weight] = [false, 0]
    for (let at = m, n = 0; at < labels.length; at += count, n++) {
      if (Number.isNaN(labels[at])) continue
      found = true
      weight += weights ? weights[n] : 1
    }
    if (!found) throw new Error(`${file}: labels of ${show(name)} are all missing; leave it out of --labels`)
    if (!(weight > 0)) throw new Error(`${file}: labels of ${show(name)} all have weight 0; leave it out of --labels`)
  }
}

// A file up to 16 MiB is hashed whole, of a larger one this many pieces, evenly spread, the first and the last among them.
const PIECES = 1024
const PIECE_BYTES = 16384

/** SHA-256 of a file, or of a sample of a large one. */
export async function sampleHash(source: Source): Promise<string> {
  const hash = createHash('sha256')
  const { byteLength } = source
  if (byteLength <= PIECES * PIECE_BYTES) return hash.update(await source.read(0, byteLength)).digest('hex')
  const piece = new Uint8Array(PIECE_BYTES)
  for (let i = 0; i < PIECES; i++) {
    const at = Math.floor(((byteLength - PIECE_BYTES) * i) / (PIECES - 1))
    hash.update(await source.read(at, PIECE_BYTES, piece))
  }
  return hash.digest('hex')
}

/** One hash for all: of one file its own. */
async function sampleHashes(sources: readonly Source[]): Promise<string> {
  const hashes: string[] = []
  for (const source of sources) hashes.push(await sampleHash(source))
  return hashes.length === 1 ? hashes[0] : createHash('sha256').update(hashes.join(' ')).digest('hex')
}

function labelHash({ labels, rowIndex, weights }: Pick<Parts, 'labels' | 'rowIndex' | 'weights'>): string {
  const hash = createHash('sha256')
  for (const array of [labels, rowIndex, weights]) {
    hash.update(`${array?.length ?? 'none'} `)
    if (array) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
  }
  return hash.digest('hex')
}
