// Reads tables of numbers from Parquet files, one row group at a time.
import { show } from './json.ts'
import { GroupReader, openParquetFile, type ParquetFile } from './parquet_file.ts'
import { kindOf } from './parquet_schema.ts'
import { isNumeric, numberConvert } from './parquet_values.ts'
import type { Source } from './source.ts'
import { CHOOSE, type ColumnChoice, chooseColumns, type FeatureBlocks, type Table } from './table.ts'

/** The number to store for a value of column `column` of the file, which is null where there is none; throws where it may not be. */
type Check = (value: number | null, column: number, row: number) => number

/**
 * Opens a table: reads its labels and weights now, its features when they are asked for. Numeric columns are integers,
 * floats and decimals. Throws on chosen columns of other types, on nulls and numbers that are not finite (in labels null and
 * NaN mean a missing label), and on files that are damaged.
 */
export async function openParquet(source: Source, choice: ColumnChoice): Promise<Table> {
  const file = await openParquetFile(source)
  const { name, starts, fields } = file
  const names = fields.map((field) => field.name)
  const chosen = chooseColumns(names, choice, name)
  const [rows, columns] = [starts[starts.length - 1], chosen.features.length]
  if (rows === 0) throw new Error(`${name}: has no rows`)
  const weighted = chosen.weights < 0 ? [] : [chosen.weights]
  for (const at of [...chosen.labels, ...weighted, ...chosen.features]) {
    if (fields[at].kind === 'leaf' && isNumeric(fields[at].element)) continue
    const advice = chosen.features.includes(at) ? `; ${CHOOSE}` : ''
    throw new Error(`${name}: column ${show(names[at])} must hold numbers, it holds ${kindOf(fields[at])}${advice}`)
  }
  const labels = new Float32Array(rows * chosen.labels.length)
  const weights = new Float32Array(rows * weighted.length)
  for (let group = 0; group + 1 < starts.length; group++) {
    const from = starts[group]
    await readGroup(file, group, chosen.labels, labels.subarray(from * chosen.labels.length), (value, at, row) => {
      const number = value === null ? Number.NaN : Math.fround(value)
      if (Number.isNaN(number) || Number.isFinite(number)) return number
      throw new Error(`${name}: label ${show(names[at])} must be finite or null, row ${row} has ${value}`)
    })
    await readGroup(file, group, weighted, weights.subarray(from), (value, at, row) => {
      const number = value === null ? Number.NaN : Math.fround(value)
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

/** Reads columns of a row group into rows of `into`, in the order of `columns`. */
async function readGroup(
  file: ParquetFile,
  group: number,
  columns: readonly number[],
  into: Float32Array,
  check: Check,
): Promise<void> {
  const [first, rows] = [file.starts[group], file.starts[group + 1] - file.starts[group]]
  if (rows === 0) return
  const reader = new GroupReader(file, group, columns)
  for (const [i, at] of columns.entries()) {
    const [column] = await reader.read(
      at,
      (leaf) => numberConvert(leaf.element),
      (leaves) => leaves,
    )
    const { definition } = column
    const values = column.values as number[]
    for (let row = 0, next = 0; row < rows; row++) {
      const value = definition === null || definition[row] > 0 ? values[next++] : null
      into[row * columns.length + i] = check(value, at, first + row)
    }
  }
}

function featureBlocks(
  file: ParquetFile,
  chosen: readonly number[],
  rows: number,
  columns: number,
): FeatureBlocks & Pick<Table, 'release'> {
  const { name, starts, fields } = file
  const check: Check = (value, at, row) => {
    if (value === null) {
      throw new Error(`${name}: feature ${show(fields[at].name)} must have a value, row ${row} has none`)
    }
    const number = Math.fround(value)
    if (Number.isFinite(number)) return number
    throw new Error(`${name}: feature ${show(fields[at].name)} must be finite, row ${row} has ${value}`)
  }
  // Rows are asked for in order, so the row group of the last ones is kept.
  const nothing = { group: -1, values: new Float32Array(0) }
  let kept = nothing
  const load = async (group: number) => {
    if (kept.group !== group) {
      kept = nothing
      const values = new Float32Array((starts[group + 1] - starts[group]) * columns)
      await readGroup(file, group, chosen, values, check)
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
