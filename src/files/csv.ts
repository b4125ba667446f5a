// Reads tables of numbers as comma-separated text (RFC 4180) with a header line, as a stream of pieces.
import { parse } from 'csv-parse'
import { decimal } from './decimal.ts'
import { show } from './json.ts'
import type { Source } from './source.ts'
import {
  CHOOSE,
  type ChosenColumns,
  type ColumnChoice,
  chooseColumns,
  FEATURE_LIMIT_BYTES,
  type FeatureBlocks,
  type Table,
} from './table.ts'

const PIECE_BYTES = 2 ** 20
// Bounds what an unclosed quote can gather; a line of 65536 numbers has about 1 MB.
const LINE_LIMIT_BYTES = 16 * 2 ** 20
const BLOCK_VALUES = 2 ** 18

/**
 * Reads a whole table; `separator` is one character. Fields may be quoted, lines end in LF or CR LF, blank lines are skipped.
 * Throws `NAME line N: ...` on lines of another length than the header, cells that are no decimal numbers, and empty
 * cells, except in label columns, where they (and NA and NaN) mean a missing label.
 */
export async function readCsv(source: Source, choice: ColumnChoice, separator = ','): Promise<Table> {
  const { name } = source
  let reader: RowReader | null = null
  const take = (cells: string[], line: number) => {
    if (reader === null) reader = startRows(cells, choice, { name, separator })
    else reader.row(cells, line)
  }
  await parseLines(source, separator, take)
  if (reader === null) throw new Error(`${name}: is empty; it must begin with a line of column names`)
  return (reader as RowReader).end()
}

async function parseLines(
  source: Source,
  separator: string,
  take: (cells: string[], line: number) => void,
): Promise<void> {
  const { name, byteLength } = source
  let failure: Error | null = null
  const parser = parse({
    bom: true,
    delimiter: separator,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: LINE_LIMIT_BYTES,
    on_record: (cells: string[], { lines }: { lines: number }) => {
      try {
        take(cells, lines)
      } catch (error) {
        failure = error as Error
        throw error
      }
      return null // nothing is passed on: memory does not grow with the file
    },
  })
  parser.on('error', () => {}) // each write reports it as well
  parser.resume()
  const settled = (run: (done: (error?: Error | null) => void) => void) =>
    new Promise<void>((resolve, reject) =>
      run((error) => (error ? reject(failure ?? explain(error, name)) : resolve())),
    )
  try {
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      const piece = await source.read(at, Math.min(PIECE_BYTES, byteLength - at))
      await settled((done) => parser.write(Buffer.from(piece.buffer, 0, piece.length), done))
    }
    await settled((done) => parser.end(done))
  } finally {
    parser.destroy()
  }
}

function explain(error: Error & { code?: string; lines?: number }, name: string): Error {
  const where = error.lines === undefined ? name : `${name} line ${error.lines}`
  if (error.code === 'CSV_MAX_RECORD_SIZE') {
    return new Error(`${where}: is longer than ${LINE_LIMIT_BYTES} bytes; a quote may be open`)
  }
  if (error.code === 'CSV_QUOTE_NOT_CLOSED') return new Error(`${where}: a quote is open at the end of the file`)
  return new Error(`${where}: is not CSV: ${error.message}`)
}

interface RowReader {
  row(cells: string[], line: number): void
  end(): Table
}

