// pinball data: the table of datasets, and their rows as files for `pinball features`.
import type { Command } from 'commander'
import type { Dataset } from '../data/dataset.ts'
import { hubFiles, localFiles } from '../data/dataset_files.ts'
import { type DataInput, datasetRows, startReport } from '../data/rows.ts'
import { DATASETS, findDatasets } from '../data/table.ts'
import { writeFileAtomic } from '../files/disk.ts'
import { gzip } from '../files/gzip.ts'
import { encodeJsonl } from '../files/jsonl.ts'
import { datasetDocument, datasetReport, rowsReport } from '../report/datasets.ts'
import { claimOutputs } from './claims.ts'
import { checkOption, parseOut, usageError, wholeNumber } from './options.ts'
import { print, printJson } from './output.ts'
import { startFetches, startProgress } from './progress.ts'

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
const NO_ROW = 'no row of these files can be used; pinball data list says what the datasets hold'

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
    .action(async ({ json }: { json?: boolean }) =>
      json ? printJson({ datasets: DATASETS.map(datasetDocument) }) : print(datasetReport(DATASETS)),
    )
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

async function rows(options: RowsOptions): Promise<void> {
  const { out, data, seed, json } = options
  const datasets = checkOption('--dataset', () => findDatasets(options.dataset))
  if (data && datasets.length > 1) {
    usageError(`--data: its files are of one dataset, --dataset names ${datasets.length}`)
  }
  await claimOutputs({ inputs: { '--data': data }, files: { '--out': out } })
  const start = performance.now()
  const inputs: DataInput[] = []
  const commits: Record<string, string> = {}
  for (const dataset of datasets) {
    const { commit, files } = data ? { commit: null, files: await localFiles(data) } : await fetched(dataset)
    inputs.push({ dataset, files })
    if (commit !== null) commits[dataset.name] = commit
  }
  const limit = options.limit ?? (datasets[0].kind === 'attributes' ? LIMIT : Infinity)
  const report = startReport()
  const progress = startProgress('MB', 'MB')
  const onProgress = (bytes: number, total: number) => progress.update(Math.round(bytes / 1e6), Math.round(total / 1e6))
  try {
    const found = datasetRows(inputs, { limit, seed, onProgress }, report)
    const lines = encodeJsonl(found, NO_ROW)
    await writeFileAtomic(out, out.endsWith('.gz') ? gzip(lines) : lines)
  } finally {
    progress.end()
  }
  if (json) {
    await printJson({ out, kind: datasets[0].kind, limit: limit === Infinity ? null : limit, seed, commits, ...report })
  } else await print(rowsReport(report, out, (performance.now() - start) / 1000))
}

/** Fetches what is not here of a dataset, with a progress line for each file. */
async function fetched(dataset: Dataset): ReturnType<typeof hubFiles> {
  const progress = startFetches()
  return hubFiles(dataset, progress.update).finally(progress.end)
}
