// Records of comma-separated text with a header line, as rows: cells are texts, numbers, or lists as JSON has them.
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

// Bounds what an unclosed quote can gather.
const LINE_LIMIT_CHARACTERS = 16 * 2 ** 20

interface CsvLine {
  readonly cells: readonly string[]
  /** On which it begins, counted from 1. */
  readonly line: number
}

/** Yields the lines of RFC 4180 text, blank ones left out. Throws on what is not UTF-8, and on a quote that is never closed. */
async function* csvLines(chunks: AsyncIterable<Uint8Array>, name: string, separator: string): AsyncGenerator<CsvLine> {
  // A byte order mark is taken away.
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const decode = (chunk?: Uint8Array): string => {
    try {
      return decoder.decode(chunk, { stream: chunk !== undefined })
    } catch {
      throw new Error(`${name} line ${line}: is not UTF-8 text`)
    }
  }
  let [line, begun, length] = [1, 1, 0]
  let cells: string[] = []
  let cell = ''
  // A quote inside of quotes may be their end, or the first of two that stand for one.
  let state = 'start' as 'start' | 'plain' | 'quoted' | 'quote'
  let found: CsvLine[] = []
  const endCell = () => {
    cells.push(cell)
    cell = ''
    state = 'start'
  }
  const endLine = () => {
    if (cells.length > 0 || cell !== '' || state !== 'start') {
      endCell()
      found.push({ cells, line: begun })
    }
    cells = []
    length = 0
  }
  const take = (character: string) => {
    if (state === 'quoted') {
      if (character === '"') state = 'quote'
      else cell += character
    } else if (character === '"' && (state === 'start' || state === 'quote')) {
      if (state === 'quote') cell += character
      state = 'quoted'
    } else if (character === separator) endCell()
    else if (character === '\n') {
      if (state === 'plain' && cell.endsWith('\r')) cell = cell.slice(0, -1)
      if (cell === '' && state === 'plain') state = 'start'
      endLine()
    } else if (state === 'quote') {
      if (character !== '\r')
        throw new Error(`${name} line ${line}: a quote must end its cell, ${show(character)} follows it`)
    } else {
      state = 'plain'
      cell += character
    }
    if (character === '\n') {
      line++
      if (length === 0) begun = line
    }
    length = character === '\n' && state === 'start' && cells.length === 0 ? 0 : length + 1
    if (length > LINE_LIMIT_CHARACTERS)
      throw new Error(`${name} line ${begun}: is longer than ${LINE_LIMIT_CHARACTERS} characters; a quote may be open`)
  }
  for await (const chunk of chunks) {
    for (const character of decode(chunk)) take(character)
    yield* found
    found = []
  }
  for (const character of decode()) take(character)
  if (state === 'quoted') throw new Error(`${name} line ${begun}: a quote is open at the end of the file`)
  endLine()
  yield* found
}

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
