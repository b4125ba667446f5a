// pinball features: hidden states of rows, with their labels, or of pairs, as safetensors files for `pinball fit` and `gate`.
import { basename, dirname } from 'node:path'
import { type Command, Option } from 'commander'
import { directoryStore } from '../../files/disk.ts'
import { printable, show } from '../../files/json.ts'
import { featuresDocument, featuresReport, leftOutNotes } from '../../report/features.ts'
import { findFeatures, type MadeFeatures, makeFeatures } from '../../reward/feature_files/make.ts'
import { manifestName } from '../../reward/feature_files/manifest.ts'
import { readFeatureRows, reservedName } from '../../reward/feature_files/rows.ts'
import { parseShard } from '../../reward/feature_files/shard_choice.ts'
import { type Shard, shardName } from '../../reward/feature_files/shards.ts'
import { loadFeatureModel } from '../../reward/features.ts'
import { claimOutputs } from '../claims.ts'
import { fingerprintModel, withModel } from '../engine.ts'
import {
  adapterOption,
  checkOption,
  deviceOptions,
  embeddedModel,
  limitOptions,
  type ModelChoice,
  parseInputs,
  parseNames,
  parseOut,
  shareOption,
  usageError,
} from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startRows } from '../progress.ts'
import { eachRow } from '../rows.ts'

interface FeaturesOptions extends ModelChoice {
  readonly input: string[]
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
A label may be a list, the ratings of several people; the features of the row are there once. NaN and null are missing ratings, true is 1
and false 0. Other forms: {"prompt", "completion", "label": true} (KTO), {"item", "rater", "rating"} with an "attribute" and the text in the row
or in a row with that "id" (long form; --input takes several files), pairs without a prompt whose texts are turns of "Human:" and
"Assistant:", or begin alike: what they share is the prompt then.

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
  limitOptions(shareOption(adapterOption(deviceOptions(program.command('features')))))
    .description('compute the features of rows or pairs and keep them in a file')
    .requiredOption(
      '--input <files...>',
      'rows: JSON Lines or a list (plain or gzip), Parquet or CSV; - for standard input',
      parseInputs,
    )
    .requiredOption('--out <file>', 'safetensors file to write', parseOut)
    .option('--labels <names>', 'fields of the rows that hold labels, with commas', parseNames)
    .option('--weights <name>', 'field with the weight of the labels of a row, or a list with one for each rating')
    .option('--gate', "also the features of the gate's token (pairs always have them)")
    .addOption(new Option('--dtype <dtype>', 'how features are stored').choices(['f32', 'bf16']).default('f32'))
    .option('--shard <i/n>', 'compute one of n shards, i from 0; n alone: i from the environment', (text) =>
      checkOption('--shard', () => parseShard(text, process.env)),
    )
    .option('--restart', 'begin anew, whatever is there of an earlier run')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: FeaturesOptions) => features(options))
}

async function features(options: FeaturesOptions): Promise<void> {
  const { input, labels = [], weights, shard, skipInvalid } = options
  const reserved = reservedName([...labels, ...(weights === undefined ? [] : [weights])])
  if (reserved !== undefined) {
    const option = labels.includes(reserved) ? '--labels' : '--weights'
    usageError(`${option}: ${show(reserved)} is what is scored, not a label`)
  }
  if (weights !== undefined && labels.length === 0) usageError('--weights: needs --labels, whose weights they are')
  const out = shardName(options.out, shard)
  const partial = `${out}.partial`
  await claimOutputs({
    inputs: { '--input': input, '--model': options.model ?? embeddedModel(), '--adapter': options.adapter },
    files: { '--out': [out, manifestName(out)] },
    folders: { '--out': partial },
  })
  const rows = await readFeatureRows(eachRow(...input), { labels, weights, shard, skipInvalid, name: input.join(', ') })
  const { gate, dtype, maxLength, restart, share } = options
  const target = {
    ...{ store: directoryStore(dirname(out)), file: basename(out), partial: directoryStore(partial) },
    ...{ gate, dtype, maxLength, restart, share, onDamage: note },
  }
  const start = performance.now()
  let known: string | null = null
  const there = await findFeatures(rows, target, async () => {
    known = await fingerprintModel(options)
    return known
  })
  if (there !== null) {
    note(`note: ${printable(out)} is there, made of the same; --restart makes it anew`)
    return report({ manifest: there, skipped: [], computed: null }, out, performance.now() - start, options)
  }
  let line: ReturnType<typeof startRows> | null = null
  const made = await withModel(options, loadFeatureModel, async (model, _, compute) => {
    const runner: typeof model = {
      ...model,
      features: (some, settings) => compute(() => model.features(some, settings)),
      fingerprint: async () => known ?? model.fingerprint(),
    }
    return makeFeatures(runner, rows, {
      ...target,
      share: options.share,
      onStart(before) {
        if (before.done > 0) {
          note(`note: features of ${before.done} of ${before.rows} rows were there already, in ${printable(partial)}`)
        }
        line = startRows(before)
      },
      onProgress: (progress) => line?.update(progress),
    }).finally(() => line?.end())
  })
  // Only now: an error is the one line on standard error.
  for (const line of leftOutNotes(rows, made.skipped)) note(`note: ${line}`)
  await report(made, out, performance.now() - start, options)
}

function report(made: MadeFeatures, out: string, ms: number, { json, labels }: FeaturesOptions): Promise<void> {
  return json ? printJson(featuresDocument(made, out, ms)) : print(featuresReport(made, out, labels?.length ?? 0, ms))
}
