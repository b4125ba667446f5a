// The encodings of values and levels in Parquet pages; every read is checked against the page's end.

/** Bytes of a page from `at` on; what reads from it moves `at`. */
export class PageReader {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly end: number
  at = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.end = bytes.length
  }

  /** Moves over `length` bytes and gives where they begin. */
  take(length: number): number {
    const from = this.at
    if (!(length >= 0 && from + length <= this.end)) {
      throw new Error(`a page ends at byte ${this.end}, ${length} bytes from ${from} on are needed`)
    }
    this.at = from + length
    return from
  }

  /** An unsigned varint of at most 32 bits. */
  varint(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.bytes[this.take(1)]
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw new Error('a number is longer than 32 bits')
  }

  /** A zigzag varint of at most 64 bits. */
  zigzag(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.take(1)]
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return (value >> 1n) ^ -(value & 1n)
    }
    throw new Error('a number is longer than 64 bits')
  }
}

/** Fills `out` with numbers of `width` bits from runs and packed groups. */
export function readRuns(reader: PageReader, width: number, out: Uint8Array | Uint32Array): void {
  if (width > 32) throw new Error(`numbers of ${width} bits`)
  const size = (width + 7) >> 3
  for (let filled = 0; filled < out.length; ) {
    const header = reader.varint()
    if (header % 2 === 0) {
      const from = reader.take(size)
      let value = 0
      for (let i = 0; i < size; i++) value += reader.bytes[from + i] * 2 ** (8 * i)
      const next = Math.min(out.length, filled + header / 2)
      out.fill(value, filled, next)
      filled = next
    } else {
      const groups = (header - 1) / 2
      const count = Math.min(groups * 8, out.length - filled)
      // The last group may be cut off after its last value.
      const from = reader.take(Math.ceil((count * width) / 8))
      unpack(reader.bytes, from, width, out.subarray(filled, filled + count))
      reader.at = Math.min(reader.end, from + groups * width)
      filled += count
    }
  }
}

/** Fills `out` with packed numbers of `width` bits (at most 32) from byte `from` on. */
function unpack(bytes: Uint8Array, from: number, width: number, out: Uint8Array | Uint32Array): void {
  if (width > 24) {
    for (let i = 0; i < out.length; i++) out[i] = bitsAt(bytes, from, i * width, width)
    return
  }
  const mask = 2 ** width - 1
  // Bits that were read and not used yet, at most 31 of them.
  let [held, bits, at] = [0, 0, from]
  for (let i = 0; i < out.length; i++) {
    for (; bits < width; bits += 8) held |= bytes[at++] << bits
    out[i] = held & mask
    held >>>= width
    bits -= width
  }
}

