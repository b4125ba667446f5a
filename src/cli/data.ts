// pinball data: the table of datasets, and their rows as files for `pinball features`.
import type { Command } from 'commander'
import type { AttributeSet, Dataset, RankedSet } from '../data/dataset.ts'
import {
  attributeRows,
  type DataFile,
  type DataInput,
  type OutputRow,
  type RowReport,
  rankedRows,
  startReport,
} from '../data/rows.ts'
import { describeNormalisation, describeScale } from '../data/scale.ts'
import { DATASETS, findDatasets } from '../data/table.ts'
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { gzip } from '../files/gzip.ts'
import { openHub } from '../files/hub_cache.ts'
import { printable } from '../files/json.ts'
import { claimOutputs } from './claims.ts'
import { table } from './draw.ts'
import { parseOut, usageError, wholeNumber } from './options.ts'
import { print, printJson } from './output.ts'
import { duration, startProgress } from './progress.ts'

interface RowsOptions {
  readonly dataset: string[]
  readonly data?: string[]
  readonly out: string
  readonly limit?: number
  readonly seed: number
  readonly json?: boolean
}

/** What the paper takes of each attribute. */
const LIMIT = 60_000

const EXAMPLES = `
Without --data the files come from the Hugging Face hub. They are kept in PINBALL_CACHE (~/.cache/pinball), checked against the
hub's hashes, and fetched on where a download was cut off. HF_ENDPOINT names a mirror, HF_TOKEN a token for gated sets,
HF_HUB_OFFLINE=1 takes only what is there.

Rows of ratings are {"prompt", "response", ATTRIBUTE: number, "id"} (or "messages"), in [0, 1]; where a text was rated several times,
its label is a list. Of each attribute the ${LIMIT} texts with the smallest seeded hashes are drawn. Rows of preferences are
{"prompt", "chosen", "rejected", "subset", "id"}. Rows that cannot be used are counted with their reasons.

Examples:
  $ pinball data list
  $ pinball data rows --dataset attributes --out ratings.jsonl.gz
  $ pinball data rows --dataset helpsteer,ultrafeedback --limit 10000 --seed 2 --out ratings.jsonl
  $ pinball data rows --dataset preferences --out pairs.jsonl.gz
  $ pinball data rows --dataset hh-rlhf --data helpful-base/train.jsonl.gz --out pairs.jsonl
`

/** Adds the command to the program. */
export function addData(program: Command): void {
  const data = program.command('data').description('datasets of ratings and preferences').addHelpText('after', EXAMPLES)
  data
    .command('list')
    .description('the datasets that are known, with their scales and what is assumed about them')
    .option('--json', 'print one JSON document')
    .action(async ({ json }: { json?: boolean }) => (json ? printJson({ datasets: DATASETS.map(describe) }) : list()))
  data
    .command('rows')
    .description('write the rows of datasets, ready for pinball features')
    .requiredOption('--dataset <names>', 'names with commas; attributes or preferences for all of the paper', parseSets)
    .requiredOption('--out <file>', 'JSON Lines file to write; .gz compresses it', parseOut)
    .option('--data <files...>', 'files of the dataset: JSONL, JSON (plain or gzip) or Parquet (default: the hub)')
    .option(
      '--limit <n>',
      `rows drawn of each attribute (default: ${LIMIT}), or of each set of preferences (default: all)`,
      wholeNumber(1, 1e9),
    )
    .option('--seed <n>', 'what the draw depends on, beside the texts', wholeNumber(0, 2 ** 32 - 1), 1)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: RowsOptions) => rows(options))
}

function parseSets(text: string): string[] {
  return text.split(',').map((name) => name.trim())
}

/** An entry of the table as plain data. */
function describe(dataset: Dataset): Record<string, unknown> {
  const { read, columns, ...entry } = dataset
  if (dataset.kind !== 'attributes') return { ...entry, columns }
  const attributes = dataset.attributes.map(({ name, column, scale }) => ({
    name,
    column,
    scale: describeScale(scale),
    normalisation: describeNormalisation(scale),
  }))
  return { ...entry, columns, attributes }
}

async function list(): Promise<void> {
  const cells = DATASETS.map(({ name, kind, hub, size, licence }) => [
    name,
    kind,
    hub,
    size === null ? '-' : `${size}`,
    licence ?? 'not stated',
  ])
  await print(table([['dataset', 'kind', 'hub', 'rows', 'licence'], ...cells], [3]))
  const attributes = DATASETS.flatMap((dataset) =>
    dataset.kind === 'attributes'
      ? dataset.attributes.map(({ name, scale }) => [
          name,
          dataset.name,
          describeScale(scale),
          describeNormalisation(scale),
        ])
      : [],
  )
  await print(`\n${table([['attribute', 'dataset', 'raw', 'label'], ...attributes], [])}`)
  const assumed = DATASETS.flatMap((dataset) => dataset.assumed.map((what) => `  ${dataset.name}: ${what}\n`))
  await print(`\nAssumed, as it is not published:\n${assumed.join('')}`)
}

