// Rows with ratings of attributes as they are trained on: tokens, and the ratings that each attribute has.
import type { FileRecord } from '../files/records.ts'
import { readFeatureRows } from '../reward/feature_files/rows.ts'
import { encodeRow, type RowRules } from '../reward/rows.ts'
import type { TextRules } from './row_text.ts'

export interface RatedExample {
  /** [T] */
  readonly tokens: Uint32Array<ArrayBuffer>
  /** Finite ratings of each attribute [M], any number of them; one at least of all. */
  readonly ratings: readonly (readonly number[])[]
}

export interface RatedExamples {
  readonly rows: readonly RatedExample[]
  /** Rows that were left out because they have more than `maxLength` tokens, and because they have no rating. */
  readonly dropped: number
  readonly unrated: number
}

/**
 * Encodes rows as `pinball features` does: prompt and response, messages, or input_ids, with a field of each attribute that holds a
 * number, a list of numbers (of several people) or null. Throws as `readFeatureRows` does, and where no row is left.
 */
export async function encodeRatedExamples(
  records: AsyncIterable<FileRecord> | Iterable<FileRecord>,
  attributes: readonly string[],
  rules: TextRules,
): Promise<RatedExamples> {
  if (attributes.length === 0) throw new Error('ratings: at least one attribute is needed, got none')
  const read = await readFeatureRows(records, { labels: attributes, skipInvalid: rules.onInvalid !== undefined })
  for (const { where, reason } of read.skipped) rules.onInvalid?.(`${where}: ${reason}`)
  if (read.kind === 'pairs') throw new Error('ratings: the rows are pairs, which have no ratings; use --head score')
  // Rows that are too long are counted here, and no gate reads them.
  const own: RowRules = { ...rules, gatePattern: [], maxPosition: Infinity }
  const rows: RatedExample[] = []
  let [dropped, unrated] = [0, 0]
  for (const { where, sides, labels } of read.rows) {
    let tokens: Uint32Array<ArrayBuffer>
    try {
      tokens = encodeRow(sides[0], own).input_ids
    } catch (error) {
      const reason = `${where}: ${(error as Error).message}`
      if (!rules.onInvalid) throw new Error(reason)
      rules.onInvalid(reason)
      continue
    }
    const ratings = attributes.map((_, m) => labels.map((line) => line[m]).filter((value) => !Number.isNaN(value)))
    if (tokens.length > rules.maxLength) dropped++
    else if (ratings.every((values) => values.length === 0)) unrated++
    else rows.push({ tokens, ratings })
  }
  if (rows.length > 0) return { rows, dropped, unrated }
  throw new Error(
    `nothing to train on: of ${read.rows.length} rows ${dropped} have more than ${rules.maxLength} tokens and ${unrated} have no rating`,
  )
}