function startRows(header: string[], choice: ColumnChoice, file: { name: string; separator: string }): RowReader {
  const { name, separator } = file
  const names = header.map((text) => text.trim())
  if (names.some((text) => text.includes('\ufffd') || text.includes('\0'))) {
    throw new Error(`${name}: the header line must be UTF-8 text`)
  }
  if (names.length === 1 && separator === ',' && /[;\t|]/.test(names[0])) {
    throw new Error(
      `${name}: columns must be separated by commas (by tabs in a .tsv file), the header is ${show(names[0])}`,
    )
  }
  const chosen = chooseColumns(names, choice, name)
  const { features, labels, weights } = chosen
  const [columns, blockRows] = [features.length, Math.max(1, Math.floor(BLOCK_VALUES / features.length))]
  const blocks: Float32Array[] = []
  const labelValues: number[] = []
  const weightValues: number[] = []
  let rows = 0
  return {
    row(cells, line) {
      if (cells.length !== names.length) {
        throw new Error(`${name} line ${line}: must have ${names.length} cells like the header, got ${cells.length}`)
      }
      if (rows % blockRows === 0) {
        checkSize(rows + blockRows, columns, name)
        blocks.push(new Float32Array(blockRows * columns))
      }
      const block = blocks[blocks.length - 1]
      const at = (rows % blockRows) * columns
      for (let d = 0; d < columns; d++) {
        const value = Math.fround(decimal(cells[features[d]]))
        if (!Number.isFinite(value)) throw badFeature(cells[features[d]], names[features[d]], name, line)
        block[at + d] = value
      }
      for (const m of labels) labelValues.push(label(cells[m], `${name} line ${line}: label ${show(names[m])}`))
      if (weights >= 0)
        weightValues.push(weight(cells[weights], `${name} line ${line}: weight ${show(names[weights])}`))
      rows++
    },
    end: () => finish({ name, names, chosen, blocks, blockRows, rows, labelValues, weightValues }),
  }
}

function finish(all: {
  name: string
  names: string[]
  chosen: ChosenColumns
  blocks: Float32Array[]
  blockRows: number
  rows: number
  labelValues: number[]
  weightValues: number[]
}): Table {
  const { name, rows, names, chosen } = all
  if (rows === 0) throw new Error(`${name}: has no rows after the header line`)
  const columns = chosen.features.length
  const features: FeatureBlocks = {
    name,
    rows,
    columns,
    dtype: 'f32',
    async read(firstRow, count) {
      if (all.blocks.length === 0) throw new Error(`${name}: is closed`)
      const out = new Float32Array(count * columns)
      for (let row = firstRow; row < firstRow + count; ) {
        const [block, inside] = [Math.floor(row / all.blockRows), row % all.blockRows]
        const take = Math.min(all.blockRows - inside, firstRow + count - row)
        const values = all.blocks[block].subarray(inside * columns, (inside + take) * columns)
        out.set(values, (row - firstRow) * columns)
        row += take
      }
      return out
    },
  }
  return {
    features,
    columns: chosen.features.map((at) => names[at]),
    labels: Float32Array.from(all.labelValues),
    weights: chosen.weights < 0 ? null : Float32Array.from(all.weightValues),
    release: () => all.blocks.splice(0),
  }
}

/** Says whether a cell is empty, NA or NaN. */
function isMissing(cell: string): boolean {
  return /^(NA|NaN)?$/i.test(cell.trim())
}

function label(cell: string, where: string): number {
  if (isMissing(cell)) return Number.NaN
  const value = Math.fround(decimal(cell))
  if (Number.isFinite(value)) return value
  throw new Error(`${where} must be a finite number or empty, got ${show(cell)}`)
}

function weight(cell: string, where: string): number {
  const value = Math.fround(decimal(cell))
  if (Number.isFinite(value) && value >= 0) return value
  throw new Error(`${where} must be a number of at least 0, got ${show(cell)}`)
}

function badFeature(cell: string, column: string, name: string, line: number): Error {
  const where = `${name} line ${line}: feature ${show(column)}`
  if (isMissing(cell)) return new Error(`${where} is missing; leave the row or the column out (--columns a,b,c)`)
  return new Error(`${where} must be a finite number, got ${show(cell)}; ${CHOOSE}`)
}

function checkSize(rows: number, columns: number, name: string): void {
  if (rows * columns * 4 <= FEATURE_LIMIT_BYTES) return
  const size = `${rows} rows of ${columns} features are more than the ${FEATURE_LIMIT_BYTES / 2 ** 30} GiB that fit`
  throw new Error(`${name}: ${size}; leave out rows or columns, or make a safetensors file in bf16`)
}
