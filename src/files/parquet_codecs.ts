// Decompresses pages of Parquet files into the bytes that their headers announce, and not more.
import { gunzip } from './gzip.ts'
import { joinBytes } from './source.ts'

// What a byte can become at most: of Snappy 64 bytes in 3, of LZ4 255 in 1, of deflate 258 in 2 bits.
const LARGEST_RATIO: Record<string, number> = { UNCOMPRESSED: 1, SNAPPY: 24, GZIP: 1032, LZ4: 256, LZ4_RAW: 256 }
// Zstandard and Brotli have no such bound. A page has about a megabyte; this is for one with a single huge value.
const [LARGEST_PAGE, LARGEST_RATIO_BEYOND] = [16 * 2 ** 20, 1024]

// It makes a WebAssembly instance when it is imported, which who reads no such page need not pay for.
let library: Promise<typeof import('hyparquet-compressors')> | null = null

/** Says whether pages of this codec can be read. */
export function isCodec(codec: string): boolean {
  return codec in LARGEST_RATIO || codec === 'ZSTD' || codec === 'BROTLI'
}

/** Throws where `packed` bytes of a codec cannot be `length` bytes, before memory is taken for them. */
function checkLength(codec: string, packed: number, length: number): void {
  const most =
    codec in LARGEST_RATIO ? LARGEST_RATIO[codec] * packed + 64 : Math.max(LARGEST_PAGE, LARGEST_RATIO_BEYOND * packed)
  if (!(length >= 0 && length <= most)) {
    throw new Error(`a page of ${packed} bytes claims to be ${length} bytes of ${codec} when it is unpacked`)
  }
}

/** The bytes of a page, `length` of them. Throws on damage and on a wrong length. */
export async function unpackPage(codec: string, packed: Uint8Array, length: number): Promise<Uint8Array> {
  checkLength(codec, packed.length, length)
  // Nothing may be packed as no byte at all or as an empty frame; there is nothing to learn from it.
  if (length === 0) return new Uint8Array(0)
  const bytes = await unpack(codec, packed, length)
  if (bytes.length !== length) throw new Error(`a page has ${bytes.length} bytes, its header says ${length}`)
  return bytes
}

async function unpack(codec: string, packed: Uint8Array, length: number): Promise<Uint8Array> {
  if (codec === 'UNCOMPRESSED') return packed
  if (codec === 'GZIP') return ungzip(packed, length)
  if (codec === 'LZ4_RAW') return unlz4(packed, length)
  if (codec === 'LZ4') return unlz4Framed(packed, length) ?? unlz4(packed, length)
  library ??= import('hyparquet-compressors')
  const { compressors, decompressZstd } = await library
  if (codec === 'ZSTD') {
    const out = new Uint8Array(length)
    // The library compares the array with 1, for which the language writes all of it as text, unless it has a value of its own.
    Object.defineProperty(out, 'valueOf', { value: () => 0 })
    return decompressZstd(packed, out)
  }
  const decompress = codec === 'SNAPPY' ? compressors.SNAPPY : codec === 'BROTLI' ? compressors.BROTLI : undefined
  if (decompress === undefined) throw new Error(`pages are packed with ${codec}`)
  return decompress(packed, length)
}

async function ungzip(packed: Uint8Array, length: number): Promise<Uint8Array> {
  async function* whole() {
    yield packed
  }
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of gunzip(whole(), 'a page')) {
    parts.push(part)
    bytes += part.length
    if (bytes > length) break
  }
  return parts.length === 0 ? new Uint8Array(0) : joinBytes(parts)
}

/** A block of LZ4; its format is that of lz4_Block_format.md of the LZ4 project. */
function unlz4(packed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length)
  let [from, to] = [0, 0]
  const longer = (size: number) => {
    if (size < 15) return size
    for (let sum = size; ; ) {
      const byte = packed[from++]
      if (byte === undefined) throw new Error('LZ4 ends in the middle of a length')
      sum += byte
      if (byte < 255) return sum
    }
  }
  while (from < packed.length) {
    const token = packed[from++]
    const literals = longer(token >> 4)
    if (from + literals > packed.length || to + literals > length) throw new Error('LZ4 literals reach beyond the page')
    out.set(packed.subarray(from, from + literals), to)
    from += literals
    to += literals
    if (from === packed.length) break
    const distance = packed[from] | (packed[from + 1] << 8)
    from += 2
    const copied = longer(token & 15) + 4
    if (!(from <= packed.length && distance > 0 && distance <= to && to + copied <= length)) {
      throw new Error('LZ4 copies from outside of the page')
    }
    if (distance >= copied) out.copyWithin(to, to - distance, to - distance + copied)
    else for (let i = 0; i < copied; i++) out[to + i] = out[to + i - distance]
    to += copied
  }
  if (to !== length) throw new Error(`LZ4 gives ${to} bytes, ${length} are announced`)
  return out
}

/** Blocks with lengths before them, as Hadoop writes them; null where the bytes are not that. */
function unlz4Framed(packed: Uint8Array, length: number): Uint8Array | null {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength)
  const blocks: { from: number; size: number; length: number }[] = []
  let sum = 0
  for (let from = 0; from < packed.length; ) {
    if (from + 8 > packed.length) return null
    const block = { from: from + 8, size: view.getUint32(from + 4), length: view.getUint32(from) }
    from = block.from + block.size
    sum += block.length
    if (from > packed.length || sum > length) return null
    blocks.push(block)
  }
  if (sum !== length) return null
  return joinBytes(blocks.map((block) => unlz4(packed.subarray(block.from, block.from + block.size), block.length)))
}
