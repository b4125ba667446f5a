// Rows of an evaluation: pairs, questions with several answers, and rated responses, as responses for the model to score.
import { checkItem } from '../evaluate/reward_bench_2.ts'
import { show } from '../files/json.ts'
import { ROW_FIELDS, responseRow } from '../reward/responses.ts'
import type { InputRow } from './rows.ts'

/** A question with its answers: the right ones first, then the wrong ones. */
export interface Question {
  readonly where: string
  /** Checked where they are encoded. */
  readonly rows: readonly unknown[]
  readonly right: number
  readonly subset: string | null
  readonly id: string | null
}

const text = (value: unknown): string | null =>
  typeof value === 'string' ? value : typeof value === 'number' ? String(value) : null

/** A pair {"prompt", "chosen", "rejected", "subset", "id"}; prompts may be lists of messages, or sides whole conversations. */
export function readPair({ where, row }: InputRow): Question {
  for (const side of ['chosen', 'rejected']) {
    if (!(side in row)) throw new Error(`${where}: has no ${show(side)}; a pair is {"prompt", "chosen", "rejected"}`)
  }
  return {
    where,
    rows: [row.chosen, row.rejected].map((side, i) =>
      responseRow(row.prompt, side, `${where}: ${i === 0 ? 'chosen' : 'rejected'}`),
    ),
    right: 1,
    subset: text(row.subset),
    id: text(row.id),
  }
}

/**
 * A row of RewardBench 2: {"prompt", "chosen": [..], "rejected": [..], "subset", "id"}. As in the published program "num_correct", where
 * it is there, says how many of the answers, chosen and then rejected, are right.
 */
export function readQuestion({ where, row }: InputRow): Question {
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

/**
 * Rated rows: what is scored, and the ratings of the attributes that the model has, one number or a list of them. Other fields are
 * passed over; they are named in `unused`.
 */
export function readRated(
  rows: readonly InputRow[],
  attributes: readonly string[],
): {
  readonly rows: InputRow[]
  readonly ratings: Map<string, { readonly ratings: number[]; readonly rows: number[] }>
  readonly unused: string[]
} {
  const unused = new Set<string>()
  const ratings = new Map(attributes.map((name) => [name, { ratings: [] as number[], rows: [] as number[] }]))
  const kept = rows.map(({ where, row }, n) => {
    const rest: [string, unknown][] = []
    for (const [field, value] of Object.entries(row)) {
      const own = ratings.get(field)
      if (!own) {
        if (ROW_FIELDS.includes(field)) rest.push([field, value])
        else if (field !== 'id' && field !== 'subset') unused.add(field)
        continue
      }
      for (const rating of Array.isArray(value) ? value : [value]) {
        if (rating === null) continue
        if (typeof rating !== 'number' || !Number.isFinite(rating)) {
          throw new Error(`${where}: ${show(field)} must be a number, null, or a list of them, got ${show(value)}`)
        }
        own.ratings.push(rating)
        own.rows.push(n)
      }
    }
    return { where, row: Object.fromEntries(rest) }
  })
  return { rows: kept, ratings, unused: [...unused] }
}
