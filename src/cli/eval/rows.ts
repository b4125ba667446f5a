// The rows that an evaluation is given: files, standard input, or the suite's own data from the hub.
import type { RankedSet } from '../../data/dataset.ts'
import { hubRecords } from '../../data/dataset_files.ts'
import { findDatasets } from '../../data/table.ts'
import type { FileRecord } from '../../files/records.ts'
import { usageError } from '../options.ts'
import { startFetches } from '../progress.ts'
import { readRows } from '../rows.ts'
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
  return readRows(data)
}

async function readHub(suite: EvalCommand['suite']): Promise<FileRecord[]> {
  const name = OWN_DATA[suite]
  if (name === undefined) usageError(`--data: the suite ${suite} has no data of its own on the hub; give files`)
  const [dataset] = findDatasets([name]) as RankedSet[]
  const progress = startFetches()
  return hubRecords(dataset, progress.update).finally(progress.end)
}
