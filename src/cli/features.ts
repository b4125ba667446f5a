// pinball features: hidden states of rows, with their labels, or of pairs, as safetensors files for `pinball fit` and `gate`.

import { basename } from 'node:path'
import { type Command, Option } from 'commander'
import { printable, show } from '../files/json.ts'
import { type FeatureModel, loadFeatureModel } from '../reward/features.ts'
import { claimOutputs } from './claims.ts'
import { type Compute, fingerprintModel, withModel } from './engine.ts'
import {
  type Computed,
  chunkTensors,
  computeChunks,
  type FeatureLayout,
  promptSides,
  writeFeatures,
} from './feature_compute.ts'
import {
  type FeatureManifest,
  isFinished,
  manifestName,
  readManifest,
  type Wanted,
  writeManifest,
} from './feature_manifest.ts'
import { type FeatureSettings, openPartial, partialFolder, planChunks, removePartial } from './feature_partial.ts'
import { encodeTaken, reservedName, type SkippedRow, type TakenRows, takeRows } from './feature_rows.ts'
import {
  type DeviceChoice,
  deviceOptions,
  parseInput,
  parseNames,
  parseOut,
  shareOption,
  usageError,
  wholeNumber,
} from './options.ts'
import { note, print, printJson } from './output.ts'
import { duration } from './progress.ts'
import { parseShard, type Shard, shardName, WHOLE } from './shards.ts'

interface FeaturesOptions extends DeviceChoice {
  readonly input: string
  readonly out: string
  readonly labels?: string[]
  readonly weights?: string
  readonly gate?: boolean
  readonly dtype: 'f32' | 'bf16'
  readonly shard?: Shard
  readonly maxLength?: number
  readonly skipInvalid?: boolean
  readonly restart?: boolean
  readonly share: boolean
  readonly json?: boolean
}

const EXAMPLES = `
A row is a rating or a pair, and has an "id" (a text or a whole number) or is called by its number:
  {"prompt": "...", "response": "...", "helpful": 0.8, "harmless": null}
  {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], "helpful": [3, null, 4]}
  {"prompt": "...", "chosen": "...", "rejected": "...", "subset": "..."}
  {"chosen": [{"role": "user", ...}, ...], "rejected": [{"role": "user", ...}, ...]}
A label may be a list, the ratings of several people; the features of the row are there once.

Ratings become "embeddings" [N, D] and, with --labels, "labels" [L, M] (NaN where there is none), with lists also "label_rows" [L] (the
row of each line of labels; else L = N), with --weights "label_weights" [L], with --gate "prompt_embeddings" [N, D]. Pairs become
"embeddings" [N, 2, D], chosen before rejected, "prompt_embeddings" [N, D] ([N, 2, D] where the prompts of a pair differ),
"prompt_ids" [N] and, where all pairs have a subset, "subset_ids" [N].

Beside F.safetensors lies its manifest F.json: ids of the rows, SHA-256 of the file, fingerprint of the model, options. Where both
are there and nothing has changed, nothing is done. Finished chunks are kept in F.safetensors.partial; after Ctrl-C or a crash the
same command goes on from there and writes the same file, bit for bit.

--shard i/n computes the rows of shard i (0 to n - 1) into F-0000i-of-0000n.safetensors; --shard n takes i from JOB_COMPLETION_INDEX
(Kubernetes), SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX. A hash of its id, or of what is scored, says which shard a row is
in. "pinball fit" and "pinball gate" take the folder of the shards.

Examples:
  $ pinball features --input ratings.jsonl --labels helpful,harmless --out ratings.safetensors
  $ pinball features --model ./QRM-Llama3.1-8B --input pairs.jsonl --out pairs.safetensors --dtype bf16 --skip-invalid
  $ pinball features --input ratings.jsonl --labels helpful --weights trust --gate --out ratings.safetensors --json
  $ pinball features --input ratings.jsonl.gz --labels helpful --shard 0/4 --out shards/ratings.safetensors
  $ pinball fit --features shards --out heads.safetensors
`

