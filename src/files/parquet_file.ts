// Opening Parquet files: their metadata, checked, and the columns of one row group at a time for tables and records.
import { type ColumnMetaData, type FileMetaData, parquetMetadataAsync, parquetSchema } from 'hyparquet'
import { printable, show } from './json.ts'
import { type ColumnValues, readColumn } from './parquet_pages.ts'
import { type Field, type LeafField, readFields, Unsupported } from './parquet_schema.ts'
import { checkStruct } from './parquet_thrift.ts'
import type { Convert } from './parquet_values.ts'
import type { Source } from './source.ts'

// Metadata of 100,000 columns in 10 row groups has about 100 MB.
const METADATA_LIMIT_BYTES = 512 * 2 ** 20
// Arrow writes at most this many rows a group, and at least a hundred bytes for a group.
const GROUP_LIMIT_ROWS = 2 ** 26
const VALUES_PER_BYTE = 2 ** 14
// Chunks that lie together are read together, up to this size and over gaps of at most that.
const [RUN_BYTES, GAP_BYTES] = [4 * 2 ** 20, 8192]

/** An open file and its metadata. */
export interface ParquetFile {
  readonly name: string
  readonly source: Source
  /** First row of each row group, and at the end the number of all rows. */
  readonly starts: readonly number[]
  /** The columns in order. */
  readonly fields: readonly Field[]
  readonly leaves: readonly LeafField[]
  /** For each row group the chunks of its leaves. */
  readonly groups: readonly (readonly Chunk[])[]
}

/** Bytes [begin, end) of the file with the values of a leaf in a row group. */
interface Chunk {
  readonly begin: number
  readonly end: number
  readonly meta: ColumnMetaData
  /** Why it cannot be read although nothing is damaged; null where it can. */
  readonly unsupported: string | null
}

/**
 * Opens a Parquet file and checks its metadata. Throws on other files, cut off ones and metadata that point outside of the file.
 */
export async function openParquetFile(source: Source): Promise<ParquetFile> {
  const { name, byteLength } = source
  if (byteLength < 12) throw new Error(`${name}: not a Parquet file, it has only ${byteLength} bytes`)
  const tail = await source.read(byteLength - 8, 8)
  const footer = new DataView(tail.buffer).getUint32(0, true)
  const mark = String.fromCharCode(...tail.subarray(4))
  if (mark === 'PARE') throw new Error(`${name}: is an encrypted Parquet file, which is not read`)
  if (mark !== 'PAR1') {
    throw new Error(`${name}: not a Parquet file, or cut off; it must end with PAR1`)
  }
  if (footer > byteLength - 12 || footer > METADATA_LIMIT_BYTES) {
    throw new Error(`${name}: metadata of ${footer} bytes exceed the file (${byteLength}) or ${METADATA_LIMIT_BYTES}`)
  }
  return guarded(name, 'metadata', async () => {
    checkStruct(await source.read(byteLength - 8 - footer, footer))
    const metadata = await readMetadata(source)
    const schema = parquetSchema(metadata)
    const { fields, leaves } = readFields(schema)
    const starts = [0]
    const groups: Chunk[][] = []
    const limit = VALUES_PER_BYTE * byteLength
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows)
      if (!(Number.isInteger(rows) && rows >= 0 && rows <= GROUP_LIMIT_ROWS)) {
        throw new Error(`a row group has ${rows} rows, more than ${GROUP_LIMIT_ROWS} are not read`)
      }
      if (group.columns.length !== leaves.length) {
        throw new Error(`a row group has ${group.columns.length} columns, the schema ${leaves.length}`)
      }
      groups.push(
        group.columns.map((column, i) => {
          const chunk = readChunk(column, leaves[i], byteLength)
          const values = Number(chunk.meta.num_values)
          if (
            !(Number.isInteger(values) && values >= 0 && values <= limit) ||
            (leaves[i].repeated === 0 && values !== rows)
          ) {
            throw new Error(`column ${show(leaves[i].path)} has ${values} values in a row group of ${rows} rows`)
          }
          return chunk
        }),
      )
      starts.push(starts[starts.length - 1] + rows)
    }
    const rows = starts[starts.length - 1]
    if (BigInt(rows) !== metadata.num_rows) {
      throw new Error(`${metadata.num_rows} rows are announced, the row groups have ${rows}`)
    }
    if (rows > limit) throw new Error(`${rows} rows are announced in ${byteLength} bytes`)
    return { name, source, starts, fields, leaves, groups }
  })
}

