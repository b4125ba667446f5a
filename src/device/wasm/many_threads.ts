// The CPU back end with shared memory: kernels are tasks for threads, and the caller never waits for one.
import { kernels } from '../../generated/kernels.ts'
import { kernelsWasm } from '../../generated/kernels_wasm.ts'
import type { Backend, Call, Prepared, Profiler, Statistics } from '../backend.ts'
import type { KernelSpec, Sizes } from '../kernel.ts'
import type { Memory, Tensor } from '../tensor.ts'
import { Heap, MAX_BYTES } from './heap.ts'
import { Pool } from './pool.ts'
import { MAX_ARGUMENTS, QUEUE_BYTES } from './queue.ts'
import { exported, instantiate, numberOf } from './signatures.ts'

interface WasmMemory extends Memory {
  readonly address: number
  readonly bytes: number
  /** Number of the last task that touches it. */
  lastTask: number
}

/** A thread takes this many pieces of a task on average: few enough to be cheap, enough to even out a busy core. */
const PIECES_PER_THREAD = 8

export async function openManyThreads(threads: number, workerUrl?: string | URL): Promise<Backend> {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true })
  const { module, exports } = await instantiate(await kernelsWasm(true), memory)
  const heap = new Heap(memory, exports.heap_base())
  const queue = heap.allocate(QUEUE_BYTES, 'task queue').address
  const scratches = Array.from({ length: threads }, () => heap.allocate(exports.scratch_bytes(), 'scratch').address)
  return new ManyThreads(memory, heap, new Pool({ module, memory, queue, kernels: exported }, scratches, workerUrl))
}

class ManyThreads implements Backend {
  readonly kind = 'wasm'
  readonly name = 'wasm'
  readonly description: string
  readonly maxTensorBytes = MAX_BYTES
  readonly features: readonly string[] = []
  readonly #memory: WebAssembly.Memory
  readonly #heap: Heap
  readonly #pool: Pool
  /** Freed memory that a task in flight may still touch. */
  #freed: WasmMemory[] = []
  #tensors = 0
  #bytes = 0
  readonly #arguments = new Int32Array(MAX_ARGUMENTS)
  /** By number of arguments: views of the one above. */
  readonly #views = Array.from({ length: MAX_ARGUMENTS + 1 }, (_, length) => this.#arguments.subarray(0, length))
  /** Calls whose times have not come yet. */
  #timed: { readonly kernel: string; readonly sizes: Sizes }[] | null = null

  constructor(memory: WebAssembly.Memory, heap: Heap, pool: Pool) {
    this.#memory = memory
    this.#heap = heap
    this.#pool = pool
    this.description = `WebAssembly SIMD, ${pool.threads} threads`
  }

  allocate(byteLength: number, label: string): WasmMemory {
    this.#pool.check()
    this.#reclaim()
    const { address, bytes } = this.#heap.allocate(byteLength, label)
    this.#tensors++
    this.#bytes += bytes
    return { byteLength, freed: false, call: 0, address, bytes, lastTask: 0 }
  }

