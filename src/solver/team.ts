// Threads that work for a caller who waits: the caller takes part in every task, and goes on when all have finished it.
import { spawn, type Thread, threadsStart } from '#threads'
import { threadCount } from '../device/wasm/pool.ts'
import {
  FAILED,
  FINISHED,
  HEADER,
  POSTED,
  postTask,
  QUEUE_BYTES,
  QUIT,
  quit,
  READY,
  SLOT,
  SLOTS,
  takePieces,
} from '../device/wasm/queue.ts'
import { solverWasm } from '../generated/solver_wasm.ts'
import { workerText } from '../generated/worker.ts'
import { Arena } from './arena.ts'

/** Looks at a counter before the caller goes to sleep: about 200 microseconds. */
const SPINS = 20_000
const maySleep = !('document' in globalThis)

/** Exported functions of assembly/solver; all arguments are addresses and whole numbers. */
export type Kernels = Record<string, (...values: number[]) => number>

/** One WebAssembly memory with the kernels of the solver on it, run by the caller and `threads` - 1 others. */
export class Team {
  readonly threads: number
  readonly arena: Arena
  readonly kernels: Kernels
  readonly #numbers: Map<string, number>
  readonly #words: Int32Array | null = null
  readonly #others: Thread[] = []
  #error: Error | null = null
  #ready = false

  private constructor(memory: WebAssembly.Memory, module: WebAssembly.Module, threads: number) {
    const { exports } = new WebAssembly.Instance(module, { env: { memory, abort: () => {} } })
    this.kernels = exports as unknown as Kernels
    const names = WebAssembly.Module.exports(module).map(({ name }) => name)
    this.#numbers = new Map(names.map((name, index) => [name, index]))
    this.threads = threads
    this.arena = new Arena(memory, this.kernels.heap_base())
    const scratch = () => this.arena.take(this.kernels.scratch_bytes())
    this.kernels.set_scratch(scratch())
    if (threads === 1) return
    const queue = this.arena.take(QUEUE_BYTES)
    this.#words = new Int32Array(memory.buffer, queue, HEADER + SLOTS * SLOT)
    const kernels = names.map((name) => ({ name, floats: [] }))
    for (let i = 1; i < threads; i++) {
      const thread = spawn(
        workerText,
        (message) => this.#hear(message),
        (error) => this.#fail(error),
      )
      thread.start({ module, memory, queue, scratch: scratch(), kernels })
      this.#others.push(thread)
    }
  }

  /** Starts `threads` threads, or as many as there are cores; one where shared memory is missing. */
  static async open(threads?: number): Promise<Team> {
    const wanted = threadCount(threads)
    const count = wanted > 1 && (await threadsStart(workerText)) ? wanted : 1
    const shared = count > 1
    const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared })
    return new Team(memory, await compile(shared), count)
  }

  /**
   * Runs a kernel over [0, length), in pieces of `piece` that the threads take as they come. Results do not depend on who took
   * what. The other threads join once they have started.
   */
  run(name: string, args: readonly number[], length: number, piece: number): void {
    const kernel = this.kernels[name]
    if (length <= piece || !this.#join()) {
      if (length > 0) kernel(...args, 0, length)
      return
    }
    const words = this.#words as Int32Array
    const task = Atomics.load(words, POSTED)
    postTask(words, this.#numbers.get(name) as number, args, length, piece)
    if (!takePieces(words, task, (start, end) => kernel(...args, start, end))) this.#await(words, task)
    if (Atomics.load(words, FAILED) !== 0) throw this.#error ?? new Error(`fit: a thread failed in ${name}`)
  }

  /** Ends the threads. The memory must not be used afterwards. */
  async close(): Promise<void> {
    const words = this.#words
    if (words === null || Atomics.load(words, QUIT) !== 0) return
    quit(words)
    await Promise.all(this.#others.map((thread) => thread.stop()))
  }

  // The pieces that others took are about to be finished, unless the system runs something else on their cores.
  #await(words: Int32Array, task: number): void {
    for (let i = 0; i < SPINS; i++) if (Atomics.load(words, FINISHED) !== task) return
    // The main thread of a page is not allowed to sleep.
    while (Atomics.load(words, FINISHED) === task) if (maySleep) Atomics.wait(words, FINISHED, task)
  }

  // Threads take time to start; until all are there the caller works alone.
  #join(): boolean {
    if (this.#error) throw this.#error
    if (!this.#ready && this.#words !== null) this.#ready = Atomics.load(this.#words, READY) === this.threads - 1
    return this.#ready
  }

  #hear(message: { readonly finished: number } | { readonly error: string }): void {
    if ('error' in message) this.#fail(new Error(`fit: ${message.error}`))
  }

  #fail(error: Error): void {
    this.#error ??= error
  }
}

const modules = new Map<boolean, Promise<WebAssembly.Module>>()

function compile(shared: boolean): Promise<WebAssembly.Module> {
  const known = modules.get(shared)
  if (known) return known
  const made = solverWasm(shared).then((bytes) => WebAssembly.compile(bytes))
  modules.set(shared, made)
  return made
}
