// SHA-256 by Web Crypto, which every runtime has but which hashes whole buffers only: long data is hashed by blocks.
import type { Source } from './source.ts'

/** Bytes of a block: the blocks' hashes, one after the other, are hashed once more. */
export const BLOCK_BYTES = 8 * 2 ** 20

/** SHA-256, 32 bytes. Throws where the runtime has no Web Crypto. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (!globalThis.crypto?.subtle) {
    throw new Error('hash: this runtime has no Web Crypto; a page needs https or localhost for it')
  }
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
}

/** Bytes as hexadecimal digits, two a byte. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** SHA-256 as 64 hexadecimal digits. Throws where the runtime has no Web Crypto. */
export async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return hex(await sha256(bytes))
}

// A source up to 16 MiB is hashed whole, of a larger one this many pieces, evenly spread, the first and the last among them.
const PIECES = 1024
const PIECE_BYTES = 16384

/** SHA-256 of a source, or of a sample of a large one, as 64 hexadecimal digits. */
export async function sampleHash(source: Source): Promise<string> {
  const { byteLength } = source
  if (byteLength <= PIECES * PIECE_BYTES) return digest(await source.read(0, byteLength))
  const sample = new Uint8Array(PIECES * PIECE_BYTES)
  for (let i = 0; i < PIECES; i++) {
    const at = Math.floor(((byteLength - PIECE_BYTES) * i) / (PIECES - 1))
    sample.set(await source.read(at, PIECE_BYTES), i * PIECE_BYTES)
  }
  return digest(sample)
}

/** Hashes bytes that come in pieces of any size; holds one block. */
export class BlockHash {
  readonly #block = new Uint8Array(BLOCK_BYTES)
  readonly #hashes: Uint8Array[] = []
  #filled = 0
  /** Bytes so far. */
  length = 0

  async update(bytes: Uint8Array): Promise<void> {
    this.length += bytes.length
    for (let at = 0; at < bytes.length; ) {
      const take = Math.min(bytes.length - at, BLOCK_BYTES - this.#filled)
      this.#block.set(bytes.subarray(at, at + take), this.#filled)
      this.#filled += take
      at += take
      if (this.#filled === BLOCK_BYTES) await this.#close()
    }
  }

  async #close(): Promise<void> {
    this.#hashes.push(await sha256(this.#block.slice(0, this.#filled)))
    this.#filled = 0
  }

  /** SHA-256 of the blocks' hashes, 32 bytes. */
  async result(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#filled > 0) await this.#close()
    const all = new Uint8Array(this.#hashes.length * 32)
    for (const [i, hash] of this.#hashes.entries()) all.set(hash, 32 * i)
    return sha256(all)
  }
}