  free(memory: Memory): void {
    const block = memory as WasmMemory
    this.#tensors--
    this.#bytes -= block.bytes
    if (block.lastTask <= this.#pool.finished) this.#heap.free(block)
    else this.#freed.push(block)
  }

  write(memory: Memory, byteOffset: number, bytes: Uint8Array): void {
    const block = memory as WasmMemory
    this.#pool.check()
    if (block.lastTask <= this.#pool.finished) {
      this.#bytesAt(block.address + byteOffset, bytes.length).set(bytes)
      return
    }
    // A task in flight may read the old contents: the new ones wait in a copy of their own and follow as a task.
    // The word of a tail holds nothing else: such a write ends with its tensor.
    const length = Math.ceil(bytes.length / 4)
    const staging = this.allocate(length * 4, 'staging')
    this.#bytesAt(staging.address, bytes.length).set(bytes)
    this.#copy(staging, staging.address, block, block.address + byteOffset, length)
    this.free(staging)
  }

  async read(memory: Memory, byteOffset: number, byteLength: number): Promise<ArrayBuffer> {
    const block = memory as WasmMemory
    const copy = new Uint8Array(byteLength)
    const begin = block.address + byteOffset
    if (block.lastTask <= this.#pool.finished) {
      copy.set(this.#bytesAt(begin, byteLength))
      await this.#pool.done()
      return copy.buffer
    }
    // What is recorded later must not show: the contents are set aside by a task of their own.
    const length = Math.ceil(byteLength / 4)
    const staging = this.allocate(Math.max(4, length * 4), 'staging')
    try {
      if (length > 0) this.#copy(block, begin, staging, staging.address, length)
      await this.#pool.done()
      copy.set(this.#bytesAt(staging.address, byteLength))
      return copy.buffer
    } finally {
      this.free(staging)
    }
  }

  run({ spec, tensors, words, sizes }: Call): void {
    const args = this.#views[tensors.length + words.length]!
    setArguments(args, tensors, words)
    this.#post(spec, numberOf(spec), args, tensors, sizes)
  }

  prepare({ spec, tensors: given, words, sizes: first }: Call): Prepared {
    const kernel = numberOf(spec)
    const tensors = given.slice()
    const args = new Int32Array(tensors.length + words.length)
    setArguments(args, tensors, words)
    let sizes: Sizes = { ...first }
    let length = spec.split(sizes)
    let piece = this.#piece(spec, length)
    return {
      words: new Uint32Array(args.buffer, 4 * tensors.length),
      record: () => {
        if (length === 0) return
        this.#timed?.push({ kernel: spec.name, sizes })
        const task = this.#pool.post(kernel, args, length, piece)
        for (let i = 0; i < tensors.length; i++) (tensors[i]!.memory as WasmMemory).lastTask = task
      },
      resize: (changed: Sizes) => {
        sizes = { ...changed }
        length = spec.split(sizes)
        piece = this.#piece(spec, length)
      },
    }
  }

  supports(): boolean {
    return true
  }

  profile(profiler: Profiler | null): void {
    if (!profiler) {
      this.#timed = null
      this.#pool.time(null)
      return
    }
    const timed: { readonly kernel: string; readonly sizes: Sizes }[] = []
    this.#timed = timed
    this.#pool.time((begin, end) => profiler.call({ ...timed.shift()!, begin, end }))
  }

  statistics(): Statistics {
    this.#reclaim()
    const keptBytes = this.#memory.buffer.byteLength - this.#heap.used
    const none = { buffers: 0, bindGroups: 0, pipelines: 0, submits: 0 }
    return { tensors: this.#tensors, bytes: this.#bytes, keptBytes, calls: this.#pool.posted, ...none }
  }

  done(): Promise<void> {
    return this.#pool.done()
  }

  destroy(): Promise<void> {
    return this.#pool.stop()
  }

  #bytesAt(address: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, address, length)
  }

  #piece({ splitBy }: KernelSpec, length: number): number {
    return Math.ceil(length / (this.#pool.threads * PIECES_PER_THREAD) / splitBy) * splitBy
  }

  #post(spec: KernelSpec, kernel: number, args: Int32Array, tensors: readonly Tensor[], sizes: Sizes): void {
    const length = spec.split(sizes)
    this.#timed?.push({ kernel: spec.name, sizes: { ...sizes } })
    const task = this.#pool.post(kernel, args, length, this.#piece(spec, length))
    for (let i = 0; i < tensors.length; i++) (tensors[i]!.memory as WasmMemory).lastTask = task
  }

  /** Copies words between addresses of two blocks, in the order of the tasks. */
  #copy(source: WasmMemory, from: number, target: WasmMemory, to: number, length: number): void {
    const args = this.#views[3]!
    args[0] = from
    args[1] = to
    args[2] = length
    const sizes = { N: length }
    this.#timed?.push({ kernel: 'copy', sizes })
    const task = this.#pool.post(numberOf(kernels.copy), args, length, this.#piece(kernels.copy, length))
    source.lastTask = task
    target.lastTask = task
  }

  /** Gives back what was freed while tasks in flight touched it, and what no task touches any more. */
  #reclaim(): void {
    if (this.#freed.length === 0) return
    const { finished } = this.#pool
    this.#freed = this.#freed.filter((block) => {
      if (block.lastTask > finished) return true
      this.#heap.free(block)
      return false
    })
  }
}

function setArguments(args: Int32Array, tensors: readonly Tensor[], words: Uint32Array): void {
  let at = 0
  for (let i = 0; i < tensors.length; i++)
    args[at++] = (tensors[i]!.memory as WasmMemory).address + tensors[i]!.byteOffset
  for (let i = 0; i < words.length; i++) args[at++] = words[i]!
}
