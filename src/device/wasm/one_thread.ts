// The CPU back end without shared memory: kernels run on the caller, when they are called.
import { kernelsWasm } from '../../generated/kernels_wasm.ts'
import type { Backend, Call, Prepared, Profiler, Statistics } from '../backend.ts'
import type { KernelSpec, Sizes } from '../kernel.ts'
import type { Memory, Tensor } from '../tensor.ts'
import { Heap, MAX_BYTES } from './heap.ts'
import { exported, instantiate, numberOf } from './signatures.ts'

interface WasmMemory extends Memory {
  readonly address: number
  readonly bytes: number
}

type Kernel = (...values: number[]) => void

/** Lets a page paint and a signal arrive: without threads the kernels have kept the event loop to themselves. */
const breathe = (): Promise<void> =>
  // In Node a timer takes a millisecond at least, and signals arrive at either.
  new Promise((resolve) => ('setImmediate' in globalThis ? setImmediate(resolve) : setTimeout(resolve)))

export async function openOneThread(): Promise<Backend> {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536 })
  const { exports } = await instantiate(await kernelsWasm(false), memory)
  const heap = new Heap(memory, exports.heap_base())
  exports.set_scratch(heap.allocate(exports.scratch_bytes(), 'scratch').address)
  return new OneThread(memory, heap, exports)
}

class OneThread implements Backend {
  readonly kind = 'wasm'
  readonly name = 'wasm'
  readonly description = 'WebAssembly SIMD, 1 thread'
  readonly maxTensorBytes = MAX_BYTES
  readonly features: readonly string[] = []
  readonly #memory: WebAssembly.Memory
  readonly #heap: Heap
  readonly #kernels: Record<string, Kernel>
  #failed: Error | null = null
  #profiler: Profiler | null = null
  #tensors = 0
  #bytes = 0
  #calls = 0

  constructor(memory: WebAssembly.Memory, heap: Heap, kernels: Record<string, Kernel>) {
    this.#memory = memory
    this.#heap = heap
    this.#kernels = kernels
  }

  allocate(byteLength: number, label: string): WasmMemory {
    this.#check()
    const { address, bytes } = this.#heap.allocate(byteLength, label)
    this.#tensors++
    this.#bytes += bytes
    return { byteLength, freed: false, call: 0, address, bytes }
  }

  free(memory: Memory): void {
    this.#heap.free(memory as WasmMemory)
    this.#tensors--
    this.#bytes -= (memory as WasmMemory).bytes
  }

  write(memory: Memory, byteOffset: number, bytes: Uint8Array): void {
    this.#check()
    new Uint8Array(this.#memory.buffer, (memory as WasmMemory).address + byteOffset, bytes.length).set(bytes)
  }

  async read(memory: Memory, byteOffset: number, byteLength: number): Promise<ArrayBuffer> {
    this.#check()
    const begin = (memory as WasmMemory).address + byteOffset
    const copy = this.#memory.buffer.slice(begin, begin + byteLength)
    await breathe()
    return copy
  }

  run({ spec, tensors, words, sizes }: Call): void {
    this.#run(spec, valuesOf(spec, tensors, words, sizes), sizes)
  }

  prepare({ spec, tensors: given, words: given_, sizes: first }: Call): Prepared {
    const tensors = given.slice()
    const words = given_.slice()
    let sizes: Sizes = { ...first }
    let values = valuesOf(spec, tensors, words, sizes)
    return {
      words,
      record: () => this.#run(spec, values, sizes),
      resize: (changed: Sizes) => {
        sizes = { ...changed }
        values = valuesOf(spec, tensors, words, sizes)
      },
    }
  }

  supports(): boolean {
    return true
  }

  profile(profiler: Profiler | null): void {
    this.#profiler = profiler
  }

  statistics(): Statistics {
    const keptBytes = this.#memory.buffer.byteLength - this.#heap.used
    const none = { buffers: 0, bindGroups: 0, pipelines: 0, submits: 0 }
    return { tensors: this.#tensors, bytes: this.#bytes, keptBytes, calls: this.#calls, ...none }
  }

  async done(): Promise<void> {
    await breathe()
    this.#check()
  }

  async destroy(): Promise<void> {
    this.#failed ??= new Error('wasm: the device has been destroyed')
  }

  #check(): void {
    if (this.#failed) throw this.#failed
  }

  #run(spec: KernelSpec, values: readonly number[], sizes: Sizes): void {
    if (this.#failed) throw this.#failed
    if (values.at(-1) === 0) return
    this.#calls++
    const begin = this.#profiler ? performance.now() : 0
    try {
      this.#kernels[spec.name]!(...values)
    } catch (error) {
      this.#failed = new Error(`wasm: ${spec.name}: ${(error as Error).message}`)
      throw this.#failed
    }
    this.#profiler?.call({ kernel: spec.name, sizes: { ...sizes }, begin, end: performance.now() })
  }
}

/** The arguments of a kernel: addresses, letters and scalars, and the whole of its range. */
function valuesOf(spec: KernelSpec, tensors: readonly Tensor[], words: Uint32Array, sizes: Sizes): number[] {
  const { floats } = exported[numberOf(spec)]!
  const f32 = new Float32Array(words.buffer, words.byteOffset, words.length)
  const values: number[] = []
  for (const { memory, byteOffset } of tensors) values.push((memory as WasmMemory).address + byteOffset)
  for (let i = 0; i < words.length; i++) values.push(floats[tensors.length + i] ? f32[i]! : words[i]!)
  values.push(0, spec.split(sizes))
  return values
}
