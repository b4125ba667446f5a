// The rows that an evaluation is given: files, standard input, or the suite's own data from the hub.
import type { RankedSet } from '../../data/dataset.ts'
import { rankedRows, startReport } from '../../data/rows.ts'
import { findDatasets } from '../../data/table.ts'
import type { FileRecord } from '../../files/records.ts'
import { hubFiles } from '../data.ts'
import { usageError } from '../options.ts'
import { eachRow } from '../rows.ts'
import type { EvalCommand } from './eval.ts'

/** The --data that stands for the suite's own. */
export const HUB = 'hub'

/** What it means, by suite. */
const OWN_DATA: Partial<Record<EvalCommand['suite'], string>> = {
  rewardbench: 'reward-bench',
  rewardbench2: 'reward-bench-2',
}

/** Reads all rows of --data. */
export async function readEvalRows({ data = [], suite }: EvalCommand): Promise<FileRecord[]> {
  if (data.includes(HUB)) {
    if (data.length > 1) usageError('--data: hub stands for all of the data; give it alone')
    return readHub(suite)
  }
  const rows: FileRecord[] = []
  for (const path of data) for await (const row of eachRow(path)) rows.push(row)
  return rows
}

async function readHub(suite: EvalCommand['suite']): Promise<FileRecord[]> {
  const name = OWN_DATA[suite]
  if (name === undefined) usageError(`--data: the suite ${suite} has no data of its own on the hub; give files`)
  const [dataset] = findDatasets([name]) as RankedSet[]
  const { files } = await hubFiles(dataset)
  const rows: FileRecord[] = []
  const found = rankedRows([{ dataset, files }], { limit: Infinity, seed: 0 }, startReport())
  for await (const row of found) rows.push({ where: `${dataset.hub} row ${rows.length + 1}`, value: row })
  return rows
}
