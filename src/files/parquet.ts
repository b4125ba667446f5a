// Reads tables of numbers from Parquet files, one row group at a time.
import { parquetScan, type SchemaElement } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { show } from './json.ts'
import { guarded, openParquetFile, type ParquetFile, rowGroup } from './parquet_file.ts'
import type { Source } from './source.ts'
import { CHOOSE, type ColumnChoice, chooseColumns, type FeatureBlocks, type Table } from './table.ts'

// Columns are decoded by groups of about this size, beside the rows they are put into.
const DECODED_BYTES = 32 * 2 ** 20
/** Turns a value of column `names[column]` into a number; throws where it cannot be one. */
type Convert = (value: unknown, column: number, row: number) => number

/**
 * Opens a table: reads its labels and weights now, its features when they are asked for. Numeric columns are integers,
 * floats and decimals. Throws on chosen columns of other types, on nulls and numbers that are not finite (in labels null and
 * NaN mean a missing label), and on files that are damaged.
 */
export async function openParquet(source: Source, choice: ColumnChoice): Promise<Table> {
  const file = await openParquetFile(source)
  const { name, starts, elements } = file
  const names = elements.map((element) => element.name)
  const chosen = chooseColumns(names, choice, name)
  const [rows, columns] = [starts[starts.length - 1], chosen.features.length]
  if (rows === 0) throw new Error(`${name}: has no rows`)
  const weighted = chosen.weights < 0 ? [] : [chosen.weights]
  for (const at of [...chosen.labels, ...weighted, ...chosen.features]) {
    if (isNumeric(elements[at])) continue
    const advice = chosen.features.includes(at) ? `; ${CHOOSE}` : ''
    throw new Error(`${name}: column ${show(names[at])} must hold numbers, it holds ${kind(elements[at])}${advice}`)
  }
  const labels = new Float32Array(rows * chosen.labels.length)
  const weights = new Float32Array(rows * weighted.length)
  for (let group = 0; group + 1 < starts.length; group++) {
    const from = starts[group]
    await readGroup(file, group, chosen.labels, labels.subarray(from * chosen.labels.length), (value, at, row) => {
      const number = value === null || value === undefined ? Number.NaN : Math.fround(Number(value))
      if (Number.isNaN(number) || Number.isFinite(number)) return number
      throw new Error(`${name}: label ${show(names[at])} must be finite or null, row ${row} has ${value}`)
    })
    await readGroup(file, group, weighted, weights.subarray(from), (value, at, row) => {
      const number = value === null || value === undefined ? Number.NaN : Math.fround(Number(value))
      if (number >= 0 && Number.isFinite(number)) return number
      throw new Error(`${name}: weight ${show(names[at])} must be a number of at least 0, row ${row} has ${value}`)
    })
  }
  const { release, ...features } = featureBlocks(file, chosen.features, rows, columns)
  return {
    features,
    columns: chosen.features.map((at) => names[at]),
    labels,
    weights: weighted.length > 0 ? weights : null,
    release,
  }
}

const NUMERIC = ['INT32', 'INT64', 'FLOAT', 'DOUBLE']
const NUMERIC_MEANINGS = ['INTEGER', 'DECIMAL', 'FLOAT16']

function isNumeric({
  type,
  converted_type: converted,
  logical_type: logical,
  repetition_type,
}: SchemaElement): boolean {
  if (type === undefined || repetition_type === 'REPEATED') return false
  const meaning = logical?.type ?? (converted === undefined ? undefined : converted.replace(/^U?INT_\d+$/, 'INTEGER'))
  return meaning === undefined ? NUMERIC.includes(type) : NUMERIC_MEANINGS.includes(meaning)
}

function kind({ type, converted_type: converted, logical_type: logical }: SchemaElement): string {
  return logical?.type ?? converted ?? type ?? 'nested values'
}

/** Reads columns of a row group into rows of `into`, in the order of `columns`. */
async function readGroup(
  file: ParquetFile,
  group: number,
  columns: readonly number[],
  into: Float32Array,
  convert: Convert,
): Promise<void> {
  const { name, buffer, starts, elements } = file
  const rows = starts[group + 1] - starts[group]
  const step = Math.max(1, Math.floor(DECODED_BYTES / (8 * rows)))
  // A scan keeps what it has decoded, so each one is for a few columns.
  for (let first = 0; first < columns.length && rows > 0; first += step) {
    const some = columns.slice(first, first + step)
    const names = some.map((at) => elements[at].name)
    const scan = await guarded(name, 'metadata', () =>
      parquetScan({
        file: buffer,
        metadata: rowGroup(file, group),
        columns: names,
        compressors,
        useOffsetIndex: false,
      }),
    )
    for (const [i, at] of some.entries()) {
      const column = elements[at].name
      const values = await guarded(name, `column ${show(column)}`, async () => {
        const found = await scan.readColumn({ column, rowStart: 0, rowEnd: rows })
        if (found.length !== rows) throw new Error(`it has ${found.length} values in a row group of ${rows} rows`)
        return found
      })
      for (let row = 0; row < rows; row++) {
        into[row * columns.length + first + i] = convert(values[row], at, starts[group] + row)
      }
    }
  }
}

function featureBlocks(
  file: ParquetFile,
  chosen: readonly number[],
  rows: number,
  columns: number,
): FeatureBlocks & Pick<Table, 'release'> {
  const { name, starts, elements } = file
  const convert: Convert = (value, at, row) => {
    const number = Math.fround(Number(value))
    if (value !== null && Number.isFinite(number)) return number
    if (value === null || value === undefined) {
      throw new Error(`${name}: feature ${show(elements[at].name)} must have a value, row ${row} has none`)
    }
    throw new Error(`${name}: feature ${show(elements[at].name)} must be finite, row ${row} has ${value}`)
  }
  // Rows are asked for in order, so the row group of the last ones is kept.
  const nothing = { group: -1, values: new Float32Array(0) }
  let kept = nothing
  const load = async (group: number) => {
    if (kept.group !== group) {
      kept = nothing
      const values = new Float32Array((starts[group + 1] - starts[group]) * columns)
      await readGroup(file, group, chosen, values, convert)
      kept = { group, values }
    }
    return kept.values
  }
  return {
    name,
    rows,
    columns,
    dtype: 'f32',
    async read(firstRow, count) {
      const out = new Float32Array(count * columns)
      for (let row = firstRow; row < firstRow + count; ) {
        const group = starts.findIndex((start, i) => i + 1 < starts.length && start <= row && row < starts[i + 1])
        const values = await load(group)
        const end = Math.min(starts[group + 1], firstRow + count)
        const [from, to] = [row - starts[group], end - starts[group]]
        out.set(values.subarray(from * columns, to * columns), (row - firstRow) * columns)
        row = end
      }
      return out
    },
    release() {
      kept = nothing
    },
  }
}
