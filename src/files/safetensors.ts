// Reads (lazily, by byte range, strictly) and writes safetensors files, single or sharded.
// Source: the format section of the README of huggingface/safetensors.
import { isObject, parseJsonObject, show } from './json.ts'
import { decodeUtf8, type ModelFiles, readText, type Source } from './source.ts'

const DTYPE_BYTES = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I8: 1,
  U8: 1,
  BOOL: 1,
}

export type SafetensorsDType = keyof typeof DTYPE_BYTES

/** One tensor of an opened file: row-major, little-endian, at bytes [begin, end) of `source`. */
export interface TensorInfo {
  readonly name: string
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]
  readonly begin: number
  readonly end: number
  readonly source: Source
}

export interface Safetensors {
  /** In the order of their bytes. */
  readonly tensors: Map<string, TensorInfo>
  readonly metadata: Record<string, string>
}

/** A tensor to be written; `data` must have exactly the bytes that `dtype` and `shape` need. */
export interface TensorData {
  readonly name: string
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]
  readonly data: ArrayBufferView
}

// The file opens with the length of its header as a 64-bit little-endian number.
const PREFIX_BYTES = 8
// The bound of the reference implementation; the header of an 8B checkpoint has about 40 kB.
const HEADER_LIMIT_BYTES = 100_000_000
// Real tensors have at most five dimensions; the bound keeps a hostile header from costing time.
const RANK_LIMIT = 16
// An index names each tensor and its shard; that of a 400B checkpoint has about 100 kB.
const INDEX_FILE = 'model.safetensors.index.json'
const SINGLE_FILE = 'model.safetensors'

/**
 * Opens a safetensors file: reads and checks its header, no tensor. Throws on a header that is too long for the file or
 * above 100 MB, not a JSON object, repeated names, unknown dtypes, impossible shapes, offsets whose length is not that of
 * dtype and shape, overlaps, gaps, and bytes missing or left over at the end.
 */
export async function openSafetensors(source: Source): Promise<Safetensors> {
  const headerBytes = await readHeaderLength(source)
  const bytes = await source.read(PREFIX_BYTES, headerBytes)
  if (bytes[0] !== 0x7b) throw new Error(`${source.name}: the header must begin with {, got byte ${bytes[0]}`)
  const header = parseJsonObject(decodeUtf8(bytes, `${source.name}: header`), `${source.name}: header`)
  const metadata = readMetadata(header.__metadata__, source.name)
  const dataBegin = PREFIX_BYTES + headerBytes
  const infos: TensorInfo[] = []
  for (const [name, entry] of Object.entries(header)) {
    if (name !== '__metadata__') infos.push(readEntry(name, entry, dataBegin, source))
  }
  infos.sort((a, b) => a.begin - b.begin || a.end - b.end)
  checkLayout(infos, dataBegin, source)
  return { tensors: new Map(infos.map((info) => [info.name, info])), metadata }
}

/** Whether a file is one, or would be by its name. */
export async function isSafetensors(source: Source): Promise<boolean> {
  if (/\.safetensors$/i.test(source.name)) return true
  return source.byteLength > PREFIX_BYTES && (await source.read(PREFIX_BYTES, 1))[0] === 0x7b
}

async function readHeaderLength(source: Source): Promise<number> {
  const { name, byteLength } = source
  if (byteLength < PREFIX_BYTES) throw new Error(`${name}: not a safetensors file, it has only ${byteLength} bytes`)
  const prefix = await source.read(0, PREFIX_BYTES)
  const length = new DataView(prefix.buffer).getBigUint64(0, true)
  const other = otherKind(prefix)
  if (other !== null) throw new Error(`${name}: not a safetensors file, it is ${other}`)
  if (length > BigInt(HEADER_LIMIT_BYTES)) {
    throw new Error(`${name}: header of ${length} bytes is above the limit of ${HEADER_LIMIT_BYTES}`)
  }
  if (length > BigInt(byteLength - PREFIX_BYTES)) {
    throw new Error(`${name}: header of ${length} bytes exceeds the file (${byteLength} bytes)`)
  }
  if (length < 2n) throw new Error(`${name}: header of ${length} bytes is too short to be a JSON object`)
  return Number(length)
}

