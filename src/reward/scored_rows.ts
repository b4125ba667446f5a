// Rows of a file that are to be scored: read by the one reader, encoded, with what they carry along.
import type { FileRecord } from '../files/records.ts'
import { carriedFields, readId, readRow } from './row_forms.ts'
import type { EncodedRow } from './rows.ts'

export interface RowLimits {
  /** The longest row in tokens, where it is shorter than the model's. */
  readonly maxLength?: number
  /** Leaves out rows that are too long or not valid, rather than throw. */
  readonly skipInvalid?: boolean
}

/** A row that can be scored. */
export interface ScoredRow {
  readonly where: string
  readonly id: string | number | undefined
  /** Other fields than its id and what is scored; null where there are none. */
  readonly fields: Readonly<Record<string, unknown>> | null
  /** What is scored, in a form that `encodeRow` takes. */
  readonly side: Readonly<Record<string, unknown>>
  readonly encoded: EncodedRow
}

export interface ScoredRows {
  readonly rows: readonly ScoredRow[]
  /** Why rows were left out, each with its place. */
  readonly skipped: readonly string[]
}

/** Throws where a row has more tokens than --max-length allows. */
export function checkLength({ input_ids: { length } }: EncodedRow, maxLength = Infinity): void {
  if (length > maxLength) throw new Error(`the row has ${length} tokens, --max-length allows ${maxLength}`)
}

/** Reads and encodes rows by a model's `encode`. Throws on the first that is not valid, or where none is left. */
export function readScoredRows(
  records: readonly FileRecord[],
  encode: (row: unknown) => EncodedRow,
  { maxLength, skipInvalid = false }: RowLimits = {},
): ScoredRows {
  const [rows, skipped]: [ScoredRow[], string[]] = [[], []]
  for (const { where, value } of records) {
    try {
      const { sides, isPair, rest } = readRow(value)
      if (isPair) throw new Error('is a pair of "chosen" and "rejected"; "pinball eval --suite pairs" scores both')
      const encoded = encode(sides[0])
      checkLength(encoded, maxLength)
      const side = sides[0] as Readonly<Record<string, unknown>>
      rows.push({ where, id: readId(value), fields: carriedFields(rest), side, encoded })
    } catch (error) {
      const { message } = error as Error
      const reason = where === '' ? message : `${where}: ${message}`
      if (!skipInvalid) throw new Error(reason)
      skipped.push(reason)
    }
  }
  if (rows.length === 0 && skipped.length > 0) throw new Error(`no row can be scored; the first: ${skipped[0]}`)
  return { rows, skipped }
}
