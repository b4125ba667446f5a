// Records of Parquet files, one row group at a time.
import { show } from './json.ts'
import { GroupReader, openParquetFile, type ParquetFile } from './parquet_file.ts'
import { assemble, RefusedCell, set } from './parquet_rows.ts'
import { Unsupported } from './parquet_schema.ts'
import { valueConvert } from './parquet_values.ts'
import type { FileRecord } from './records.ts'
import type { Source } from './source.ts'

/** Yields the records of a Parquet file as `readRecords` gives them. */
export async function* readParquetRecords(source: Source, columns?: readonly string[]): AsyncGenerator<FileRecord> {
  const file = await openParquetFile(source)
  const { name, starts, fields } = file
  const chosen = columns && new Set(columns)
  const wanted = [...fields.keys()].filter((at) => chosen === undefined || chosen.has(fields[at].name))
  for (let group = 0; group + 1 < starts.length; group++) {
    const rows = starts[group + 1] - starts[group]
    const read = await readParquetGroup(file, group, wanted, columns !== undefined)
    for (let row = 0; row < rows; row++) {
      const where = `${name} row ${starts[group] + row + 1}`
      const value: Record<string, unknown> = {}
      for (const { column, cells, unread } of read) {
        const cell = cells?.[row]
        if (cells && !(cell instanceof RefusedCell)) {
          set(value, column, cell)
          continue
        }
        const refused = cell as RefusedCell | undefined
        const message = refused ? `${where}: column ${show(refused.path)} holds ${refused.reason}` : unread
        if (columns) throw new Error(message)
        refuse(value, column, message)
      }
      yield { where, value }
    }
  }
}

interface ParquetColumn {
  readonly column: string
  /** Null where the column cannot be read for what it is, as `unread` says. */
  readonly cells: unknown[] | null
  readonly unread: string
}

/** Reads columns of a row group. Without `strict`, those that cannot be read for what they are are given as such. */
async function readParquetGroup(
  file: ParquetFile,
  group: number,
  wanted: readonly number[],
  strict: boolean,
): Promise<ParquetColumn[]> {
  const { name, starts, fields } = file
  const rows = starts[group + 1] - starts[group]
  const found: ParquetColumn[] = []
  const [seen, twice] = [new Set<string>(), new Set<string>()]
  for (const field of fields) (seen.has(field.name) ? twice : seen).add(field.name)
  if (rows === 0) return found
  const reader = new GroupReader(file, group, wanted)
  for (const at of wanted) {
    const column = fields[at].name
    try {
      if (twice.has(column)) {
        throw new Unsupported(`${name}: column ${show(column)} is there twice`)
      }
      const cells = await reader.read(
        at,
        (leaf) => valueConvert(leaf.element),
        (leaves) => assemble(fields[at], leaves, rows),
      )
      found.push({ column, cells, unread: '' })
    } catch (error) {
      if (strict || !(error instanceof Unsupported)) throw error
      found.push({ column, cells: null, unread: error.message })
    }
  }
  return found
}

/** A field that ends the command of whoever asks for it, and of nobody else. */
function refuse(value: Record<string, unknown>, column: string, message: string): void {
  Object.defineProperty(value, column, {
    get() {
      throw new Error(message)
    },
    configurable: true,
  })
}
