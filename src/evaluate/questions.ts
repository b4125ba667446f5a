// Rows of an evaluation as people write them: pairs, and questions with several answers.
import { show } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'
import { responseRow } from '../reward/responses.ts'
import { readRow, SCORED_FIELDS } from '../reward/row_forms.ts'
import { PRIOR_SETS, SUBSETS } from './reward_bench.ts'
import { checkItem } from './reward_bench_2.ts'

/** What pairs and questions are measured by: any pairs, or the rules of a benchmark. */
export type PairSuite = 'pairs' | 'rewardbench' | 'rewardbench2'

/** A question with its answers: the right ones first, then the wrong ones. */
export interface Question {
  /** What errors call it. */
  readonly where: string
  /** Checked where they are encoded. */
  readonly rows: readonly unknown[]
  readonly right: number
  readonly subset: string | null
  readonly id: string | null
}

/** Reads the rows of a suite. Throws on rows that it does not have, naming them. */
export function readQuestions(records: readonly FileRecord[], suite: PairSuite): Question[] {
  const questions = records.map(suite === 'rewardbench2' ? readQuestion : readPair)
  checkSubsets(questions, suite)
  return questions
}

/** Throws where pairs for RewardBench have a subset that it lacks, or none. */
export function checkSubsets(rows: readonly Pick<Question, 'subset' | 'where'>[], suite: PairSuite): void {
  if (suite !== 'rewardbench') return
  const known = [...SUBSETS, ...PRIOR_SETS]
  for (const { subset, where } of rows) {
    if (subset === null)
      throw new Error(`${where}: has no "subset", which RewardBench needs; --suite pairs takes rows without`)
    if (!known.includes(subset)) {
      throw new Error(
        `${where}: ${show(subset)} is no subset of RewardBench; --suite pairs takes any, RewardBench has ${known.join(', ')}`,
      )
    }
  }
}

const text = (value: unknown): string | null =>
  typeof value === 'string' ? value : typeof value === 'number' ? String(value) : null

/** A pair in one of the forms of row_forms.ts, with "subset" and "id". */
function readPair({ where, value: row }: FileRecord): Question {
  for (const side of ['chosen', 'rejected']) {
    if (!(side in row) && !(`${side}_input_ids` in row))
      throw new Error(`${where}: has no ${show(side)}; a pair is {"prompt", "chosen", "rejected"}`)
  }
  try {
    return { where, rows: readRow(row).sides, right: 1, subset: text(row.subset), id: text(row.id) }
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`)
  }
}

/** Fields of pairs that an evaluation does not use, such as margins. */
export function unusedFields(records: readonly FileRecord[]): string[] {
  const unused = new Set<string>()
  for (const { value } of records) {
    for (const field of Object.keys(value)) {
      if (!USED.includes(field) && !SCORED_FIELDS.includes(field)) unused.add(field)
    }
  }
  return [...unused]
}

const USED = ['subset', 'id', 'num_correct']

/**
 * A row of RewardBench 2: {"prompt", "chosen": [..], "rejected": [..], "subset", "id"}. As in the published program "num_correct", where
 * it is there, says how many of the answers, chosen and then rejected, are right.
 */
function readQuestion({ where, value: row }: FileRecord): Question {
  const answers = (side: 'chosen' | 'rejected') => {
    const value = row[side]
    if (!Array.isArray(value) || value.length === 0) {
      throw new Error(`${where}: ${side} must be a list of at least one answer, got ${show(value)}`)
    }
    return value.map((one: unknown) => responseRow(row.prompt, one, `${where}: ${side}`))
  }
  const [right, wrong] = [answers('chosen'), answers('rejected')]
  const [subset, id] = [text(row.subset), text(row.id)]
  if (subset === null) throw new Error(`${where}: subset must be a name, got ${show(row.subset)}`)
  try {
    checkItem({ subset, id: id ?? '' })
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`)
  }
  const rows = [...right, ...wrong]
  const count = row.num_correct ?? right.length
  if (!Number.isSafeInteger(count) || (count as number) < 1 || (count as number) >= rows.length) {
    const range = `a whole number from 1 to ${rows.length - 1}`
    throw new Error(`${where}: num_correct must be ${range}, as there are ${rows.length} answers, got ${show(count)}`)
  }
  return { where, rows, right: count as number, subset, id }
}
