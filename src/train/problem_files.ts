// Problems of files: features and labels from safetensors, .npy, CSV or Parquet, told apart by the endings of their names.
import { readCsv } from '../files/csv.ts'
import { digest, sampleHash } from '../files/hash.ts'
import { show } from '../files/json.ts'
import { openNpy } from '../files/npy.ts'
import { openParquet } from '../files/parquet.ts'
import type { Source } from '../files/source.ts'
import { arrayBlocks, type ColumnChoice, readFloats, readRowNumbers, type Table } from '../files/table.ts'
import { isName } from '../reward/manifest.ts'
import { openRatings, readWeights } from '../reward/rating_file.ts'
import { makeProblem, type Problem, ratingsProblem } from './problem.ts'

export type FeatureKind = 'safetensors' | 'npy' | 'csv' | 'parquet'

/** What a file of features is, by the ending of its name; all that have no other ending are safetensors. */
export function featureKind(name: string): FeatureKind {
  const ending = /\.[^./\\]+$/.exec(name)?.[0].toLowerCase()
  if (ending === '.npy') return 'npy'
  if (ending === '.csv' || ending === '.tsv') return 'csv'
  return ending === '.parquet' || ending === '.pq' ? 'parquet' : 'safetensors'
}

export interface ProblemFiles {
  /** Files of ratings, which are read as one, or one .npy, CSV or Parquet file. */
  readonly features: readonly Source[]
  /** Attributes of files of ratings, or columns of a table, to fit. A table needs it, .npy has none. */
  readonly labels?: readonly string[]
  /** Names of the labels [M], for files of ratings that do not say them. */
  readonly attributes?: readonly string[]
  /** Of a table: the column of weights, and those of the features; default: all that are neither labels nor weights. */
  readonly weights?: string
  readonly columns?: readonly string[]
  /** Arrays beside .npy features: labels [L] or [L, M], which are needed, feature rows [L] and weights [L] of the labels. */
  readonly arrays?: { readonly labels: Source; readonly labelRows?: Source; readonly weights?: Source }
}

/** A problem whose features may be in memory until `release` is called; a second time does nothing. */
export type FileProblem = Problem & { release(): void }

/**
 * Reads the labels of a problem, and gets its features ready to be read by blocks. Sources stay open and are the caller's to close,
 * once the features have been read. Throws on whatever is missing, damaged or does not fit, naming the file.
 */
export async function readProblem(files: ProblemFiles): Promise<FileProblem> {
  const [first, ...others] = files.features
  if (first === undefined) throw new Error('problem: at least one file of features is needed, got none')
  const kind = featureKind(first.name)
  if (others.length > 0 && kind !== 'safetensors') {
    throw new Error(`${first.name}: only safetensors files go together, got ${files.features.length} files`)
  }
  const hashes: string[] = []
  for (const source of files.features) hashes.push(`${source.byteLength} ${await sampleHash(source)}`)
  const hash = await digest(new TextEncoder().encode(hashes.join(' ')))
  if (kind === 'safetensors') {
    const { features, labels: select, attributes } = files
    return { ...ratingsProblem(await openRatings(features, { attributes }), { select, hash }), release() {} }
  }
  if (kind === 'npy') return { ...(await readArrays(first, files, hash)), release() {} }
  return readTable(first, files, hash, (choice) =>
    kind === 'parquet' ? openParquet(first, choice) : readCsv(first, choice, /\.tsv$/i.test(first.name) ? '\t' : ','),
  )
}

async function readArrays(source: Source, { arrays }: ProblemFiles, hash: string): Promise<Problem> {
  if (arrays === undefined) throw new Error(`${source.name}: needs labels in an .npy file, got none`)
  const array = await openNpy(source)
  if (array.shape.length !== 2) {
    throw new Error(`${source.name}: features must have two dimensions, got ${show(array.shape)}`)
  }
  const [rows, columns] = array.shape
  if (rows === 0 || columns === 0) throw new Error(`${source.name}: features are empty: ${show(array.shape)}`)
  const { labels: labelFile, labelRows, weights } = arrays
  const rowIndex = labelRows && (await readRowNumbers(await openNpy(labelRows), rows))
  const count = rowIndex?.length ?? rows
  const stored = await openNpy(labelFile)
  const [length, width = 1] = stored.shape
  if (stored.shape.length < 1 || stored.shape.length > 2 || length !== count || width === 0) {
    const why = rowIndex ? `${labelRows!.name} has ${count} entries` : `${source.name} has ${rows} rows`
    throw new Error(
      `${labelFile.name}: labels must be [${count}] or [${count}, M], as ${why}, got ${show(stored.shape)}`,
    )
  }
  const labels = await readFloats(stored, 0, length * width)
  const name = nameOf(labelFile)
  const ratings = {
    attributes: stored.shape.length === 1 ? [name] : Array.from({ length: width }, (_, m) => `${name}_${m}`),
    labels,
    ...(rowIndex && { rowIndex }),
    ...(weights && { weights: await readWeights(await openNpy(weights), count) }),
  }
  return makeProblem(arrayBlocks(array), ratings, { hash, labelsName: labelFile.name })
}

/** The name of an array's file without folders and ending, which names its labels. */
function nameOf({ name }: Source): string {
  const plain = name.replace(/^.*[/\\]/s, '').replace(/(?<=.)\.[^.]*$/s, '')
  if (isName(plain)) return plain
  throw new Error(`${name}: the name of the file names the labels, so it must be printable`)
}

async function readTable(
  source: Source,
  { labels, weights, columns }: ProblemFiles,
  hash: string,
  read: (choice: ColumnChoice) => Promise<Table>,
): Promise<FileProblem> {
  if (labels === undefined) throw new Error(`${source.name}: needs the names of the columns that are labels, got none`)
  const table = await read({ labels, weights, columns })
  const ratings = { attributes: labels, labels: table.labels, ...(table.weights && { weights: table.weights }) }
  const features = { ...table.features, name: source.name }
  try {
    return { ...makeProblem(features, ratings, { columns: table.columns, hash }), release: table.release }
  } catch (error) {
    table.release()
    throw error
  }
}
