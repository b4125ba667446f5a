// The rows that an evaluation is given: files, standard input, or the suite's own data from the hub.
import type { EvalCommand } from './eval.ts'
import { usageError } from './options.ts'
import { type InputRow, readRows } from './rows.ts'

/** Reads all rows of --data. */
export async function readEvalRows({ data = [], suite }: EvalCommand): Promise<InputRow[]> {
  if (data.includes('hub')) usageError(`--data: there is no data of ${suite} on the hub`)
  const rows: InputRow[] = []
  for (const path of data) rows.push(...(await readRows(path)))
  return rows
}
