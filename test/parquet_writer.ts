// Writes small Parquet files that say whatever they are told, true or not; field numbers are those of parquet.thrift.

/** A value of the compact protocol of Thrift. */
type Thrift = { i: number | bigint } | { text: string } | { is: boolean } | { list: Thrift[] } | { struct: Fields }
export type Fields = Record<number, Thrift>

export const MAGIC = [...new TextEncoder().encode('PAR1')]

function varint(value: bigint): number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  return [...bytes, Number(rest)]
}

function typeOf(value: Thrift): number {
  if ('i' in value) return 6
  if ('text' in value) return 8
  if ('list' in value) return 9
  return 'struct' in value ? 12 : value.is ? 1 : 2
}

function bytesOf(value: Thrift): number[] {
  if ('i' in value) return varint(BigInt.asUintN(64, (BigInt(value.i) << 1n) ^ (BigInt(value.i) >> 63n)))
  if ('text' in value) {
    const bytes = [...new TextEncoder().encode(value.text)]
    return [...varint(BigInt(bytes.length)), ...bytes]
  }
  if ('list' in value) {
    const [type, size] = [value.list.length ? typeOf(value.list[0]) : 12, value.list.length]
    const head = size < 15 ? [(size << 4) | type] : [0xf0 | type, ...varint(BigInt(size))]
    return [...head, ...value.list.flatMap(bytesOf)]
  }
  return 'struct' in value ? struct(value.struct) : []
}

/** A struct of the compact protocol. */
export function struct(fields: Fields): number[] {
  const bytes: number[] = []
  let before = 0
  for (const [id, value] of Object.entries(fields)) {
    bytes.push(((Number(id) - before) << 4) | typeOf(value), ...bytesOf(value))
    before = Number(id)
  }
  return [...bytes, 0]
}

export const int32 = (...values: number[]): number[] => [...new Uint8Array(Int32Array.from(values).buffer)]

/** DELTA_BINARY_PACKED: one block of at most 4,096 differences, each of 32 bits. */
export function differences(values: readonly number[]): number[] {
  const steps = values.slice(1).map((value, i) => value - values[i])
  const least = Math.min(...steps)
  const packed = Uint32Array.from({ length: 4096 }, (_, i) => (i < steps.length ? steps[i] - least : 0))
  const head = [4096, 1, values.length].flatMap((number) => varint(BigInt(number)))
  return [...head, ...bytesOf({ i: values[0] }), ...bytesOf({ i: least }), 32, ...new Uint8Array(packed.buffer)]
}

/** A data page of the first version: values of an encoding, PLAIN if none is given. */
export function page(
  values: number,
  data: number[],
  { encoding = 0, unpacked = data.length, header = {}, crc = null as number | null } = {},
): number[] {
  const checksum: Fields = crc === null ? {} : { 4: { i: crc } }
  const fields: Fields = {
    1: { i: 0 },
    2: { i: unpacked },
    3: { i: data.length },
    ...checksum,
    5: { struct: { 1: { i: values }, 2: { i: encoding }, 3: { i: 3 }, 4: { i: 3 }, ...header } },
  }
  return [...struct(fields), ...data]
}

/** A dictionary page of `values` values. */
export function dictionary(values: number, data: number[]): number[] {
  const fields = {
    1: { i: 2 },
    2: { i: data.length },
    3: { i: data.length },
    7: { struct: { 1: { i: values }, 2: { i: 0 } } },
  }
  return [...struct(fields), ...data]
}

/** A leaf of the schema and its chunk. */
export interface WrittenColumn {
  readonly name: string
  /** As the format numbers types: 1 is INT32, 2 INT64, 6 BYTE_ARRAY. */
  readonly type: number
  /** 0 is required, 1 optional, 2 repeated. */
  readonly repetition?: number
  readonly pages: readonly number[][]
  /** 0 is not packed, 2 gzip, 3 LZO, 6 Zstandard. */
  readonly codec?: number
  readonly values?: number
  /** Changes of ColumnMetaData, ColumnChunk and SchemaElement. */
  readonly meta?: Fields
  readonly chunk?: Fields
  readonly element?: Fields
}

/** A file of one row group. */
export function parquetFile(
  rows: number,
  columns: readonly WrittenColumn[],
  { announced = rows, footer = {} as Fields } = {},
): Uint8Array {
  const bytes = [...MAGIC]
  const chunks: Thrift[] = []
  for (const { name, type, pages, codec = 0, values = rows, meta = {}, chunk = {} } of columns) {
    const [begin, data] = [bytes.length, pages.flat()]
    for (const byte of data) bytes.push(byte)
    const fields: Fields = {
      1: { i: type },
      2: { list: [{ i: 0 }] },
      3: { list: [{ text: name }] },
      4: { i: codec },
      5: { i: values },
      6: { i: data.length },
      7: { i: data.length },
      9: { i: begin },
      ...meta,
    }
    chunks.push({ struct: { 2: { i: 0 }, 3: { struct: fields }, ...chunk } })
  }
  const leaves = columns.map(
    ({ name, type, repetition = 0, element = {} }): Thrift => ({
      struct: { 1: { i: type }, 3: { i: repetition }, 4: { text: name }, ...element },
    }),
  )
  const root: Thrift = { struct: { 4: { text: 'schema' }, 5: { i: columns.length } } }
  const metadata = struct({
    1: { i: 1 },
    2: { list: [root, ...leaves] },
    3: { i: announced },
    4: { list: [{ struct: { 1: { list: chunks }, 2: { i: bytes.length }, 3: { i: rows } } }] },
    ...footer,
  })
  return closed(bytes, metadata)
}

/** Puts metadata at the end of the bytes of a file. */
export function closed(bytes: readonly number[], metadata: readonly number[]): Uint8Array {
  const whole = new Uint8Array(bytes.length + metadata.length + 8)
  whole.set(bytes)
  whole.set(metadata, bytes.length)
  new DataView(whole.buffer).setUint32(whole.length - 8, metadata.length, true)
  whole.set(new TextEncoder().encode('PAR1'), whole.length - 4)
  return whole
}
