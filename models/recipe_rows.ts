// The rows that the recipe gives to `pinball features`: ratings to fit, to calibrate and to measure on, pairs to train and to test on.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import {
  ATTRIBUTES,
  fraction,
  isCalibration,
  type Pair,
  type Rated,
  readData,
  sidesOf,
  VERBOSITY,
  verbosity,
} from './nano/rows.ts'
import type { Recipe } from './recipe.ts'

/** Pairs that nothing is trained on. */
export const TEST_SETS = ['hh', 'llmbar', 'humanevalpack', 'hhh'] as const

interface TestPair {
  readonly prompt: unknown
  readonly chosen: string
  readonly rejected: string
  readonly subset: string
  readonly id: string
}

/** Writes WORK/rows/*.jsonl; gives the attributes that have ratings to fit. Throws where a set is missing. */
export function writeRows({ data, work, limit = Number.POSITIVE_INFINITY }: Recipe): { readonly attributes: string[] } {
  const { rated, pairs } = readData(data)
  const all = [...rated, ...pairs.flatMap(sidesOf)]
  const ofPart = (keep: (row: { readonly key: string; readonly part: string }) => boolean) =>
    first(all.filter(keep), limit)
  const rows = {
    heads: ofPart(({ part, key }) => part === 'heads' && !isCalibration(key)),
    calibration: ofPart(({ part, key }) => part === 'heads' && isCalibration(key)),
    heldout: ofPart(({ part }) => part === 'heldout'),
  }
  const training = first(
    pairs.filter(({ part, key }) => part === 'heads' && !isCalibration(key)),
    limit,
  )
  const heldOut = first(
    pairs.filter(({ part }) => part === 'heldout'),
    limit,
  )
  const folder = join(work, 'rows')
  mkdirSync(folder, { recursive: true })
  const write = (name: string, values: readonly unknown[]) =>
    writeFileSync(join(folder, `${name}.jsonl`), values.map((value) => `${JSON.stringify(value)}\n`).join(''))
  for (const [name, values] of Object.entries(rows)) write(name, values.map(ratedRow))
  write('pairs', training.map(pairRow))
  write('hh', heldOut.map(pairRow))
  for (const [name, values] of Object.entries(testPairs(data))) write(name, first(values, limit))
  const rated_ = new Set(rows.heads.flatMap(({ ratings }) => Object.keys(ratings)))
  return { attributes: ATTRIBUTES.filter((name) => name === VERBOSITY || rated_.has(name)) }
}

/** At most `limit` rows of each set, those whose keys have the smallest hashes; the sides of a pair stay together. */
function first<
  T extends { readonly subset?: string; readonly set?: string; readonly key?: string; readonly id?: string },
>(rows: readonly T[], limit: number): T[] {
  if (limit === Number.POSITIVE_INFINITY) return [...rows]
  const kept = new Set<T>()
  for (const set of new Set(rows.map((row) => row.set ?? row.subset))) {
    const own = rows.filter((row) => (row.set ?? row.subset) === set)
    const order = own.map((row, i) => ({ row, i, hash: fraction(`limit of ${row.key ?? row.id}`) }))
    order.sort((a, b) => a.hash - b.hash || a.i - b.i)
    for (const { row } of order.slice(0, limit)) kept.add(row)
  }
  return rows.filter((row) => kept.has(row))
}

function ratedRow({ messages, ratings }: Rated, n: number): Record<string, unknown> {
  const response = messages[messages.length - 1].content
  return { id: String(n), messages, ...ratings, [VERBOSITY]: verbosity(response) }
}

function pairRow({ set, prompt, chosen, rejected }: Pair, n: number): Record<string, unknown> {
  return { id: String(n), subset: set, chosen: [...prompt, chosen], rejected: [...prompt, rejected] }
}

function rowsOf(data: string, name: string): Record<string, string>[] {
  const text = new TextDecoder().decode(gunzipSync(readFileSync(join(data, name))))
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, string>)
}

/** LLMBar's subsets of RewardBench, HumanEvalPack's correct and buggy solutions, HHH alignment. */
function testPairs(data: string): Record<Exclude<(typeof TEST_SETS)[number], 'hh'>, TestPair[]> {
  const llmbar = rowsOf(data, 'llmbar/pairs.jsonl.gz').filter(({ subset }) => subset.startsWith('llmbar'))
  return {
    llmbar: llmbar.map(({ prompt, chosen, rejected, subset }, n) => ({
      id: String(n),
      prompt,
      chosen,
      rejected,
      subset,
    })),
    humanevalpack: rowsOf(data, 'humanevalpack/humanevalpack.jsonl.gz').map((row, n) => ({
      id: String(n),
      prompt: row.instruction,
      chosen: row.declaration + row.canonical_solution,
      rejected: row.declaration + row.buggy_solution,
      subset: `hep-${row.lang}`,
    })),
    hhh: rowsOf(data, 'prometheus-eval/hhh_alignment.jsonl.gz').map((row, n) => ({
      id: String(n),
      prompt: between(row.chosen_instruction, '###The instruction to evaluate:', '###Response to evaluate:'),
      chosen: between(row.chosen_instruction, '###Response to evaluate:', '###Score Rubrics:'),
      rejected: between(row.rejected_instruction, '###Response to evaluate:', '###Score Rubrics:'),
      subset: `hhh-${row.source}`,
    })),
  }
}

/** The part of a judge's prompt between two headings. */
function between(text: string, begin: string, end: string): string {
  const from = text.indexOf(begin)
  const to = text.lastIndexOf(end)
  if (from < 0 || to < from) throw new Error(`recipe: a row of HHH has no ${begin} before ${end}`)
  return text.slice(from + begin.length, to).trim()
}
