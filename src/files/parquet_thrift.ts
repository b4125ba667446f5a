// Structs of the compact protocol of Thrift, in which Parquet writes its metadata and page headers.
import { PageReader } from './parquet_encodings.ts'

/** What is read of a struct: its numbers, truth values and inner structs by the numbers of their fields. */
export type Thrift = number | boolean | null | { [field: number]: Thrift }

// The metadata of the format has nine structs and lists inside of each other.
const DEEPEST = 16

/** Reads a struct; bytes and lists in it are passed over and are null. Throws on what reaches beyond the bytes. */
export function readStruct(reader: PageReader, depth = 0): { [field: number]: Thrift } {
  if (depth > DEEPEST) throw new Error('its parts are nested too deep')
  const fields: { [field: number]: Thrift } = {}
  for (let field = 0; ; ) {
    const byte = reader.bytes[reader.take(1)]
    if (byte === 0) return fields
    field = byte >> 4 ? field + (byte >> 4) : Number(reader.zigzag())
    fields[field] = readValue(reader, byte & 15, depth)
  }
}

function readValue(reader: PageReader, type: number, depth: number): Thrift {
  if (type === 1 || type === 2) return type === 1
  if (type === 3) return reader.view.getInt8(reader.take(1))
  if (type >= 4 && type <= 6) return Number(reader.zigzag())
  if (type === 7) reader.take(8)
  else if (type === 8) reader.take(reader.varint())
  else if (type === 9 || type === 10) passList(reader, depth + 1)
  else if (type === 12) return readStruct(reader, depth + 1)
  else throw new Error(`a field has the type ${type}`)
  return null
}

function passList(reader: PageReader, depth: number): void {
  if (depth > DEEPEST) throw new Error('its parts are nested too deep')
  const head = reader.bytes[reader.take(1)]
  const type = head & 15
  const size = head >> 4 === 15 ? reader.varint() : head >> 4
  if (size > reader.end - reader.at)
    throw new Error(`a list of ${size} is announced in ${reader.end - reader.at} bytes`)
  // In a list, a truth value has a byte.
  if (type <= 2) reader.take(size)
  else for (let i = 0; i < size; i++) readValue(reader, type, depth)
}

/** Throws where metadata are no struct, before anything that takes memory for what they announce reads them. */
export function checkStruct(bytes: Uint8Array): void {
  readStruct(new PageReader(bytes))
}
