// Rows for `pinball features`: ratings with labels of one or several raters, or pairs; those of one shard are kept.
import { createHash } from 'node:crypto'
import { show } from '../files/json.ts'
import type { FeatureModel } from '../reward/features.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { eachRow, ROW_FIELDS, readLabel, responseRow } from './rows.ts'
import { type Shard, shardOf } from './shards.ts'

export type RowId = string | number

/** A row of the shard. */
export interface TakenRow {
  readonly where: string
  /** Its field "id", or its number in the input, counted from 1. */
  readonly id: RowId
  /** What is scored: one row, or chosen and rejected. */
  readonly sides: readonly unknown[]
  /** A line of M labels for each rating, one at least; NaN where it has none. */
  readonly labels: readonly (readonly number[])[]
  /** A weight for each line. */
  readonly weights: readonly number[] | null
  readonly subset: string | null
}

/** A row that is left out, and why. */
export interface SkippedRow {
  readonly where: string
  readonly id: RowId
  readonly reason: string
}

export interface TakenRows {
  readonly pairs: boolean
  readonly rows: readonly TakenRow[]
  readonly skipped: readonly SkippedRow[]
  /** Fields that nothing asked for, of all shards. */
  readonly ignored: readonly string[]
  /** SHA-256 of the shard's rows, in their order. */
  readonly hash: string
}

export interface RowChoice {
  readonly labels: readonly string[]
  /** The field of the weights. */
  readonly weights?: string
  readonly shard: Shard
  /** Leave out rows that are not valid, rather than fail. */
  readonly skipInvalid: boolean
}

const PAIR_FIELDS = ['prompt', 'chosen', 'rejected']
const OWN_FIELDS = ['id', 'subset', ...PAIR_FIELDS, ...ROW_FIELDS]

/** Names that cannot be labels or weights, because they say what is scored or which row it is. */
export function reservedName(names: readonly string[]): string | undefined {
  return names.find((name) => OWN_FIELDS.includes(name))
}

/**
 * Reads an input and takes the rows of a shard, ratings or pairs. Throws on ratings among pairs, labels that no row has, and, unless
 * they are to be skipped, on labels and weights that are no finite numbers.
 */
export async function takeRows(input: string, choice: RowChoice): Promise<TakenRows> {
  const { labels: names, shard, skipInvalid } = choice
  const hash = createHash('sha256')
  const [rows, skipped]: [TakenRow[], SkippedRow[]] = [[], []]
  const [ignored, seen] = [new Set<string>(), new Set<string>()]
  let [total, pairs]: [number, boolean | null] = [0, null]
  for await (const { where, row } of eachRow(input)) {
    total++
    const isPair = 'chosen' in row || 'rejected' in row
    pairs ??= isPair
    if (pairs !== isPair) {
      const [one, before] = isPair ? ['a pair', 'ratings'] : ['no pair', 'pairs']
      throw new Error(`${where}: is ${one} ("chosen" and "rejected"), the rows before it are ${before}`)
    }
    if (isPair && names.length > 0) throw new Error(`${where}: is a pair, and pairs have no labels; leave out --labels`)
    const given = readId(row.id, where)
    for (const name of names) if (name in row) seen.add(name)
    const { scored, rest } = split(row, isPair, choice)
    for (const field of rest) ignored.add(field)
    if (shardOf(given, scored, shard.count) !== shard.index) continue
    const id = given ?? total
    hash.update(`${JSON.stringify([id, row])}\n`)
    try {
      rows.push({ where, id, ...(isPair ? takePair(row) : takeRating(row, scored, choice)) })
    } catch (error) {
      const reason = (error as Error).message
      if (!skipInvalid) throw new Error(`${where}: ${reason}`)
      skipped.push({ where, id, reason })
    }
  }
  const absent = names.filter((name) => !seen.has(name))
  if (absent.length > 0) throw new Error(`--labels: no row has a field ${absent.map(show).join(', ')}`)
  return { pairs: pairs === true, rows, skipped, ignored: [...ignored], hash: hash.digest('hex') }
}

function readId(id: unknown, where: string): RowId | undefined {
  if (id === undefined || id === null) return undefined
  if ((typeof id === 'string' && id !== '') || Number.isSafeInteger(id)) return id as RowId
  throw new Error(`${where}: id must be a text that is not empty, or a whole number, got ${show(id)}`)
}