// How files begin that people take for safetensors. As lengths of a header these bytes are all above the limit.
const OTHER_KINDS: [string, string][] = [
  ['PK\x03\x04', 'a ZIP archive, as .npz and .pt files are; save a .npy or safetensors file instead'],
  ['\x1f\x8b', 'packed with gzip; unpack it first'],
  ['\x93NUMPY', 'a NumPy array; its name must end in .npy'],
  ['PAR1', 'a Parquet file; its name must end in .parquet'],
  ['\x89HDF', 'an HDF5 file; save a .npy or safetensors file instead'],
  ['\x80\x02', 'a pickle of Python, as .pt and .bin files are; save a safetensors file instead'],
  ['version ', 'the pointer that Git LFS leaves in place of the file; fetch the file itself (git lfs pull)'],
  ['<!DOCTYP', 'a page of HTML; fetch the file itself'],
]

/** What a file is that begins so and cannot be safetensors; null where it may be. */
function otherKind(prefix: Uint8Array): string | null {
  const text = String.fromCharCode(...prefix)
  // A real header is below 100 MB, so its length has zeros in its upper half.
  if (text.endsWith('\0\0\0\0')) return null
  return OTHER_KINDS.find(([begin]) => text.startsWith(begin))?.[1] ?? null
}

function readMetadata(value: unknown, file: string): Record<string, string> {
  if (value === undefined || value === null) return {}
  if (!isObject(value)) throw new Error(`${file}: __metadata__ must be an object, got ${show(value)}`)
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw new Error(`${file}: __metadata__ ${show(key)} must be a string, got ${show(text)}`)
    }
  }
  return value as Record<string, string>
}

