// pinball split: rows divided into parts by a hash of their items, one file a part.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { directoryStore, writeFileAtomic } from '../files/disk.ts'
import { gzip } from '../files/gzip.ts'
import { printable } from '../files/json.ts'
import { encodeJsonl } from '../files/jsonl.ts'
import { counted } from '../report/draw.ts'
import { checkSplitFolder, type Part, parseParts, SPLIT_FILE, type SplitBy, splitRecords } from '../reward/split.ts'
import { claimOutputs } from './claims.ts'
import { checkOption, parseInputs, parseOut, wholeNumber } from './options.ts'
import { print, printJson, writeDocument } from './output.ts'
import { readRows } from './rows.ts'

interface SplitCommand {
  readonly input: string[]
  readonly parts: Part[]
  readonly by: SplitBy
  readonly seed: number
  readonly out: string
  readonly gzip?: boolean
  readonly json?: boolean
}

export const USUAL_PARTS = 'fit:0.6,calibrate:0.2,test:0.2'

const EXAMPLES = `
--out gets a file NAME.jsonl for each part, with the rows as they are, and ${SPLIT_FILE}. A hash of the item (the response with its prompt)
and the seed decides in which part a row is, whatever rows are beside it: equal texts are in one part, also of other files. With
--by prompt all responses to a prompt are. Pairs are always by their prompts. Ratings in long form come together first.

Examples:
  $ pinball split --input ratings.jsonl --out parts
  $ pinball split --input texts.jsonl ratings.csv --parts fit:0.7,calibrate:0.15,test:0.15 --seed 1 --out parts
  $ pinball split --input pairs.jsonl --parts train:0.9,test:0.1 --gzip --out pair-parts --json
`

/** Adds the command to the program. */
export function addSplit(program: Command): void {
  program
    .command('split')
    .description('divide rows into parts by item: for fitting, calibration and evaluation')
    .requiredOption('--input <files...>', 'rows: JSON Lines or a list (plain or gzip), Parquet or CSV; -', parseInputs)
    .requiredOption('--out <dir>', 'folder for a file of each part', parseOut)
    .addOption(
      new Option('--parts <parts>', 'NAME:SHARE with commas; shares add up to 1')
        .argParser((text) => checkOption('--parts', () => parseParts(text)))
        .default(parseParts(USUAL_PARTS), USUAL_PARTS),
    )
    .addOption(new Option('--by <what>', 'what is never divided').choices(['item', 'prompt']).default('item'))
    .option('--seed <n>', 'of the hash', wholeNumber(0, 2 ** 32 - 1), 0)
    .option('--gzip', 'compress the files')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: SplitCommand) => split(options))
}

async function split(options: SplitCommand): Promise<void> {
  const { input, out, parts, seed, by } = options
  const ending = options.gzip ? '.jsonl.gz' : '.jsonl'
  const files = parts.map(({ name }) => `${name}${ending}`)
  await claimOutputs({ inputs: { '--input': input }, folders: { '--out': out } })
  await checkSplitFolder(directoryStore(out))
  const found = splitRecords(await readRows(input), parts, { seed, by })
  await mkdir(out, { recursive: true })
  const about = {
    pinball: 'split',
    files,
    by,
    seed,
    rows: Object.fromEntries(parts.map(({ name }, i) => [name, found[i].length])),
  }
  // First, so that what a kill leaves is known to be Pinball's.
  await writeDocument(join(out, SPLIT_FILE), about)
  for (const [i, records] of found.entries()) {
    const lines = encodeJsonl(valuesOf(records), '')
    const chunks = records.length === 0 ? [new Uint8Array()] : lines
    await writeFileAtomic(join(out, files[i]), options.gzip && records.length > 0 ? gzip(lines) : chunks)
  }
  if (options.json) return printJson({ out, ...about })
  await print(
    found.map((records, i) => `${printable(join(out, files[i]))}: ${counted(records.length, 'row')}\n`).join(''),
  )
}

async function* valuesOf(records: readonly { readonly value: unknown }[]) {
  for (const { value } of records) yield value
}