async function readMetadata(source: Source): Promise<FileMetaData> {
  const { byteLength } = source
  const slice = async (start: number, end = byteLength) => (await source.read(start, end - start)).buffer
  // Statistics are not used, so nothing odd in them may end a command.
  const nothing = () => undefined
  const parsers = {
    timestampFromMilliseconds: nothing,
    timestampFromMicroseconds: nothing,
    timestampFromNanoseconds: nothing,
    dateFromDays: nothing,
    stringFromBytes: nothing,
    uuidFromBytes: nothing,
  }
  return parquetMetadataAsync({ byteLength, slice }, { geoparquet: false, parsers })
}

function readChunk(
  column: FileMetaData['row_groups'][number]['columns'][number],
  leaf: LeafField,
  size: number,
): Chunk {
  const { meta_data: meta } = column
  if (!meta) throw new Error(`column ${show(leaf.path)} has no metadata, it may be encrypted`)
  if (meta.path_in_schema.join('.') !== leaf.path) {
    throw new Error(`a row group has a column ${show(meta.path_in_schema)} where the schema has ${show(leaf.path)}`)
  }
  const dictionary = Number(meta.dictionary_page_offset ?? 0)
  const data = Number(meta.data_page_offset)
  const begin = dictionary > 0 && dictionary < data ? dictionary : data
  const end = begin + Number(meta.total_compressed_size)
  if (![begin, end].every(Number.isInteger) || !(begin >= 0 && end >= begin && end <= size)) {
    throw new Error(`column ${show(leaf.path)} is at bytes ${begin} to ${end}`)
  }
  let unsupported: string | null = null
  if (column.crypto_metadata) unsupported = 'is encrypted, which is not read'
  else if (column.file_path) unsupported = `is in another file, ${show(column.file_path)}, which is not read`
  return { begin, end, meta, unsupported }
}

/** Runs the decoder, whose errors about damaged files are of many kinds. */
async function guarded<T>(name: string, what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof Unsupported) throw new Unsupported(`${name}: ${what} ${printable(error.message)}`)
    const reason = printable(reasonOf(error))
    throw new Error(`${name}: ${what} cannot be read, the file may be damaged (${reason})`)
  }
}

/** The decoders' own words; what the language says about undefined properties is of no use to anybody. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error) // decoders throw texts, too
  const own = error.constructor === Error
  return own ? error.message : 'its parts contradict each other'
}

/** Reads columns of a row group, so that chunks which lie together in the file are read together. */
export class GroupReader {
  private readonly file: ParquetFile
  private readonly chunks: readonly Chunk[]
  private readonly runs: { begin: number; end: number }[] = []
  private kept: { begin: number; bytes: Uint8Array } | null = null

  /** `columns` are those that will be read. */
  constructor(file: ParquetFile, group: number, columns: readonly number[]) {
    this.file = file
    this.chunks = file.groups[group]
    const wanted = columns
      .flatMap((at) => this.chunks.slice(file.fields[at].first, file.fields[at].end))
      .sort((a, b) => a.begin - b.begin)
    for (const { begin, end } of wanted) {
      const run = this.runs[this.runs.length - 1]
      if (run && begin - run.end <= GAP_BYTES && end - run.begin <= RUN_BYTES) run.end = Math.max(run.end, end)
      else this.runs.push({ begin, end })
    }
  }

  /**
   * What `make` makes of the values of a column. Throws errors that name it: `Unsupported` for what it is, others for damage, also
   * those of `make`.
   */
  async read<T>(at: number, convert: (leaf: LeafField) => Convert, make: (leaves: ColumnValues[]) => T): Promise<T> {
    const { name, fields, leaves } = this.file
    const { first, end } = fields[at]
    return guarded(name, `column ${show(fields[at].name)}`, async () => {
      const columns: ColumnValues[] = []
      for (let i = first; i < end; i++) {
        const { meta, unsupported } = this.chunks[i]
        if (unsupported !== null) throw new Unsupported(unsupported)
        columns.push(await readColumn(await this.bytes(this.chunks[i]), leaves[i], meta, convert(leaves[i])))
      }
      return make(columns)
    })
  }

  private async bytes({ begin, end }: Chunk): Promise<Uint8Array> {
    if (!this.kept || begin < this.kept.begin || end > this.kept.begin + this.kept.bytes.length) {
      this.kept = null
      const run = this.runs.find((one) => one.begin <= begin && end <= one.end)!
      this.kept = { begin: run.begin, bytes: await this.file.source.read(run.begin, run.end - run.begin) }
    }
    return this.kept.bytes.subarray(begin - this.kept.begin, end - this.kept.begin)
  }
}