function readEntry(name: string, entry: unknown, dataBegin: number, source: Source): TensorInfo {
  const where = `${source.name}: tensor ${show(name)}`
  if (!isObject(entry)) throw new Error(`${where}: must be an object, got ${show(entry)}`)
  for (const key of Object.keys(entry)) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') {
      throw new Error(`${where}: unknown field ${show(key)}`)
    }
  }
  const { dtype, shape, data_offsets: offsets } = entry
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw new Error(`${where}: unknown dtype ${show(dtype)}`)
  }
  const size = tensorBytes(where, dtype as SafetensorsDType, shape)
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw new Error(`${where}: data_offsets must be two whole numbers, got ${show(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  if (end < begin) throw new Error(`${where}: data_offsets must not fall, got ${show(offsets)}`)
  if (end - begin !== size) {
    throw new Error(`${where}: ${dtype} ${show(shape)} needs ${size} bytes, data_offsets give ${end - begin}`)
  }
  if (end > source.byteLength - dataBegin) {
    throw new Error(`${where}: ends at byte ${end} of the data, the file has ${source.byteLength - dataBegin}`)
  }
  return {
    name,
    dtype: dtype as SafetensorsDType,
    shape: shape as number[],
    begin: dataBegin + begin,
    end: dataBegin + end,
    source,
  }
}

function tensorBytes(where: string, dtype: SafetensorsDType, shape: unknown): number {
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw new Error(`${where}: shape must be a list of whole numbers, got ${show(shape)}`)
  }
  if (shape.length > RANK_LIMIT) throw new Error(`${where}: ${shape.length} dimensions are above the limit of 16`)
  let size: number = DTYPE_BYTES[dtype]
  for (const length of shape as number[]) {
    size *= length
    if (!Number.isSafeInteger(size)) throw new Error(`${where}: shape ${show(shape)} is too large`)
  }
  return size
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function checkLayout(infos: TensorInfo[], dataBegin: number, source: Source): void {
  let at = dataBegin
  let before = 'the header'
  for (const info of infos) {
    if (info.begin !== at) {
      const what = info.begin < at ? 'overlaps' : 'leaves a gap after'
      const begin = info.begin - dataBegin
      throw new Error(
        `${source.name}: tensor ${show(info.name)} ${what} ${before}: it begins at byte ${begin} of the data, not ${at - dataBegin}`,
      )
    }
    at = info.end
    before = show(info.name)
  }
  if (at !== source.byteLength) {
    throw new Error(`${source.name}: ${source.byteLength - at} bytes after the last tensor (${before}) belong to none`)
  }
}

/**
 * Opens the tensors of a model directory: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
 * Throws when there is neither, a shard is missing, a tensor is not in the shard the index gives it, or a shard holds
 * tensors that the index does not give it. The sources stay open as long as the tensors are used; see `closeTensors`.
 */
export async function openModelTensors(files: ModelFiles): Promise<Map<string, TensorInfo>> {
  const single = await files.open(SINGLE_FILE)
  if (single !== null) return (await closeOnFailure([single], () => openSafetensors(single))).tensors
  const text = await readText(files, INDEX_FILE)
  if (text === null) throw new Error(`${files.name}: neither ${SINGLE_FILE} nor ${INDEX_FILE} is there`)
  const where = `${files.name}/${INDEX_FILE}`
  const shards = groupByShard(parseJsonObject(text, where).weight_map, where)
  const sources: Source[] = []
  return closeOnFailure(sources, async () => {
    const all = new Map<string, TensorInfo>()
    for (const [file, names] of shards) {
      const source = await files.open(file)
      if (source === null) throw new Error(`${where}: shard ${show(file)} is missing`)
      sources.push(source)
      const { tensors } = await openSafetensors(source)
      for (const name of names) {
        const info = tensors.get(name)
        if (info === undefined)
          throw new Error(`${source.name}: tensor ${show(name)} is missing, the index puts it here`)
        all.set(name, info)
      }
      for (const name of tensors.keys()) {
        if (!names.has(name)) throw new Error(`${source.name}: tensor ${show(name)} is not in the index for this shard`)
      }
    }
    return all
  })
}

function groupByShard(map: unknown, where: string): Map<string, Set<string>> {
  if (!isObject(map)) throw new Error(`${where}: weight_map must be an object, got ${show(map)}`)
  const shards = new Map<string, Set<string>>()
  for (const [name, file] of Object.entries(map)) {
    // A shard is a plain file name, so that an index cannot reach outside its directory.
    if (typeof file !== 'string' || !/^[\w.-]+\.safetensors$/.test(file)) {
      throw new Error(`${where}: ${show(name)} must be in a file NAME.safetensors of the directory, got ${show(file)}`)
    }
    const names = shards.get(file)
    if (names === undefined) shards.set(file, new Set([name]))
    else names.add(name)
  }
  if (shards.size === 0) throw new Error(`${where}: weight_map is empty`)
  return shards
}

async function closeOnFailure<T>(sources: Source[], work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    for (const source of sources) await source.close()
    throw error
  }
}

/** Closes every source that the tensors are read from. */
export async function closeTensors(tensors: ReadonlyMap<string, TensorInfo>): Promise<void> {
  for (const source of new Set([...tensors.values()].map((info) => info.source))) await source.close()
}

/** Reads the raw bytes of a tensor; they start at offset 0 of their own buffer. */
export async function readTensor(info: TensorInfo): Promise<Uint8Array<ArrayBuffer>> {
  return info.source.read(info.begin, info.end - info.begin)
}

// Wider types are read through pieces of this size, so that a tensor is never in memory twice.
const PIECE_BYTES = 8 * 2 ** 20

/** Reads a tensor of floats (F32, F16, BF16, F64) as float32 [product of shape]; F64 is rounded. Throws on other dtypes. */
export async function readTensorF32(info: TensorInfo): Promise<Float32Array<ArrayBuffer>> {
  const { dtype, source, begin, end } = info
  if (dtype === 'F32') return new Float32Array((await readTensor(info)).buffer)
  if (dtype !== 'F16' && dtype !== 'BF16' && dtype !== 'F64') {
    throw new Error(`${source.name}: tensor ${show(info.name)} must hold floats, got ${dtype}`)
  }
  const values = new Float32Array((end - begin) / DTYPE_BYTES[dtype])
  for (let at = begin; at < end; at += PIECE_BYTES) {
    const { buffer } = await source.read(at, Math.min(PIECE_BYTES, end - at))
    const target = values.subarray((at - begin) / DTYPE_BYTES[dtype])
    if (dtype === 'F64') target.set(new Float64Array(buffer))
    else if (dtype === 'F16') widenF16(new Uint16Array(buffer), target)
    else widenBF16(new Uint16Array(buffer), target)
  }
  return values
}

/** Widens bfloat16 bits to float32, exactly: they are its upper half. */
export function widenBF16(bits: Uint16Array, target: Float32Array): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length)
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16
}

/** Widens IEEE 754 binary16 bits to float32, exactly. */
export function widenF16(bits: Uint16Array, target: Float32Array): void {
  for (let i = 0; i < bits.length; i++) {
    const exponent = (bits[i] >> 10) & 31
    const fraction = bits[i] & 1023
    let value = fraction * 2 ** -24 // subnormal numbers and zero
    if (exponent === 31) value = fraction === 0 ? Infinity : Number.NaN
    else if (exponent > 0) value = (1024 + fraction) * 2 ** (exponent - 25)
    target[i] = bits[i] & 0x8000 ? -value : value
  }
}

/** Rounds float32 to the bits of bfloat16, to nearest, ties to even; NaN stays NaN. */
export function narrowBF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const bits = new Uint16Array(values.length)
  for (let i = 0; i < bits.length; i++) {
    const word = words[i]
    if ((word & 0x7fffffff) > 0x7f800000) bits[i] = (word >>> 16) | 0x40
    else bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
  }
  return bits
}

/** What a safetensors file begins with, and the tensors in the order in which their bytes follow. */
export interface SafetensorsLayout<T> {
  readonly header: Uint8Array
  readonly ordered: readonly T[]
}

/**
 * Lays out a safetensors file whose bytes are written piece by piece. Wider dtypes come first (as the reference writer does), so
 * every tensor is aligned to its element; the header is padded with spaces to a multiple of 8 bytes.
 */
export function layOutSafetensors<T extends Pick<TensorData, 'name' | 'dtype' | 'shape'>>(
  tensors: readonly T[],
  metadata: Record<string, string> = {},
): SafetensorsLayout<T> {
  const ordered = [...tensors].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype])
  // Entries rather than an object literal: a tensor may be called "1" or "__proto__" and keeps its place.
  const entries: string[] = []
  if (Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(metadata)}`)
  const names = new Set<string>(['__metadata__'])
  let offset = 0
  for (const { name, dtype, shape } of ordered) {
    const where = `safetensors: tensor ${show(name)}`
    if (names.has(name)) throw new Error(`${where}: the name is taken`)
    names.add(name)
    const size = tensorBytes(where, dtype, shape)
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, offset + size] })}`)
    offset += size
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`)
  const header = new Uint8Array(Math.ceil((PREFIX_BYTES + json.length) / 8) * 8).fill(0x20)
  header.set(json, PREFIX_BYTES)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - PREFIX_BYTES), true)
  return { header, ordered }
}

/** Encodes tensors and metadata as the chunks of a safetensors file. Throws where data has not the bytes of its shape. */
export function encodeSafetensors(tensors: readonly TensorData[], metadata: Record<string, string> = {}): Uint8Array[] {
  const { header, ordered } = layOutSafetensors(tensors, metadata)
  const chunks = ordered.map(({ name, dtype, shape, data }) => {
    const where = `safetensors: tensor ${show(name)}`
    const size = tensorBytes(where, dtype, shape)
    if (data.byteLength !== size) {
      throw new Error(`${where}: ${dtype} ${show(shape)} needs ${size} bytes, got ${data.byteLength}`)
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  })
  return [header, ...chunks]
}
