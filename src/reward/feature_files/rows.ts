// Rows whose features are to be made: ratings with labels of one or several people, or pairs; those of one shard are kept.
import { show } from '../../files/json.ts'
import type { FileRecord } from '../../files/records.ts'
import { Sha256 } from '../../files/sha256.ts'
import type { FeatureModel } from '../features.ts'
import { readLabel } from '../responses.ts'
import { isPairRow, type ReadRow, readId, readRow, SCORED_FIELDS } from '../row_forms.ts'
import type { EncodedRow } from '../rows.ts'
import { type Shard, shardOf, WHOLE } from './shards.ts'

export type RowId = string | number

/** A row, with its sides as they were given or as tokens. */
export interface FeatureRow<Side = unknown> {
  /** What errors call it. */
  readonly where: string
  /** Its field "id", or its number in the input, counted from 1. */
  readonly id: RowId
  /** What is scored: one response, or chosen and rejected. */
  readonly sides: readonly Side[]
  /** A line of M labels for each rating, one at least; NaN where it has none. Pairs have no lines. */
  readonly labels: readonly (readonly number[])[]
  /** A weight for each line. */
  readonly weights: readonly number[] | null
  /** Of a pair. */
  readonly subset: string | null
}

/** A row that is left out, and why. */
export interface SkippedRow {
  readonly where: string
  readonly id: RowId
  readonly reason: string
}

export interface RowChoice {
  /** Fields that hold labels [M]. */
  readonly labels?: readonly string[]
  /** The field with the weight of a row's labels, or a list with one for each rating. */
  readonly weights?: string
  /** The rows of this shard alone. */
  readonly shard?: Shard
  /** Leave out rows that are not valid, rather than throw. */
  readonly skipInvalid?: boolean
  /** What errors call the input. */
  readonly name?: string
}

/** The rows of an input, or of one shard of it. */
export interface FeatureRows<Side = unknown> {
  readonly name: string
  readonly kind: 'ratings' | 'pairs'
  /** Names of the labels [M]. */
  readonly labels: readonly string[]
  /** The field of the weights. */
  readonly weights: string | null
  readonly shard: Shard
  readonly skipInvalid: boolean
  readonly rows: readonly FeatureRow<Side>[]
  readonly skipped: readonly SkippedRow[]
  /** Fields that nothing asked for, of all shards. */
  readonly ignored: readonly string[]
  /** SHA-256 of the rows, in their order: 64 hexadecimal digits. */
  readonly hash: string
}

const OWN_FIELDS = ['id', 'subset', ...SCORED_FIELDS]

/** The first name that cannot be a label or weight, because it says what is scored or which row it is. */
export function reservedName(names: readonly string[]): string | undefined {
  return names.find((name) => OWN_FIELDS.includes(name))
}

/**
 * Takes the rows of an input (`readRecords` gives them), ratings or pairs. Throws on ratings among pairs, subsets of some pairs only,
 * labels that no row has, names that `reservedName` finds, and, unless they are to be skipped, on labels and weights that are no
 * finite numbers.
 */
export async function readFeatureRows(
  records: AsyncIterable<FileRecord> | Iterable<FileRecord>,
  { labels = [], weights, shard = WHOLE, skipInvalid = false, name = 'rows' }: RowChoice = {},
): Promise<FeatureRows> {
  const reserved = reservedName([...labels, ...(weights === undefined ? [] : [weights])])
  if (reserved !== undefined) throw new Error(`${show(reserved)} is what is scored, neither a label nor a weight`)
  if (weights !== undefined && labels.length === 0) throw new Error('weights need labels, whose weights they are')
  const hash = new Sha256()
  const [rows, skipped]: [FeatureRow[], SkippedRow[]] = [[], []]
  const [ignored, seen] = [new Set<string>(), new Set<string>()]
  let [total, pairs]: [number, boolean | null] = [0, null]
  for await (const { where, value: row } of records) {
    total++
    const isPair = isPairRow(row)
    pairs ??= isPair
    if (pairs !== isPair) {
      const [one, before] = isPair ? ['a pair', 'ratings'] : ['no pair', 'pairs']
      throw new Error(`${where}: is ${one} ("chosen" and "rejected"), the rows before it are ${before}`)
    }
    if (isPair && labels.length > 0)
      throw new Error(`${where}: is a pair, and pairs have no labels; leave out --labels`)
    const ownId = named(where, () => readId(row))
    for (const label of labels) if (Object.hasOwn(row, label)) seen.add(label)
    for (const field of Object.keys(row)) {
      const own = field === 'id' || (isPair && field === 'subset') || SCORED_FIELDS.includes(field)
      if (!own && !labels.includes(field) && field !== weights) ignored.add(field)
    }
    const scored = Object.entries(row).filter(([field]) => SCORED_FIELDS.includes(field))
    if (shardOf(ownId, Object.fromEntries(scored), shard.count) !== shard.index) continue
    const id = ownId ?? total
    hash.update(`${JSON.stringify([id, row])}\n`)
    try {
      const read = readRow(row)
      rows.push({ where, id, ...(isPair ? readPair(read) : readRating(row, read, labels, weights)) })
    } catch (error) {
      const reason = (error as Error).message
      if (!skipInvalid) throw new Error(`${where}: ${reason}`)
      skipped.push({ where, id, reason })
    }
  }
  if (total === 0) throw new Error(`${name}: has no rows`)
  const absent = labels.filter((label) => !seen.has(label))
  if (absent.length > 0) throw new Error(`--labels: no row has a field ${absent.map(show).join(', ')}`)
  checkSubsets(rows)
  return {
    name,
    kind: pairs ? 'pairs' : 'ratings',
    labels,
    weights: weights ?? null,
    shard,
    skipInvalid,
    rows,
    skipped,
    ignored: [...ignored],
    hash: hash.hex(),
  }
}

