// Rows of an input file: read with their line numbers, split from their labels, and encoded by the model.
import { openInput } from '../files/disk.ts'
import { isObject, show } from '../files/json.ts'
import { type JsonLine, readJsonl } from '../files/jsonl.ts'
import type { FeatureModel } from '../reward/features.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { withoutInterruptHandler } from './signals.ts'

/** A row as it was given, with what errors call it. */
export interface InputRow {
  readonly where: string
  readonly row: Record<string, unknown>
}

/** Fields that say what is scored; all others of a row are labels or unknown. */
const ROW_FIELDS = ['prompt', 'response', 'messages', 'input_ids', 'gate_position']

/** Reads all rows of a JSON Lines file or pipe, or of standard input for `-`. Throws where there are none or they are no objects. */
export async function readRows(input: string): Promise<InputRow[]> {
  if (input === '-') return collect(readJsonl(process.stdin, 'standard input'), 'standard input')
  // By its name it cannot be opened where it is a socket.
  if (input === '/dev/stdin') return collect(readJsonl(process.stdin, input), input)
  // Opening a pipe may wait for a writer, in a call that only the system can end.
  const source = await withoutInterruptHandler(() => openInput(input))
  try {
    return await collect(readJsonl(source, input), input)
  } finally {
    if ('close' in source) await source.close()
  }
}

async function collect(lines: AsyncIterable<JsonLine>, name: string): Promise<InputRow[]> {
  const rows: InputRow[] = []
  for await (const { line, value } of lines) {
    const where = `${name} line ${line}`
    if (!isObject(value)) throw new Error(`${where}: a row must be an object, got ${show(value)}`)
    rows.push({ where, row: value })
  }
  if (rows.length === 0) throw new Error(`${name}: has no rows; give one JSON object a line`)
  return rows
}

export interface Labelled {
  /** The rows without labels and ignored fields. */
  readonly rows: InputRow[]
  /** [N, M], NaN where a row has null or no such field. */
  readonly labels: Float32Array<ArrayBuffer>
  /** Names of numeric fields that no label asked for. */
  readonly ignored: string[]
}

/**
 * Takes the labels `names` [M] off the rows [N]. Other fields that hold numbers or null are left out and named in `ignored`;
 * the rest is left for the model to refuse. Throws on labels that are no finite numbers, and on names that no row has.
 */
export function takeLabels(rows: readonly InputRow[], names: readonly string[]): Labelled {
  const labels = new Float32Array(rows.length * names.length).fill(Number.NaN)
  const ignored = new Set<string>()
  const seen = new Set<string>()
  const kept = rows.map(({ where, row }, n) => {
    const rest: [string, unknown][] = []
    for (const [field, value] of Object.entries(row)) {
      const m = names.indexOf(field)
      if (m >= 0) {
        seen.add(field)
        if (value !== null) labels[n * names.length + m] = readLabel(value, `${where}: label ${show(field)}`)
      } else if (!ROW_FIELDS.includes(field) && (value === null || typeof value === 'number')) ignored.add(field)
      else rest.push([field, value])
    }
    return { where, row: Object.fromEntries(rest) }
  })
  const absent = names.filter((name) => !seen.has(name))
  if (absent.length > 0) {
    throw new Error(`--labels: no row has a field ${absent.map(show).join(', ')}`)
  }
  return { rows: kept, labels, ignored: [...ignored] }
}

/** Names that cannot be labels, because they say what is scored. */
export function reservedName(names: readonly string[]): string | undefined {
  return names.find((name) => ROW_FIELDS.includes(name))
}

function readLabel(value: unknown, where: string): number {
  if (typeof value !== 'number') throw new Error(`${where} must be a number or null, got ${show(value)}`)
  // JSON knows no infinity, but 1e999 reads as one; and labels are kept as float32.
  if (!Number.isFinite(Math.fround(value))) throw new Error(`${where} must be a finite float32 number, got ${value}`)
  return value
}

/** Checks and encodes every row before any is computed; with `gate`, each must have a gate position. */
export function encodeAll(model: FeatureModel, rows: readonly InputRow[], gate: boolean): EncodedRow[] {
  return rows.map(({ where, row }) => {
    try {
      return model.encode(row, { gate })
    } catch (error) {
      throw new Error(where === '' ? (error as Error).message : `${where}: ${(error as Error).message}`)
    }
  })
}