/** `width` bits (at most 32) from bit `bit` after byte `from` on; bytes past the end count as zeros. */
function bitsAt(bytes: Uint8Array, from: number, bit: number, width: number): number {
  const at = from + Math.floor(bit / 8)
  const shift = bit % 8
  const low = (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> shift
  const all = shift + width > 32 ? low | (bytes[at + 4] << (32 - shift)) : low
  return width === 32 ? all >>> 0 : (all & (2 ** width - 1)) >>> 0
}

// pyarrow writes blocks of 128 values, parquet-mr too; more than this is damage.
const LARGEST_BLOCK = 2 ** 20

/** DELTA_BINARY_PACKED of 64 bits, or of 32 where `out` is that; both wrap around. */
export function readDeltas(reader: PageReader, out: Int32Array | BigInt64Array): void {
  const block = reader.varint()
  const parts = reader.varint()
  const total = reader.varint()
  const each = block / parts
  if (!(block > 0 && block <= LARGEST_BLOCK && parts > 0 && Number.isInteger(each) && each % 8 === 0)) {
    throw new Error(`blocks of ${block} differences in ${parts} parts`)
  }
  if (total !== out.length) throw new Error(`${total} values are announced, ${out.length} are there`)
  const first = reader.zigzag()
  if (total === 0) return
  const wide = out instanceof BigInt64Array
  if (wide) out[0] = first
  else out[0] = Number(BigInt.asIntN(32, first))
  for (let filled = 1; filled < total; ) {
    const least = reader.zigzag()
    const widths = reader.take(parts)
    for (let part = 0; part < parts && filled < total; part++) {
      const width = reader.bytes[widths + part]
      if (width > 64) throw new Error(`differences of ${width} bits`)
      const from = reader.take((each / 8) * width)
      const count = Math.min(each, total - filled)
      if (wide) addWide(reader.bytes, from, width, least, out, filled, count)
      else addNarrow(reader.bytes, from, width, Number(BigInt.asIntN(32, least)), out, filled, count)
      filled += count
    }
  }
}

function addWide(
  bytes: Uint8Array,
  from: number,
  width: number,
  least: bigint,
  out: BigInt64Array,
  first: number,
  count: number,
): void {
  let value = out[first - 1]
  for (let i = 0; i < count; i++) {
    const low = bitsAt(bytes, from, i * width, Math.min(width, 32))
    const high = width > 32 ? bitsAt(bytes, from, i * width + 32, width - 32) : 0
    value = BigInt.asIntN(64, value + least + (high === 0 ? BigInt(low) : (BigInt(high) << 32n) | BigInt(low)))
    out[first + i] = value
  }
}

function addNarrow(
  bytes: Uint8Array,
  from: number,
  width: number,
  least: number,
  out: Int32Array,
  first: number,
  count: number,
): void {
  let value = out[first - 1]
  for (let i = 0; i < count; i++) {
    value = (value + least + bitsAt(bytes, from, i * width, Math.min(width, 32))) | 0
    out[first + i] = value
  }
}

/** Byte strings whose lengths are all before them. */
export function readLengthStrings(reader: PageReader, count: number): Uint8Array[] {
  const lengths = new Int32Array(count)
  readDeltas(reader, lengths)
  const strings: Uint8Array[] = []
  for (const length of lengths) {
    const from = reader.take(length)
    strings.push(reader.bytes.subarray(from, from + length))
  }
  return strings
}

// Strings that share their beginnings unpack to more than the page; to more than this a page of a table does not.
const [LEAST_UNPACKED, UNPACKED_FACTOR] = [64 * 2 ** 20, 1024]

/** Byte strings of which each begins as the one before it does. */
export function readPrefixStrings(reader: PageReader, count: number): Uint8Array[] {
  const prefixes = new Int32Array(count)
  readDeltas(reader, prefixes)
  const strings = readLengthStrings(reader, count)
  const most = Math.max(LEAST_UNPACKED, UNPACKED_FACTOR * reader.end)
  let before: Uint8Array = new Uint8Array(0)
  let bytes = 0
  for (let i = 0; i < count; i++) {
    const shared = prefixes[i]
    if (!(shared >= 0 && shared <= before.length)) {
      throw new Error(`a text shares ${shared} bytes with one of ${before.length}`)
    }
    if (strings[i].length === 0 && shared === before.length) strings[i] = before
    else if (shared > 0) {
      bytes += shared + strings[i].length
      if (bytes > most) throw new Error(`a page of ${reader.end} bytes unpacks to texts of more than ${most}`)
      const whole = new Uint8Array(shared + strings[i].length)
      whole.set(before.subarray(0, shared))
      whole.set(strings[i], shared)
      strings[i] = whole
    }
    before = strings[i]
  }
  return strings
}

/** Undoes BYTE_STREAM_SPLIT: all first bytes of `count` values of `size` bytes, then all second ones, and so on. */
export function joinStreams(reader: PageReader, count: number, size: number): Uint8Array<ArrayBuffer> {
  const from = reader.take(count * size)
  const joined = new Uint8Array(count * size)
  for (let byte = 0; byte < size; byte++) {
    const stream = from + byte * count
    for (let i = 0; i < count; i++) joined[i * size + byte] = reader.bytes[stream + i]
  }
  return joined
}
