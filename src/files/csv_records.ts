// Records of comma-separated text with a header line, as rows: cells are texts, numbers, or lists as JSON has them.
import { csvLines } from './csv.ts'
import { show } from './json.ts'
import type { FileRecord } from './records.ts'

/** Columns whose cells are texts even where they look like numbers. */
const TEXTS = [
  ...['prompt', 'response', 'completion', 'input', 'output', 'instruction', 'chosen', 'rejected', 'text', 'messages'],
  ...['id', 'item', 'rater', 'attribute', 'subset', 'source'],
]

// A number has fewer characters; the bound keeps a hostile cell from costing time.
const NUMBER_CHARACTERS = 64
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i
const MISSING = ['', 'na', 'n/a', 'nan', 'null', 'none']

/**
 * Yields the lines below the header as records. A cell that is empty, NA or NaN is null; one that holds a number is it, but in columns of
 * texts; one that holds a JSON list is it (in columns of texts, where it is a list of objects). Throws as `readCsv` on lines of another
 * length than the header, and on columns of one name.
 */
export async function* csvRecords(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  separator: string,
): AsyncGenerator<FileRecord> {
  let columns: { readonly name: string; readonly text: boolean }[] | null = null
  for await (const { cells, line } of csvLines(chunks, name, separator)) {
    const where = `${name} line ${line}`
    if (columns === null) {
      columns = cells.map((cell) => ({ name: cell.trim(), text: TEXTS.includes(cell.trim()) }))
      checkHeader(
        columns.map((column) => column.name),
        name,
      )
      continue
    }
    if (cells.length !== columns.length) {
      throw new Error(`${where}: must have ${columns.length} cells like the header, got ${cells.length}`)
    }
    yield {
      where,
      value: Object.fromEntries(columns.map((column, i) => [column.name, readCell(cells[i], column.text)])),
    }
  }
  if (columns === null) throw new Error(`${name}: is empty; it must begin with a line of column names`)
}

function checkHeader(names: readonly string[], file: string): void {
  const bad = names.find((name, i) => name === '' || names.indexOf(name) !== i)
  if (bad !== undefined) {
    throw new Error(
      `${file}: the header must be different names that are not empty, got ${show(bad)} among ${names.length}`,
    )
  }
}

function readCell(cell: string, isText: boolean): unknown {
  const plain = cell.length <= NUMBER_CHARACTERS ? cell.trim() : null
  if (cell === '' || (plain !== null && !isText && MISSING.includes(plain.toLowerCase()))) return null
  if (/^\s*\[/.test(cell)) {
    const list = jsonList(cell)
    if (list !== null && (!isText || list.every((one) => typeof one === 'object' && one !== null))) return list
  }
  return !isText && plain !== null && NUMBER.test(plain) ? Number(plain) : cell
}

function jsonList(cell: string): unknown[] | null {
  try {
    const found: unknown = JSON.parse(cell)
    return Array.isArray(found) && found.length > 0 ? found : null
  } catch {
    return null
  }
}