/** Adds the command to the program. */
export function addFeatures(program: Command): void {
  shareOption(deviceOptions(program.command('features')))
    .description('compute the features of rows or pairs and keep them in a file')
    .requiredOption(
      '--input <file>',
      'rows: JSON Lines or a list (plain or gzip), Parquet; - for standard input',
      parseInput,
    )
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--labels <names>', 'fields of the rows that hold labels, with commas', parseNames)
    .option('--weights <name>', 'field with the weight of the labels of a row, or a list with one for each rating')
    .option('--gate', "also the features of the gate's token (pairs always have them)")
    .addOption(new Option('--dtype <dtype>', 'how features are stored').choices(['f32', 'bf16']).default('f32'))
    .option('--shard <i/n>', 'compute one of n shards, i from 0; n alone: i from the environment', (text) =>
      parseShard(text, process.env),
    )
    .option('--max-length <tokens>', 'longest row (default: what the model takes)', wholeNumber(1, 2 ** 31))
    .option('--skip-invalid', 'leave out rows that are too long or not valid, and say which')
    .option('--restart', 'begin anew, whatever is there of an earlier run')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: FeaturesOptions) => features(options))
}

async function features(options: FeaturesOptions): Promise<void> {
  const { input, labels = [], weights, shard = WHOLE, skipInvalid = false, restart = false } = options
  const reserved = reservedName([...labels, ...(weights === undefined ? [] : [weights])])
  if (reserved !== undefined) {
    usageError(
      `${labels.includes(reserved) ? '--labels' : '--weights'}: ${show(reserved)} is what is scored, not a label`,
    )
  }
  if (weights !== undefined && labels.length === 0) usageError('--weights: needs --labels, whose weights they are')
  const out = shardName(options.out, options.shard)
  await claimOutputs({
    inputs: { '--input': input, '--model': options.model },
    files: { '--out': [out, manifestName(out)] },
    folders: { '--out': partialFolder(out) },
  })
  const before = await readManifest(manifestName(out))
  const taken = await takeRows(input, { labels, weights, shard, skipInvalid })
  const start = performance.now()
  const want = (fingerprint: string): Wanted => ({
    shard: shard.index,
    shards: shard.count,
    fingerprint,
    input: taken.hash,
    options: chosenOptions(options),
  })
  if (before && !restart && (await isFinished(out, before, want(await fingerprintModel(options))))) {
    await removePartial(partialFolder(out))
    note(`note: ${printable(out)} is there, made of the same; --restart makes it anew`)
    return report(before, { out, ms: performance.now() - start, computed: null }, options)
  }
  const made = await withModel(options, loadFeatureModel, async (model, device, compute) =>
    make({ model, device: device.name, compute, taken, wanted: want(await model.fingerprint()), out }, options),
  )
  // Only now: an error is the one line on standard error.
  tell(taken, made.skipped)
  await report(made.manifest, { out, ms: performance.now() - start, computed: made.computed }, options)
}

/** The options that the file depends on. */
function chosenOptions({ labels, weights, gate, dtype, maxLength, skipInvalid }: FeaturesOptions) {
  return {
    labels: labels ?? [],
    weights: weights ?? null,
    gate: gate ?? false,
    dtype,
    max_length: maxLength ?? null,
    skip_invalid: skipInvalid ?? false,
  }
}

interface Job {
  readonly model: FeatureModel
  readonly device: string
  readonly compute: Compute
  readonly taken: TakenRows
  readonly wanted: Wanted
  readonly out: string
}