async function rows(options: RowsOptions): Promise<void> {
  const { out, data, seed, json } = options
  const datasets = chosen(options.dataset)
  if (data && datasets.length > 1) {
    usageError(`--data: its files are of one dataset, --dataset names ${datasets.length}`)
  }
  await claimOutputs({ inputs: { '--data': data }, files: { '--out': out } })
  const start = performance.now()
  const inputs: DataInput[] = []
  const commits: Record<string, string> = {}
  for (const dataset of datasets) {
    const { commit, files } = data ? { commit: null, files: await localFiles(data) } : await hubFiles(dataset)
    inputs.push({ dataset, files })
    if (commit !== null) commits[dataset.name] = commit
  }
  const rated = datasets[0].kind === 'attributes'
  const limit = options.limit ?? (rated ? LIMIT : Infinity)
  const report = startReport()
  const progress = startProgress('MB', 'MB')
  const onProgress = (bytes: number, total: number) => progress.update(Math.round(bytes / 1e6), Math.round(total / 1e6))
  try {
    const found = rated
      ? attributeRows(inputs as DataInput<AttributeSet>[], { limit, seed, onProgress }, report)
      : rankedRows(inputs as DataInput<RankedSet>[], { limit, seed, onProgress }, report)
    const lines = encode(found)
    await writeFileAtomic(out, out.endsWith('.gz') ? gzip(lines) : lines)
  } finally {
    progress.end()
  }
  if (json) {
    await printJson({ out, kind: datasets[0].kind, limit: limit === Infinity ? null : limit, seed, commits, ...report })
  } else await summarise(out, report, (performance.now() - start) / 1000)
}

function chosen(names: readonly string[]): Dataset[] {
  try {
    return findDatasets(names)
  } catch (error) {
    return usageError(`--dataset: ${(error as Error).message}`)
  }
}

async function localFiles(paths: readonly string[]): Promise<DataFile[]> {
  const files: DataFile[] = []
  for (const path of paths) {
    const source = await openFile(path)
    await source.close()
    files.push({ path, size: source.byteLength, open: () => openFile(path) })
  }
  return files
}

/** Fetches the files of a dataset that are not here yet. */
export async function hubFiles({ hub, files: pattern }: Dataset): Promise<{ commit: string; files: DataFile[] }> {
  let line: { path: string; progress: ReturnType<typeof startProgress> } | null = null
  const onProgress = (path: string, bytes: number, total: number) => {
    if (line?.path !== path) {
      line?.progress.end()
      line = { path, progress: startProgress(`MB of ${printable(`${hub}/${path}`)}`, 'MB') }
    }
    line.progress.update(Math.round(bytes / 1e6), Math.round(total / 1e6))
  }
  const found = await openHub({ type: 'dataset', name: hub }, pattern, { onProgress })
  try {
    for (const file of found.files) await (await file.open()).close()
  } finally {
    ;(line as { progress: { end(): void } } | null)?.progress.end()
  }
  return found
}

const CHUNK_CHARACTERS = 2 ** 20

async function* encode(found: AsyncIterable<OutputRow>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  let text = ''
  let empty = true
  for await (const row of found) {
    empty = false
    text += `${JSON.stringify(row)}\n`
    if (text.length < CHUNK_CHARACTERS) continue
    yield encoder.encode(text)
    text = ''
  }
  if (empty) throw new Error('no row of these files can be used; pinball data list says what the datasets hold')
  yield encoder.encode(text)
}

async function summarise(out: string, report: RowReport, seconds: number): Promise<void> {
  const { sets, written, notDrawn, merged, labels } = report
  const cells = Object.entries(sets).map(([name, { records, rows, skipped }]) => {
    const reasons = Object.entries(skipped).map(([reason, count]) => `${count} ${reason}`)
    return [name, `${records}`, `${rows}`, reasons.join('; ') || 'none']
  })
  await print(table([['dataset', 'records', 'rows', 'skipped'], ...cells], [1, 2]))
  const counts = Object.entries(labels).map(([name, count]) => [name, `${count}`])
  if (counts.length > 0) await print(`\n${table([['attribute', 'ratings'], ...counts], [1])}`)
  const less = [
    ...(notDrawn > 0 ? [`${notDrawn} rows not drawn`] : []),
    ...(merged > 0 ? [`${merged} rows joined to others with the same text`] : []),
  ]
  await print(`\n${[`${printable(out)}: ${written} rows`, ...less].join(', ')} (${duration(seconds)})\n`)
}
