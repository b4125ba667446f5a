// A stack of arrays in one WebAssembly memory.

const PAGE = 65536
/** Bytes: every array begins at a multiple of it. */
export const ALIGNMENT = 64
/** What 32-bit addresses reach, less one page so that no end address wraps to 0. */
export const LIMIT_BYTES = 65536 * PAGE - PAGE

/** What the arrays need of a WebAssembly.Memory, whose type TypeScript knows in pages only. */
export interface WasmMemory {
  readonly buffer: ArrayBufferLike
  grow(pages: number): number
}

type Values = Float64Array | Float32Array | Uint32Array
type Constructor<T extends Values> = new (buffer: ArrayBufferLike, byteOffset: number, length: number) => T

/** An array in the memory: its address for kernels and its values for the host. */
export class Vector<T extends Values> {
  readonly at: number
  readonly length: number
  readonly #memory: WasmMemory
  readonly #type: Constructor<T>
  #values: T

  constructor(memory: WasmMemory, type: Constructor<T>, at: number, length: number) {
    this.at = at
    this.length = length
    this.#memory = memory
    this.#type = type
    this.#values = new type(memory.buffer, at, length)
  }

  /** The elements. Not to be kept across an allocation: growing the memory may detach what was given before. */
  get values(): T {
    if (this.#values.buffer !== this.#memory.buffer)
      this.#values = new this.#type(this.#memory.buffer, this.at, this.length)
    return this.#values
  }
}

export type F64 = Vector<Float64Array>
export type F32 = Vector<Float32Array>
export type U32 = Vector<Uint32Array>

/** Arrays are taken off the top; `mark` and `release` bracket a computation. */
export class Arena {
  readonly memory: WasmMemory
  #top: number

  constructor(memory: WasmMemory, begin: number) {
    this.memory = memory
    this.#top = Math.ceil(begin / ALIGNMENT) * ALIGNMENT
  }

  /** Address of `bytes` bytes, aligned and of unknown contents. Throws a RangeError past 4 GiB or without memory. */
  take(bytes: number): number {
    const at = this.#top
    const end = at + Math.ceil(bytes / ALIGNMENT) * ALIGNMENT
    const missing = end - this.memory.buffer.byteLength
    if (end > LIMIT_BYTES) {
      throw new RangeError(
        `fit: features and working memory must stay below 4 GiB, ${(end / 2 ** 30).toFixed(2)} GiB are needed; ` +
          'store the features as bf16, or fit fewer rows',
      )
    }
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE))
      } catch (error) {
        throw new RangeError(
          `fit: cannot get ${(end / 2 ** 30).toFixed(2)} GiB of memory (${(error as Error).message}); ` +
            'store the features as bf16, or fit fewer rows',
        )
      }
    }
    this.#top = end
    return at
  }

  f64(length: number): F64 {
    return this.#vector(Float64Array, length)
  }

  f32(length: number): F32 {
    return this.#vector(Float32Array, length)
  }

  u32(length: number): U32 {
    return this.#vector(Uint32Array, length)
  }

  mark(): number {
    return this.#top
  }

  release(mark: number): void {
    this.#top = mark
  }

  #vector<T extends Values>(type: Constructor<T> & { BYTES_PER_ELEMENT: number }, length: number): Vector<T> {
    const vector = new Vector<T>(this.memory, type, this.take(length * type.BYTES_PER_ELEMENT), length)
    vector.values.fill(0)
    return vector
  }
}