async function make({ model, device, compute, taken, wanted, out }: Job, options: FeaturesOptions) {
  const { labels = [], weights, dtype, maxLength, skipInvalid = false, restart = false } = options
  const { pairs } = taken
  const gate = options.gate === true || pairs
  const encoded = encodeTaken(model, taken, { gate, maxLength, skipInvalid })
  const { rows } = encoded
  checkSubsets(taken)
  const skipped = [...taken.skipped, ...encoded.skipped]
  if (rows.length === 0 && wanted.shards === 1) {
    throw new Error(`${options.input}: has no row that is valid; the first: ${skipped[0].reason}`)
  }
  const { hidden } = model.config
  const layout: FeatureLayout = {
    pairs,
    dtype,
    prompts: promptSides(rows, pairs, gate),
    labels,
    weights: weights !== undefined,
  }
  const chunks = planChunks(rows.map((row) => row.tokens))
  const folder = partialFolder(out)
  const partial = await openPartial(folder, partialSettings(wanted, device), {
    chunks,
    tensors: chunkTensors(layout, hidden),
    restart,
  })
  const there = chunks.filter((_, i) => partial.has(i))
  if (there.length > 0) {
    const count = there.reduce((sum, chunk) => sum + chunk.count, 0)
    note(`note: features of ${count} of ${rows.length} rows were there already, in ${printable(folder)}`)
  }
  const computed = await computeChunks(model, compute, rows, chunks, partial, layout, options.share)
  const metadata = { model: model.name, fingerprint: wanted.fingerprint }
  const written = await writeFeatures(out, rows, hidden, partial, layout, metadata)
  const manifest = await writeManifest(manifestName(out), {
    kind: pairs ? 'pairs' : 'ratings',
    file: basename(out),
    ...written,
    model: model.name,
    ...wanted,
    columns: hidden,
    tokens: rows.reduce((sum, row) => sum + row.tokens, 0),
    rows: rows.map((row) => row.id),
    skipped,
  })
  await removePartial(folder)
  return { manifest, computed, skipped }
}

/** What chunks depend on, by what an error calls it. */
function partialSettings({ shard, shards, fingerprint, input, options }: Wanted, device: string): FeatureSettings {
  const flags = Object.entries(options).map(([name, value]) => [`--${name.replaceAll('_', '-')}`, value])
  return {
    // Devices round in their own ways.
    '--device': device,
    '--shard': `${shard}/${shards}`,
    ...Object.fromEntries(flags),
    'a model with the fingerprint': fingerprint,
    'rows with the SHA-256': input,
  }
}

function checkSubsets({ rows }: TakenRows): void {
  const [first] = rows
  const other = rows.find((row) => (row.subset === null) !== (first.subset === null))
  if (other === undefined) return
  const [lacking, having] = other.subset === null ? [other, first] : [first, other]
  throw new Error(`${lacking.where}: has no "subset", ${having.where} has one; all pairs need one, or none`)
}

const SKIPPED_SHOWN = 10

function tell({ ignored, pairs }: TakenRows, skipped: readonly SkippedRow[]): void {
  if (ignored.length > 0) {
    const what = pairs ? 'fields that pairs do not have' : 'fields that --labels does not name'
    note(`note: ${what} are left out: ${ignored.map(show).join(', ')}`)
  }
  for (const { where, reason } of skipped.slice(0, SKIPPED_SHOWN)) note(`note: ${where} is left out: ${reason}`)
  if (skipped.length > SKIPPED_SHOWN) note(`note: ${skipped.length - SKIPPED_SHOWN} more rows are left out`)
}

interface Outcome {
  readonly out: string
  readonly ms: number
  /** Null where the file was there already. */
  readonly computed: Computed | null
}

async function report(
  manifest: FeatureManifest,
  { out, ms, computed }: Outcome,
  options: FeaturesOptions,
): Promise<void> {
  const { columns, labels, tokens, skipped, shard, shards, options: chosen } = manifest
  const rate = (count: number) => (computed && count > 0 ? count / (computed.ms / 1000) : null)
  const rates = { rows_per_second: rate(computed?.rows ?? 0), tokens_per_second: rate(computed?.tokens ?? 0) }
  const rows = manifest.rows.length
  if (options.json) {
    return printJson({
      file: out,
      manifest: manifestName(out),
      rows,
      labels,
      columns,
      tokens,
      skipped: computed === null ? true : skipped,
      ms,
      ...rates,
      shard,
      shards,
    })
  }
  const what = `features of ${rows} ${manifest.kind === 'pairs' ? 'pairs' : 'rows'}, ${columns} columns`
  const names = (chosen.labels as string[]).length
  const ratings = labels > rows ? `, ${labels} ratings` : ''
  const left = skipped > 0 ? `, ${skipped} rows left out` : ''
  return print(`${printable(out)}: ${what}, ${names} labels${ratings}${left} (${time(computed, rates, ms)})\n`)
}

function time(computed: Computed | null, rates: { tokens_per_second: number | null }, ms: number): string {
  if (computed === null) return 'there already'
  const rate = rates.tokens_per_second
  return `${duration(ms / 1000)}${rate === null ? '' : `, ${Number(rate.toPrecision(3))} tokens a second`}`
}
