// SHA-256 of bytes that come in pieces, in every runtime and without waiting: Web Crypto hashes whole buffers only.
//
// Source: FIPS 180-4. About 100 MiB a second: enough for rows and tokens. Files are hashed by their store, which has faster ways.
import { hex } from './hash.ts'

const BLOCK = 64
const PRIMES = Array.from({ length: 310 }, (_, i) => i + 2).filter((n) => {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false
  return true
})
/** The first 32 bits of the fractions of roots of primes. */
const fractions = (root: (prime: number) => number, count: number): Int32Array =>
  Int32Array.from(PRIMES.slice(0, count), (prime) => (root(prime) % 1) * 2 ** 32)
const START = fractions(Math.sqrt, 8)
const ROUNDS = fractions(Math.cbrt, 64)

export class Sha256 {
  readonly #state = START.slice()
  readonly #block = new Uint8Array(BLOCK)
  #filled = 0
  #length = 0

  /** Adds bytes, or the UTF-8 of a text. */
  update(data: Uint8Array | string): this {
    const bytes = typeof data === 'string' ? encoder.encode(data) : data
    this.#length += bytes.length
    for (let at = 0; at < bytes.length; ) {
      if (this.#filled === 0 && bytes.length - at >= BLOCK) {
        compress(this.#state, bytes, at)
        at += BLOCK
        continue
      }
      const take = Math.min(bytes.length - at, BLOCK - this.#filled)
      this.#block.set(bytes.subarray(at, at + take), this.#filled)
      this.#filled += take
      at += take
      if (this.#filled < BLOCK) break
      compress(this.#state, this.#block, 0)
      this.#filled = 0
    }
    return this
  }

  /** The hash, 32 bytes. Nothing can be added after it. */
  digest(): Uint8Array<ArrayBuffer> {
    // A one, zeros, and the number of bits in the last eight bytes of a block.
    const zeros = (2 * BLOCK - 9 - this.#filled) % BLOCK
    const end = new DataView(new ArrayBuffer(1 + zeros + 8))
    end.setUint8(0, 0x80)
    end.setBigUint64(1 + zeros, BigInt(this.#length) * 8n)
    this.update(new Uint8Array(end.buffer))
    const result = new DataView(new ArrayBuffer(32))
    for (let i = 0; i < 8; i++) result.setInt32(4 * i, this.#state[i])
    return new Uint8Array(result.buffer)
  }

  /** The hash as 64 hexadecimal digits. */
  hex(): string {
    return hex(this.digest())
  }
}

const encoder = new TextEncoder()
const w = new Int32Array(64)

/** Takes the 64 bytes from `at` on into the state. */
function compress(state: Int32Array, bytes: Uint8Array, at: number): void {
  for (let i = 0; i < 16; i++) {
    const p = at + 4 * i
    w[i] = (bytes[p] << 24) | (bytes[p + 1] << 16) | (bytes[p + 2] << 8) | bytes[p + 3]
  }
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15]
    const y = w[i - 2]
    w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10))
  }
  let a = state[0]
  let b = state[1]
  let c = state[2]
  let d = state[3]
  let e = state[4]
  let f = state[5]
  let g = state[6]
  let h = state[7]
  for (let i = 0; i < 64; i++) {
    const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0
    const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0
    h = g
    g = f
    f = e
    e = (d + one) | 0
    d = c
    c = b
    b = a
    a = (one + two) | 0
  }
  state[0] += a
  state[1] += b
  state[2] += c
  state[3] += d
  state[4] += e
  state[5] += f
  state[6] += g
  state[7] += h
}

/** Turns 32 bits to the right. */
function turn(x: number, by: number): number {
  return (x >>> by) | (x << (32 - by))
}
