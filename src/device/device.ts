// One device behind one call: `run` records a kernel on the GPU or posts it to the CPU threads.
import { type KernelName, type KernelScalars, type KernelTensors, kernels } from '../generated/kernels.ts'
import { type KernelSpec, type Sizes, unify } from './kernel.ts'
import { BYTES, type DType, type Memory, Tensor, type TensorData } from './tensor.ts'

/** What WASM and WebGPU each implement. Everything is executed in the order of the calls. */
export interface Backend {
  readonly kind: 'wasm' | 'webgpu'
  /** 'wasm', 'webgpu' or 'webgpu:software'. */
  readonly name: string
  readonly description: string
  /** Largest tensor in bytes. */
  readonly maxTensorBytes: number
  allocate(byteLength: number, label: string): Memory
  free(memory: Memory): void
  write(memory: Memory, byteOffset: number, bytes: Uint8Array): void
  read(memory: Memory, byteLength: number): Promise<ArrayBuffer>
  /** `words`: the letters and scalars of the call as 32-bit words, in the order of Params. */
  run(spec: KernelSpec, memories: readonly Memory[], words: Uint32Array, sizes: Sizes): void
  done(): Promise<void>
  destroy(): Promise<void>
}

type Scalars<K extends KernelName> = KernelScalars[K] extends never ? [] : [Record<KernelScalars[K], number>]

export interface TensorOptions {
  readonly dtype?: DType
  readonly label?: string
  /** Initial contents, of as many elements as the shape holds. */
  readonly data?: TensorData
}

export class Device {
  readonly backend: Backend
  readonly kind: 'wasm' | 'webgpu'
  /** 'wasm', 'webgpu' or 'webgpu:software'. */
  readonly name: string
  /** For people: back end, threads or adapter. */
  readonly description: string
  #destroyed: Promise<void> | null = null

  constructor(backend: Backend) {
    this.backend = backend
    this.kind = backend.kind
    this.name = backend.name
    this.description = backend.description
  }

  /** Makes a tensor; its contents are undefined until written. Throws when it exceeds the device's limits or memory. */
  tensor(shape: readonly number[], { dtype = 'f32', label = 'tensor', data }: TensorOptions = {}): Tensor {
    if (!shape.every((length) => Number.isSafeInteger(length) && length >= 0))
      throw new RangeError(`${label}: sizes must be whole numbers, got [${shape.join(', ')}]`)
    const size = shape.reduce((product, length) => product * length, 1)
    // Both back ends work on whole words, and neither can bind nothing.
    const bytes = Math.max(4, Math.ceil((size * BYTES[dtype]) / 4) * 4)
    if (bytes > this.backend.maxTensorBytes)
      throw new RangeError(
        `${label}: [${shape.join(', ')}] ${dtype} takes ${bytes} bytes, ${this.description} allows ${this.backend.maxTensorBytes} in one tensor; store it in fewer bits or use another device`,
      )
    if (data && data.length !== size)
      throw new RangeError(`${label}: [${shape.join(', ')}] needs ${size} values, got ${data.length}`)
    const tensor = new Tensor(this, shape, dtype, label, this.backend.allocate(bytes, label), null)
    if (data) tensor.write(data)
    return tensor
  }

  /**
   * Records one kernel. Names, dtypes and shapes are checked here; the work happens later and in order. Never waits: errors of
   * the device itself are thrown by the next `done` or `read`.
   */
  run<K extends KernelName>(name: K, tensors: Record<KernelTensors[K], Tensor>, ...rest: Scalars<K>): void {
    const spec = kernels[name]
    const sizes = unify(spec, tensors, rest[0] ?? {})
    for (const { name: tensor } of spec.tensors) {
      const { device } = (tensors as Record<string, Tensor>)[tensor]!
      if (device !== this) throw new Error(`${name}: ${tensor} lives on another device (${device.description})`)
    }
    const words = new Uint32Array(spec.letters.length + spec.scalars.length)
    const floats = new Float32Array(words.buffer)
    spec.letters.forEach((letter, index) => {
      words[index] = sizes[letter]!
    })
    spec.scalars.forEach((scalar, index) => {
      const at = spec.letters.length + index
      if (scalar.type === 'f32') floats[at] = sizes[scalar.name]!
      else words[at] = sizes[scalar.name]!
    })
    if (spec.split(sizes) === 0) return
    this.backend.run(
      spec,
      spec.tensors.map((tensor) => (tensors as Record<string, Tensor>)[tensor.name]!.memory),
      words,
      sizes,
    )
  }

  /** Waits until everything recorded has been executed; throws the first error that the device kept. */
  done(): Promise<void> {
    return this.backend.done()
  }

  /** Frees the device and every tensor on it; safe to call twice. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.backend.destroy()
    return this.#destroyed
  }
}
