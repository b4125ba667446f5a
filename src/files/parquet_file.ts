// Opening Parquet files: their metadata, checked, and one row group at a time for the readers of tables and of records.
import { type FileMetaData, parquetMetadataAsync, parquetSchema, type SchemaElement, type SchemaTree } from 'hyparquet'
import { printable, show } from './json.ts'
import type { Source } from './source.ts'

// Metadata of 100,000 columns in 10 row groups has about 100 MB.
const METADATA_LIMIT_BYTES = 512 * 2 ** 20

/** An open file: its metadata, and its bytes as the decoder asks for them. */
export interface ParquetFile {
  readonly name: string
  readonly buffer: { byteLength: number; slice(start: number, end?: number): Promise<ArrayBuffer> }
  readonly metadata: FileMetaData
  /** First row of each row group, and at the end the number of all rows. */
  readonly starts: readonly number[]
  readonly elements: readonly SchemaElement[]
}

/**
 * Opens a Parquet file and checks its metadata. Throws on other files, cut off ones and metadata that point outside of the file.
 */
export async function openParquetFile(source: Source): Promise<ParquetFile> {
  const { name, byteLength } = source
  const buffer = {
    byteLength,
    slice: async (start: number, end = byteLength) => (await source.read(start, end - start)).buffer,
  }
  if (byteLength < 12) throw new Error(`${name}: not a Parquet file, it has only ${byteLength} bytes`)
  const tail = await source.read(byteLength - 8, 8)
  const footer = new DataView(tail.buffer).getUint32(0, true)
  if (String.fromCharCode(...tail.subarray(4)) !== 'PAR1') {
    throw new Error(`${name}: not a Parquet file, or cut off; it must end with PAR1`)
  }
  if (footer > byteLength - 12 || footer > METADATA_LIMIT_BYTES) {
    throw new Error(`${name}: metadata of ${footer} bytes exceed the file (${byteLength}) or ${METADATA_LIMIT_BYTES}`)
  }
  return guarded(name, 'metadata', async () => {
    const metadata = await parquetMetadataAsync(buffer, { geoparquet: false })
    const schema = parquetSchema(metadata)
    const elements = schema.children.map((child) => child.element)
    if (!elements.every((element) => typeof element.name === 'string')) throw new Error('a column has no name')
    const leaves = leafPaths(schema)
    const starts = [0]
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows)
      if (!Number.isSafeInteger(rows) || rows < 0) throw new Error(`a row group has ${rows} rows`)
      if (group.columns.length !== leaves.length) {
        throw new Error(`a row group has ${group.columns.length} columns, the schema ${leaves.length}`)
      }
      for (const [i, { meta_data: column }] of group.columns.entries()) {
        if (!column) throw new Error('a column has no metadata')
        // The decoder starts to read chunks that no column of the schema waits for; their errors would be nobody's.
        if (column.path_in_schema.join('.') !== leaves[i]) {
          throw new Error(
            `a row group has a column ${show(column.path_in_schema)} where the schema has ${show(leaves[i])}`,
          )
        }
        const [begin, length] = [Number(column.data_page_offset), Number(column.total_compressed_size)]
        if (!(begin >= 0 && length >= 0 && begin + length <= byteLength)) {
          throw new Error(`column ${show(column.path_in_schema[0])} is at bytes ${begin} to ${begin + length}`)
        }
      }
      starts.push(starts[starts.length - 1] + rows)
    }
    if (BigInt(starts[starts.length - 1]) !== metadata.num_rows) {
      throw new Error(`${metadata.num_rows} rows are announced, the row groups have ${starts[starts.length - 1]}`)
    }
    return { name, buffer, metadata, starts, elements }
  })
}

/** The columns that hold values, in the order in which row groups have them. */
function leafPaths({ children, path }: SchemaTree): string[] {
  return children.length === 0 ? [path.join('.')] : children.flatMap(leafPaths)
}

/** Runs the decoder, whose errors about damaged files are of many kinds. */
export async function guarded<T>(name: string, what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const reason = printable(error instanceof Error ? error.message : String(error)) // decoders throw texts, too
    throw new Error(`${name}: ${what} cannot be read, the file may be damaged (${reason})`)
  }
}

/** The metadata of one row group alone, so that the decoder reads nothing else. */
export function rowGroup({ metadata, starts }: ParquetFile, group: number): FileMetaData {
  const rows = starts[group + 1] - starts[group]
  return { ...metadata, row_groups: [metadata.row_groups[group]], num_rows: BigInt(rows) }
}
