// The CPU back end: kernels compiled from assembly/, on threads over shared memory, or on the caller where there are none.
import { kernels } from '../../generated/kernels.ts'
import { kernelsSingleWasm } from '../../generated/kernels_single.ts'
import { kernelsThreadsWasm } from '../../generated/kernels_threads.ts'
import type { Backend } from '../device.ts'
import type { KernelSpec, Sizes } from '../kernel.ts'
import type { Memory } from '../tensor.ts'
import { Heap, MAX_BYTES } from './heap.ts'
import { Pool, threadCount } from './pool.ts'
import { QUEUE_BYTES, SLOT } from './queue.ts'

interface WasmMemory extends Memory {
  readonly address: number
  readonly bytes: number
  /** Number of the last task that touches it. */
  lastTask: number
}

/** A thread takes this many pieces of a task on average: few enough to be cheap, enough to even out a busy core. */
const PIECES_PER_THREAD = 8

const numbers = Object.fromEntries(Object.keys(kernels).map((name, index) => [name, index]))
const signatures = Object.values(kernels).map((spec) => ({
  name: spec.name,
  floats: [
    ...spec.tensors.map(() => false),
    ...spec.letters.map(() => false),
    ...spec.scalars.map(({ type }) => type === 'f32'),
  ],
}))
for (const { name, floats } of signatures)
  if (floats.length > SLOT - 8)
    throw new Error(`${name}: ${floats.length} arguments do not fit a slot of the task queue`)

/** Opens the CPU with up to `threads` threads; all cores without a number, and one where shared memory is missing. */
export async function openWasm(threads?: number): Promise<Backend> {
  const count = threadCount(threads)
  return count > 1 ? openThreads(count) : openSingle()
}

interface Exports {
  set_scratch(address: number): void
  scratch_bytes(): number
  heap_base(): number
}

async function instantiate(bytes: BufferSource, memory: WebAssembly.Memory) {
  const module = await WebAssembly.compile(bytes)
  const instance = await WebAssembly.instantiate(module, { env: { memory, abort: () => {} } })
  return { module, exports: instance.exports as unknown as Exports & Record<string, (...values: number[]) => void> }
}

async function openThreads(threads: number): Promise<Backend> {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true })
  const { module, exports } = await instantiate(kernelsThreadsWasm(), memory)
  const heap = new Heap(memory, exports.heap_base())
  const queue = heap.allocate(QUEUE_BYTES, 'task queue').address
  const scratches = Array.from({ length: threads }, () => heap.allocate(exports.scratch_bytes(), 'scratch').address)
  const pool = new Pool({ module, memory, queue, kernels: signatures }, scratches)
  /** Freed memory that a task in flight may still touch. */
  let graveyard: WasmMemory[] = []

  const bury = (): void => {
    const finished = pool.finished
    for (const block of graveyard) if (block.lastTask <= finished) heap.free(block)
    graveyard = graveyard.filter((block) => block.lastTask > finished)
  }
  const allocate = (byteLength: number, label: string): WasmMemory => {
    pool.check()
    bury()
    return { ...heap.allocate(byteLength, label), byteLength, lastTask: 0 }
  }
  const free = (block: WasmMemory): void => {
    if (block.lastTask <= pool.finished) heap.free(block)
    else graveyard.push(block)
  }
  const run = (spec: KernelSpec, blocks: readonly WasmMemory[], words: Uint32Array, sizes: Sizes): void => {
    const length = spec.split(sizes)
    const pieces = Math.ceil(length / (threads * PIECES_PER_THREAD) / spec.splitBy)
    const task = pool.post({
      kernel: numbers[spec.name]!,
      words: Int32Array.from([...blocks.map((block) => block.address | 0), ...words.map((word) => word | 0)]),
      length,
      piece: pieces * spec.splitBy,
    })
    for (const block of blocks) block.lastTask = task
  }
  return {
    kind: 'wasm',
    name: 'wasm',
    description: `WebAssembly SIMD, ${threads} threads`,
    maxTensorBytes: MAX_BYTES,
    allocate,
    free: (block) => free(block as WasmMemory),
    write(target, byteOffset, bytes) {
      const block = target as WasmMemory
      if (block.lastTask <= pool.finished) {
        new Uint8Array(memory.buffer, block.address + byteOffset, bytes.length).set(bytes)
        return
      }
      // A task in flight may read the old contents: the new ones wait in a copy of their own and follow as a task.
      const length = Math.ceil(bytes.length / 4)
      const staging = allocate(length * 4, 'staging')
      new Uint8Array(memory.buffer, staging.address, bytes.length).set(bytes)
      const view = { ...block, address: block.address + byteOffset }
      run(kernels.copy, [staging, view], Uint32Array.of(length), { N: length })
      block.lastTask = view.lastTask
      free(staging)
    },
    async read(target, byteLength) {
      const block = target as WasmMemory
      const copy = new Uint8Array(byteLength)
      if (block.lastTask <= pool.finished) {
        copy.set(new Uint8Array(memory.buffer, block.address, byteLength))
        await pool.done()
        return copy.buffer
      }
      // What is recorded later must not show: the contents are set aside by a task of their own.
      const length = Math.ceil(byteLength / 4)
      const staging = allocate(length * 4, 'staging')
      try {
        run(kernels.copy, [block, staging], Uint32Array.of(length), { N: length })
        await pool.done()
        copy.set(new Uint8Array(memory.buffer, staging.address, byteLength))
        return copy.buffer
      } finally {
        free(staging)
      }
    },
    run: (spec, blocks, words, sizes) => run(spec, blocks as WasmMemory[], words, sizes),
    done: () => pool.done(),
    destroy: () => pool.stop(),
  }
}

/** Lets a page paint and a signal arrive: without threads the kernels have kept the event loop to themselves. */
const breathe = (): Promise<void> => new Promise((resolve) => setTimeout(resolve))

async function openSingle(): Promise<Backend> {
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536 })
  const { exports } = await instantiate(kernelsSingleWasm(), memory)
  const heap = new Heap(memory, exports.heap_base())
  exports.set_scratch(heap.allocate(exports.scratch_bytes(), 'scratch').address)
  let failed: Error | null = null
  const check = (): void => {
    if (failed) throw failed
  }
  return {
    kind: 'wasm',
    name: 'wasm',
    description: 'WebAssembly SIMD, 1 thread',
    maxTensorBytes: MAX_BYTES,
    allocate(byteLength, label): WasmMemory {
      check()
      return { ...heap.allocate(byteLength, label), byteLength, lastTask: 0 }
    },
    free: (block) => heap.free(block as WasmMemory),
    write(target, byteOffset, bytes) {
      new Uint8Array(memory.buffer, (target as WasmMemory).address + byteOffset, bytes.length).set(bytes)
    },
    async read(target, byteLength) {
      check()
      const { address } = target as WasmMemory
      const copy = memory.buffer.slice(address, address + byteLength)
      await breathe()
      return copy
    },
    run(spec, blocks, words, sizes) {
      check()
      const floats = new Float32Array(words.buffer)
      const scalars = Array.from(words, (word, index) =>
        signatures[numbers[spec.name]!]!.floats[blocks.length + index] ? floats[index]! : word,
      )
      try {
        exports[spec.name]!(...blocks.map((block) => (block as WasmMemory).address), ...scalars, 0, spec.split(sizes))
      } catch (error) {
        failed = new Error(`wasm: ${spec.name}: ${(error as Error).message}`)
        throw failed
      }
    },
    async done() {
      await breathe()
      check()
    },
    async destroy() {
      failed ??= new Error('wasm: the device has been destroyed')
    },
  }
}
