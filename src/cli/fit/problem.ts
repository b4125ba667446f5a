// What `pinball fit` and `pinball ridge` read: their options, which of them go together, and the files opened.
import type { Command } from 'commander'
import { listFeatureFiles, withFiles } from '../../files/file_list.ts'
import { printable, show } from '../../files/json.ts'
import { type Source, watchReads } from '../../files/source.ts'
import { type FeatureKind, type FileProblem, featureKind, readProblem } from '../../train/problem_files.ts'
import { claimOutputs } from '../claims.ts'
import {
  checkOption,
  parseFeatures,
  parseLabelRows,
  parseLabels,
  parseNames,
  parseOut,
  parseWeights,
  usageError,
} from '../options.ts'
import { startStatus } from '../progress.ts'

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

/** Adds the options for a fit to features. */
export function problemOptions(command: Command): Command {
  return command
    .requiredOption(
      '--features <files...>',
      'features: safetensors files or folders of them, or one .npy, .csv or .parquet file',
      parseFeatures,
    )
    .requiredOption('--out <file>', 'safetensors file to write, or for "pinball fit" a folder', parseOut)
    .option('--attributes <names>', 'names of the labels, for safetensors files that do not say them', parseNames)
    .option('--labels <names>', 'attributes or columns to fit, with commas; or an .npy file', parseLabels)
    .option('--label-rows <file>', '.npy file: the feature row of each label (several labels a row)', parseLabelRows)
    .option('--weights <name>', 'column, or .npy file, with a weight for each label', parseWeights)
    .option('--columns <names>', 'feature columns of a table, with commas (default: all that are left)')
}

const FLAGS = {
  attributes: '--attributes',
  labels: '--labels',
  labelRows: '--label-rows',
  weights: '--weights',
  columns: '--columns',
} as const

type Flag = keyof typeof FLAGS

interface KindRules {
  readonly name: string
  readonly allowed: readonly Flag[]
  /** What --labels must be, where it is needed. */
  readonly labels?: string
  readonly hint?: string
}

const TABLE = {
  allowed: ['labels', 'weights', 'columns'],
  labels: 'must name the columns that are labels, with commas',
} as const

const RULES: Record<FeatureKind, KindRules> = {
  safetensors: {
    name: 'a safetensors file',
    allowed: ['labels', 'attributes'],
    hint: ', which holds label_rows and label_weights itself',
  },
  npy: {
    name: 'an .npy file',
    allowed: ['labels', 'labelRows', 'weights'],
    labels: 'must name the .npy file of the labels',
  },
  csv: { name: 'a CSV file', ...TABLE },
  parquet: { name: 'a Parquet file', ...TABLE },
}

/** Throws where options do not go with the kind of file that --features names. */
function checkKind(options: ProblemOptions): FeatureKind {
  const [first, ...others] = options.features
  const kind = featureKind(first)
  const other = others.find((file) => kind !== 'safetensors' || featureKind(file) !== kind)
  if (other !== undefined) {
    usageError(`--features: only safetensors files go together, got ${show(first)} and ${show(other)}`)
  }
  const { name, allowed, labels, hint = '' } = RULES[kind]
  for (const flag of Object.keys(FLAGS) as Flag[]) {
    if (options[flag] === undefined || allowed.includes(flag)) continue
    usageError(`${FLAGS[flag]} does not go with ${name} of features${flag === 'attributes' ? '' : hint}`)
  }
  if (labels !== undefined && options.labels === undefined) usageError(`--labels: ${labels}`)
  return kind
}

function optionNames(option: string, text: string | undefined): string[] | undefined {
  return text === undefined ? undefined : checkOption(option, () => parseNames(text))
}

/** A problem, and what is to be called once its features have been read for the last time. */
export type OpenedProblem = FileProblem & { loaded(): void }

/**
 * Opens the problem of the options, runs `work` with it, and closes the files. Ends the command as wrong usage where options do not go
 * together, or an output is an input: --out, which may be a folder, and `partial`, a folder beside it where the command keeps work.
 */
export async function withProblem<T>(
  options: ProblemOptions,
  work: (problem: OpenedProblem) => Promise<T>,
  { partial, folder }: { readonly partial?: string; readonly folder?: string } = {},
): Promise<T> {
  const kind = checkKind(options)
  const { out, attributes, labels, labelRows, weights } = options
  const paths = kind === 'safetensors' ? await listFeatureFiles(options.features) : options.features
  const arrays = kind === 'npy' ? { labels, labelRows, weights } : {}
  const given = { '--labels': arrays.labels, '--label-rows': arrays.labelRows, '--weights': arrays.weights }
  await claimOutputs({
    inputs: { '--features': paths, ...given },
    files: { '--out': folder === undefined ? out : undefined },
    folders: { '--out': [folder, partial] },
  })
  const names = {
    attributes,
    labels: kind === 'npy' ? undefined : optionNames('--labels', labels),
    columns: optionNames('--columns', options.columns),
  }
  const beside = Object.values(arrays).filter((path) => path !== undefined)
  return withFiles([...paths, ...beside], async (opened) => {
    const progress = readingProgress(opened.slice(0, paths.length))
    const rest = opened.slice(paths.length)
    const next = (path: string | undefined) => (path === undefined ? undefined : rest.shift())
    try {
      const problem = await readProblem({
        features: progress.sources,
        ...names,
        ...(kind === 'npy'
          ? { arrays: { labels: next(labels)!, labelRows: next(labelRows), weights: next(weights) } }
          : { weights }),
      })
      const loaded = () => {
        progress.end()
        problem.release()
      }
      return await work({ ...problem, loaded }).finally(loaded)
    } finally {
      progress.end()
    }
  })
}

/** The sources, with a status line that says how much of them has been read. */
function readingProgress(sources: readonly Source[]): { sources: Source[]; end(): void } {
  const status = startStatus()
  const total = sources.reduce((sum, { byteLength }) => sum + byteLength, 0)
  let bytes = 0
  return {
    sources: sources.map((source) =>
      watchReads(source, (length) => {
        bytes += length
        status.show(() => `${printable(source.name)}: ${Math.min(100, Math.floor((100 * bytes) / total))} % read`)
      }),
    ),
    end: status.end,
  }
}
