// Reads the headers of NumPy's .npy files, strictly; the numbers are read by range.
// Source: numpy.lib.format, versions 1.0 to 3.0 of the format.
import { show } from './json.ts'
import { decodeUtf8, type Source } from './source.ts'
import { type NumberType, type StoredArray, typeBytes } from './table.ts'

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59] // \x93NUMPY
// The header of a plain array has about 120 bytes.
const HEADER_LIMIT_BYTES = 65536
const RANK_LIMIT = 16

const TYPES: Record<string, NumberType> = {
  '<f2': 'f16',
  '<f4': 'f32',
  '<f8': 'f64',
  '|i1': 'i8',
  '|u1': 'u8',
  '<i2': 'i16',
  '<u2': 'u16',
  '<i4': 'i32',
  '<u4': 'u32',
  '<i8': 'i64',
  '<u8': 'u64',
}

/**
 * Opens a .npy file of numbers. Throws on other versions, types (big-endian, complex, text, objects), Fortran order with more
 * than one dimension, headers that are not as NumPy writes them, and files that are shorter or longer than the array.
 */
export async function openNpy(source: Source): Promise<StoredArray> {
  const { name, byteLength } = source
  const { at, length, version } = await readPrefix(source)
  const bytes = await source.read(at, length)
  const text = version === 3 ? decodeUtf8(bytes, `${name}: header`) : new TextDecoder('latin1').decode(bytes)
  const { descr, fortran, shape } = readHeader(text, name)
  const type = typeOf(descr, name)
  if (fortran && shape.length > 1) {
    throw new Error(`${name}: is in Fortran order; save numpy.ascontiguousarray(x) instead`)
  }
  const size = shape.reduce((product, count) => product * count, typeBytes(type))
  const begin = at + length
  if (!Number.isSafeInteger(size) || begin + size !== byteLength) {
    throw new Error(`${name}: ${descr} ${show(shape)} needs ${size} bytes, the file has ${byteLength - begin}`)
  }
  return { name, type, shape, begin, source }
}

async function readPrefix(source: Source): Promise<{ at: number; length: number; version: number }> {
  const { name, byteLength } = source
  const prefix = await source.read(0, Math.min(12, byteLength))
  if (byteLength < 10 || MAGIC.some((byte, i) => prefix[i] !== byte)) {
    throw new Error(`${name}: not a .npy file; it must begin with \\x93NUMPY`)
  }
  const [version, minor] = [prefix[6], prefix[7]]
  if (version < 1 || version > 3 || minor !== 0) {
    throw new Error(`${name}: .npy versions 1.0, 2.0 and 3.0 can be read, this is ${version}.${minor}`)
  }
  const at = version === 1 ? 10 : 12
  if (byteLength < at) throw new Error(`${name}: ends in its header, at byte ${byteLength}`)
  const view = new DataView(prefix.buffer)
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true)
  if (length > HEADER_LIMIT_BYTES) {
    throw new Error(`${name}: header of ${length} bytes is above the limit of ${HEADER_LIMIT_BYTES}`)
  }
  if (at + length > byteLength) throw new Error(`${name}: header of ${length} bytes exceeds the file (${byteLength})`)
  return { at, length, version }
}

interface Header {
  readonly descr: string
  readonly fortran: boolean
  readonly shape: number[]
}

// The header is a Python dictionary: three names, each once, in any order.
function readHeader(text: string, name: string): Header {
  const bad = (what: string) => new Error(`${name}: ${what}, the header is ${show(text.trim())}`)
  const body = /^\{(.*)\}\s*$/s.exec(text)?.[1]
  if (body === undefined) throw bad('the header must be a dictionary')
  const found = new Map<string, string>()
  const entry = /\s*'(\w+)'\s*:\s*('[^'\\]*'|True|False|\([\d,\sL]*\)|\[.*\])\s*(,|$)/sy
  let at = 0
  while (body.slice(at).trim() !== '') {
    entry.lastIndex = at
    const match = entry.exec(body)
    if (!match || found.has(match[1])) throw bad('the header must have descr, fortran_order and shape, each once')
    found.set(match[1], match[2])
    at = entry.lastIndex
  }
  const [descr, fortran, shape] = ['descr', 'fortran_order', 'shape'].map((key) => found.get(key))
  if (found.size !== 3 || !descr || !fortran || !shape) {
    throw bad('the header must have descr, fortran_order and shape, each once')
  }
  if (descr[0] !== "'") throw new Error(`${name}: must hold plain numbers, it has the fields ${show(descr)}`)
  if (fortran !== 'True' && fortran !== 'False') throw bad('fortran_order must be True or False')
  return { descr: descr.slice(1, -1), fortran: fortran === 'True', shape: readShape(shape, bad) }
}

// (), (3,), (3, 4) or (3, 4,); old versions of Python write 3L.
function readShape(text: string, bad: (what: string) => Error): number[] {
  const parts = text.slice(1, -1).split(',')
  const counts = parts.map((part) => part.trim())
  // A comma may follow the last number.
  if (counts[counts.length - 1] === '') counts.pop()
  if (text[0] !== '(' || !counts.every((count) => /^\d+L?$/.test(count))) {
    throw bad('shape must be whole numbers in parentheses')
  }
  const shape = counts.map((count) => Number.parseInt(count, 10))
  if (shape.length > RANK_LIMIT || !shape.every(Number.isSafeInteger)) throw bad('shape is too large')
  return shape
}

function typeOf(descr: string, name: string): NumberType {
  if (Object.hasOwn(TYPES, descr)) return TYPES[descr]
  let advice = 'save x.astype("float32") instead'
  if (/^[|<]V2$/.test(descr)) advice = 'bfloat16 can be read from safetensors files'
  throw new Error(`${name}: numbers of type ${show(descr)} cannot be read; ${advice}`)
}