function checkSubsets(rows: readonly FeatureRow[]): void {
  const [first] = rows
  const other = rows.find((row) => (row.subset === null) !== (first.subset === null))
  if (other === undefined) return
  const [lacking, having] = other.subset === null ? [other, first] : [first, other]
  throw new Error(`${lacking.where}: has no "subset", ${having.where} has one; all pairs need one, or none`)
}

/** What `work` throws gets the place of the row in front. */
function named<T>(where: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`)
  }
}

type RowContent = Omit<FeatureRow, 'where' | 'id'>

function readRating(
  row: Record<string, unknown>,
  { sides, rest }: ReadRow,
  names: readonly string[],
  weights?: string,
): RowContent {
  const columns = names.map((name) => readLabels(own(row, name), `label ${show(name)}`))
  const count = columns.reduce((most, column) => Math.max(most, column.length), 1)
  const labels = Array.from({ length: count }, (_, t) => columns.map((column) => column[t] ?? Number.NaN))
  return { sides, labels, weights: readWeights(rest, count, weights), subset: null }
}

/** A field whose name a user chose, and which an object may have without its row having it (`constructor`). */
function own(row: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(row, name) ? row[name] : undefined
}

/** The ratings of one label: none, one, or those of a list. */
function readLabels(value: unknown, where: string): number[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) return [readLabel(value, where)]
  return value.map((one, t) => (one === null ? Number.NaN : readLabel(one, `${where}[${t}]`)))
}

function readWeights(
  row: Readonly<Record<string, unknown>>,
  count: number,
  field: string | undefined,
): number[] | null {
  if (field === undefined) return null
  const value = own(row, field)
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

function readPair({ sides, rest: { subset } }: ReadRow): RowContent {
  if (subset !== undefined && typeof subset !== 'string') throw new Error(`subset must be a text, got ${show(subset)}`)
  return { sides, labels: [], weights: null, subset: subset ?? null }
}

/** The number of tokens of all sides. */
export function tokensOf({ sides }: FeatureRow<EncodedRow>): number {
  return sides.reduce((sum, side) => sum + side.input_ids.length, 0)
}

/**
 * Checks and encodes every row before any is computed. With `gate`, all need a gate position; `maxLength` is the longest row in tokens,
 * where it is shorter than the model's. Throws on rows that are not valid, or skips them as `rows` says.
 */
export function encodeFeatureRows(
  model: FeatureModel,
  rows: FeatureRows,
  { gate, maxLength = Infinity }: { readonly gate: boolean; readonly maxLength?: number },
): FeatureRows<EncodedRow> {
  const encoded: FeatureRow<EncodedRow>[] = []
  const skipped = [...rows.skipped]
  const encode = (side: unknown, s: number): EncodedRow => {
    try {
      const row = model.encode(side, { gate })
      const { length } = row.input_ids
      if (length > maxLength) throw new Error(`the row has ${length} tokens, --max-length allows ${maxLength}`)
      return row
    } catch (error) {
      const { message } = error as Error
      throw rows.kind === 'pairs' ? new Error(`${s === 0 ? 'chosen' : 'rejected'}: ${message}`) : error
    }
  }
  for (const row of rows.rows) {
    try {
      encoded.push({ ...row, sides: row.sides.map(encode) })
    } catch (error) {
      const reason = (error as Error).message
      if (!rows.skipInvalid) throw new Error(`${row.where}: ${reason}`)
      skipped.push({ where: row.where, id: row.id, reason })
    }
  }
  return { ...rows, rows: encoded, skipped }
}