/** What of a row is scored, and which fields nothing asked for. What is neither is left for the model to refuse. */
function split(row: Record<string, unknown>, isPair: boolean, { labels, weights }: RowChoice) {
  const scored: Record<string, unknown> = {}
  const rest: string[] = []
  for (const [field, value] of Object.entries(row)) {
    if (field === 'id' || labels.includes(field) || field === weights) continue
    if (isPair ? PAIR_FIELDS.includes(field) : ROW_FIELDS.includes(field)) scored[field] = value
    else if (isPair ? field !== 'subset' : isRating(value)) rest.push(field)
    else if (!isPair) scored[field] = value
  }
  return { scored, rest }
}

function isRating(value: unknown): boolean {
  return value === null || typeof value === 'number' || (Array.isArray(value) && value.every((one) => isRating(one)))
}

type Taken = Omit<TakenRow, 'where' | 'id'>

function takeRating(row: Record<string, unknown>, scored: Record<string, unknown>, choice: RowChoice): Taken {
  const columns = choice.labels.map((name) => readLabels(row[name], `label ${show(name)}`))
  const count = columns.reduce((most, column) => Math.max(most, column.length), 1)
  const labels = Array.from({ length: count }, (_, t) => columns.map((column) => column[t] ?? Number.NaN))
  return { sides: [scored], labels, weights: takeWeights(row, count, choice.weights), subset: null }
}

/** The ratings of one label: none, one, or those of a list. */
function readLabels(value: unknown, where: string): number[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) return [readLabel(value, where)]
  return value.map((one, t) => (one === null ? Number.NaN : readLabel(one, `${where}[${t}]`)))
}

function takeWeights(row: Record<string, unknown>, count: number, field: string | undefined): number[] | null {
  if (field === undefined) return null
  const value = row[field]
  const list: unknown[] = Array.isArray(value) ? value : Array(count).fill(value)
  if (list.length !== count) {
    throw new Error(`weights ${show(field)} must be one, or one for each of ${count} ratings, got ${list.length}`)
  }
  for (const weight of list) {
    if (typeof weight === 'number' && weight >= 0 && Number.isFinite(Math.fround(weight))) continue
    throw new Error(`weight ${show(field)} must be a finite number of at least 0, got ${show(weight)}`)
  }
  return list as number[]
}

function takePair({ prompt, chosen, rejected, subset }: Record<string, unknown>): Taken {
  if (subset !== undefined && typeof subset !== 'string') throw new Error(`subset must be a text, got ${show(subset)}`)
  const sides = [responseRow(prompt, chosen, 'chosen'), responseRow(prompt, rejected, 'rejected')]
  return { sides, labels: [], weights: null, subset: subset ?? null }
}

/** A row as tokens, both sides of a pair. */
export interface EncodedTaken extends Omit<TakenRow, 'sides'> {
  readonly sides: readonly EncodedRow[]
  /** Of all sides. */
  readonly tokens: number
}

export interface EncodeChoice {
  readonly gate: boolean
  /** The longest row in tokens, where it is shorter than the model's. */
  readonly maxLength?: number
  readonly skipInvalid: boolean
}

/** Checks and encodes every row before any is computed. What is not valid is thrown, or skipped. */
export function encodeTaken(
  model: FeatureModel,
  { rows, pairs }: TakenRows,
  { gate, maxLength = Infinity, skipInvalid }: EncodeChoice,
): { rows: EncodedTaken[]; skipped: SkippedRow[] } {
  const encoded: EncodedTaken[] = []
  const skipped: SkippedRow[] = []
  const encode = (side: unknown, s: number): EncodedRow => {
    try {
      const row = model.encode(side, { gate })
      const { length } = row.input_ids
      if (length > maxLength) throw new Error(`the row has ${length} tokens, --max-length allows ${maxLength}`)
      return row
    } catch (error) {
      const { message } = error as Error
      throw pairs ? new Error(`${s === 0 ? 'chosen' : 'rejected'}: ${message}`) : error
    }
  }
  for (const row of rows) {
    try {
      const sides = row.sides.map(encode)
      encoded.push({ ...row, sides, tokens: sides.reduce((sum, side) => sum + side.input_ids.length, 0) })
    } catch (error) {
      const reason = (error as Error).message
      if (!skipInvalid) throw new Error(`${row.where}: ${reason}`)
      skipped.push({ where: row.where, id: row.id, reason })
    }
  }
  return { rows: encoded, skipped }
}
