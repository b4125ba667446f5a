// A typed, shaped block of device memory, owned by whoever asked for it.
import type { Device } from './device.ts'

export type DType = 'f32' | 'f16' | 'bf16' | 'i8' | 'u32'
/** f32, u32 and i8 as the array of that type, f16 and bf16 as their raw bits in Uint16Array. */
export type TensorData = Float32Array | Uint32Array | Uint16Array | Int8Array

export const BYTES: Readonly<Record<DType, number>> = { f32: 4, u32: 4, f16: 2, bf16: 2, i8: 1 }

/** Memory of a back end: an address in WASM memory, or a GPU buffer. */
export interface Memory {
  readonly byteLength: number
}

const ARRAYS = { f32: Float32Array, u32: Uint32Array, f16: Uint16Array, bf16: Uint16Array, i8: Int8Array } as const

/** Row-major tensor. `destroy()` gives the memory back; views share it and own nothing. */
export class Tensor {
  readonly device: Device
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly label: string
  readonly memory: Memory
  readonly #owner: Tensor | null
  #destroyed = false

  constructor(
    device: Device,
    shape: readonly number[],
    dtype: DType,
    label: string,
    memory: Memory,
    owner: Tensor | null,
  ) {
    this.device = device
    this.shape = shape
    this.dtype = dtype
    this.label = label
    this.memory = memory
    this.#owner = owner
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, length) => product * length, 1)
  }

  get destroyed(): boolean {
    return this.#owner ? this.#owner.destroyed : this.#destroyed
  }

  /**
   * Copies `data` into the tensor from element `offset` on; ordered after everything recorded before. The bytes written must
   * begin at a multiple of 4; a tail of fewer than 4 is allowed only at the end of the tensor.
   */
  write(data: TensorData, offset = 0): void {
    this.#check('write')
    if (!(data instanceof ARRAYS[this.dtype]))
      throw new TypeError(`${this.label}: ${this.dtype} data must not come as ${data.constructor.name}`)
    if (!Number.isInteger(offset) || offset < 0 || offset + data.length > this.size)
      throw new RangeError(`${this.label}: must write within ${this.size} elements, got ${data.length} at ${offset}`)
    const begin = offset * BYTES[this.dtype]
    if (begin % 4 !== 0 || (data.byteLength % 4 !== 0 && offset + data.length !== this.size))
      throw new RangeError(
        `${this.label}: writes must cover whole words, got ${data.byteLength} bytes at byte ${begin}`,
      )
    this.device.backend.write(this.memory, begin, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  }

  /** Waits for the device and returns a copy of the contents. */
  async read(): Promise<TensorData> {
    this.#check('read')
    const bytes = await this.device.backend.read(this.memory, this.size * BYTES[this.dtype])
    return new ARRAYS[this.dtype](bytes)
  }

  /** As `read`, for f32 tensors. */
  async readF32(): Promise<Float32Array> {
    const data = await this.read()
    if (!(data instanceof Float32Array)) throw new TypeError(`${this.label}: must be f32, got ${this.dtype}`)
    return data
  }

  /** The same memory, from its beginning, under another shape of at most as many elements. */
  view(shape: readonly number[], label = this.label): Tensor {
    this.#check('view')
    const size = shape.reduce((product, length) => product * length, 1)
    if (size > this.size)
      throw new RangeError(`${label}: a view of [${shape.join(', ')}] must fit [${this.shape.join(', ')}]`)
    return new Tensor(this.device, shape, this.dtype, label, this.memory, this.#owner ?? this)
  }

  /** Gives the memory back; a view's destroy does nothing. */
  destroy(): void {
    if (this.#owner || this.#destroyed) return
    this.#destroyed = true
    this.device.backend.free(this.memory)
  }

  #check(verb: string): void {
    if (this.destroyed) throw new Error(`${this.label}: cannot ${verb}, the tensor has been destroyed`)
  }
}
