// A typed, shaped block of device memory, owned by whoever asked for it.
import type { Device } from './device.ts'

export type DType = 'f32' | 'f16' | 'bf16' | 'i8' | 'u32'
/** f32, u32 and i8 as the array of that type, f16 and bf16 as their raw bits in Uint16Array. */
export type TensorData = Float32Array | Uint32Array | Uint16Array | Int8Array

export const BYTES: Readonly<Record<DType, number>> = { f32: 4, u32: 4, f16: 2, bf16: 2, i8: 1 }

/**
 * Views begin at multiples of this many bytes: what WebGPU asks of a binding on every device, and the same rule on the CPU, so
 * that code written on one device works on the other.
 */
export const VIEW_ALIGNMENT = 256

/** Memory of a back end for one tensor: an address in WASM memory, or a GPU buffer. */
export interface Memory {
  readonly byteLength: number
  /** Given back. */
  freed: boolean
  /** The latest check of a call that met it (kernel.ts). */
  call: number
}

export interface ViewOptions {
  /** First element; its byte must be a multiple of 256. 0 by default. */
  readonly offset?: number
  readonly label?: string
}

const ARRAYS = { f32: Float32Array, u32: Uint32Array, f16: Uint16Array, bf16: Uint16Array, i8: Int8Array } as const

/** Number of elements of a shape; throws with the label where a size is no whole number. */
export function sizeOf(shape: readonly number[], label: string): number {
  let size = 1
  for (const length of shape) {
    if (!Number.isSafeInteger(length) || length < 0)
      throw new RangeError(`${label}: sizes must be whole numbers, got [${shape.join(', ')}]`)
    size *= length
  }
  return size
}

/** Row-major tensor. `destroy()` gives the memory back; views share it and own nothing. */
export class Tensor {
  readonly device: Device
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly label: string
  readonly memory: Memory
  /** Where it begins in its memory. */
  readonly byteOffset: number
  /** Number of elements. */
  readonly size: number
  readonly #owner: Tensor | null

  constructor(
    device: Device,
    shape: readonly number[],
    dtype: DType,
    label: string,
    memory: Memory,
    owner: Tensor | null = null,
    byteOffset = 0,
  ) {
    this.device = device
    this.shape = shape
    this.dtype = dtype
    this.label = label
    this.memory = memory
    this.byteOffset = byteOffset
    this.size = sizeOf(shape, label)
    this.#owner = owner
  }

  get byteLength(): number {
    return this.size * BYTES[this.dtype]
  }

  get destroyed(): boolean {
    return this.memory.freed
  }

  /**
   * Copies `data` into the tensor from element `offset` on; ordered after everything recorded before. The bytes written must
   * begin at a multiple of 4; a tail of fewer than 4 is allowed only at the end of the tensor (of a view: of the tensor it views).
   */
  write(data: TensorData, offset = 0): void {
    this.#check('write')
    if (!(data instanceof ARRAYS[this.dtype]))
      throw new TypeError(`${this.label}: ${this.dtype} data must not come as ${data.constructor.name}`)
    if (!Number.isInteger(offset) || offset < 0 || offset + data.length > this.size)
      throw new RangeError(`${this.label}: must write within ${this.size} elements, got ${data.length} at ${offset}`)
    const begin = this.byteOffset + offset * BYTES[this.dtype]
    const last = begin + data.byteLength === (this.#owner ?? this).byteLength
    if (begin % 4 !== 0 || (data.byteLength % 4 !== 0 && !last))
      throw new RangeError(
        `${this.label}: writes must cover whole words, got ${data.byteLength} bytes at byte ${begin - this.byteOffset}`,
      )
    if (data.length === 0) return
    this.device.backend.write(this.memory, begin, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  }

  /** Waits for the device and returns a copy of the contents. */
  async read(): Promise<TensorData> {
    this.#check('read')
    if (this.size === 0) await this.device.done()
    const bytes =
      this.size === 0
        ? new ArrayBuffer(0)
        : await this.device.backend.read(this.memory, this.byteOffset, this.byteLength)
    return new ARRAYS[this.dtype](bytes)
  }

  /** As `read`, for f32 tensors. */
  async readF32(): Promise<Float32Array> {
    const data = await this.read()
    if (!(data instanceof Float32Array)) throw new TypeError(`${this.label}: must be f32, got ${this.dtype}`)
    return data
  }

  /**
   * A part of the same memory under a shape of its own: from element `offset` on, which must lie at a multiple of 256 bytes
   * (64 f32 values). Where rows are no such multiple, the kernel `copy_rows` writes and `gather_rows` reads at any row.
   */
  view(shape: readonly number[], { offset = 0, label = this.label }: ViewOptions = {}): Tensor {
    this.#check('view')
    const size = sizeOf(shape, label)
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + size > this.size)
      throw new RangeError(
        `${label}: a view of [${shape.join(', ')}]${offset === 0 ? '' : ` at element ${offset}`} must fit [${this.shape.join(', ')}]`,
      )
    const bytes = offset * BYTES[this.dtype]
    if (bytes % VIEW_ALIGNMENT !== 0)
      throw new RangeError(
        `${label}: a view must begin at a multiple of ${VIEW_ALIGNMENT} bytes, got element ${offset} at byte ${bytes}; begin at a multiple of ${VIEW_ALIGNMENT / BYTES[this.dtype]} elements, or copy by copy_rows or gather_rows`,
      )
    return new Tensor(this.device, shape, this.dtype, label, this.memory, this.#owner ?? this, this.byteOffset + bytes)
  }

  /** Gives the memory back; a view's destroy does nothing. */
  destroy(): void {
    if (this.#owner || this.memory.freed) return
    this.memory.freed = true
    this.device.backend.free(this.memory)
  }

  #check(verb: string): void {
    if (this.destroyed) throw new Error(`${this.label}: cannot ${verb}, the tensor has been destroyed`)
  }
}
