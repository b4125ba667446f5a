// The host's side of the CPU threads: posts tasks to the queue in shared memory and learns when they are finished.
import { cores, spawn, type Thread, threadsSupported } from '#threads'
import { workerText } from '../../generated/worker.ts'
import {
  FAILED,
  FINISHED,
  HEADER,
  type Message,
  POSTED,
  postTask,
  quit,
  SLOT,
  SLOTS,
  type Start,
  slotOf,
  TIMED,
  TIMES,
  WANTED,
} from './queue.ts'

/** A task that did not fit into the ring yet; its words are a copy. */
interface Waiting {
  readonly kernel: number
  readonly words: Int32Array
  readonly length: number
  readonly piece: number
}

const MAX_THREADS = 64

/** How many threads to use: as many as asked for, else one a core; 1 where shared memory is missing. Throws outside 1 to 64. */
export function threadCount(threads?: number): number {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS))
    throw new RangeError(`threads: must be 1 to ${MAX_THREADS}, got ${threads}`)
  return threadsSupported() ? (threads ?? Math.min(cores(), MAX_THREADS)) : 1
}

/** Runs tasks in order on all threads. */
export class Pool {
  readonly threads: number
  readonly #threads: Thread[]
  readonly #words: Int32Array
  readonly #times: Float64Array
  #backlog: Waiting[] = []
  /** Hears begin and end of every task, in order, before its slot is used again. */
  #onTime: ((begin: number, end: number) => void) | null = null
  /** When the last task that was timed ended. */
  #timed = 0
  /** Tasks whose times have been heard, and the counter of the next one. */
  #heard = 0
  /** Tasks that have been in the ring. */
  #put = 0
  #waiting: { readonly task: number; readonly resolve: () => void; readonly reject: (error: Error) => void }[] = []
  #error: Error | null = null
  #stopped = false

  constructor(start: Omit<Start, 'scratch'>, scratches: readonly number[], workerUrl?: string | URL) {
    this.threads = scratches.length
    this.#words = new Int32Array(start.memory.buffer, start.queue, HEADER + SLOTS * SLOT)
    this.#times = new Float64Array(start.memory.buffer, start.queue, (HEADER + SLOTS * SLOT) / 2)
    this.#threads = scratches.map((scratch, index) => {
      const thread = spawn(
        workerText,
        (message) => this.#hear(message),
        ({ message }) =>
          this.#fail(
            new Error(
              `wasm: thread ${index + 1} of ${this.threads}: ${message}; open the device again and reload the model`,
            ),
          ),
        workerUrl,
      )
      thread.start({ ...start, scratch, origin: performance.timeOrigin })
      return thread
    })
  }

  /** Number of tasks that all threads have finished. */
  get finished(): number {
    const behind = (this.#inRing() - Atomics.load(this.#words, FINISHED)) | 0
    return this.#put - behind
  }

  /** Throws the error that ended the threads' work, if there is one. */
  check(): void {
    if (this.#error) throw this.#error
  }

  /**
   * Adds a task and returns its number; never waits. `words` are pointers, letters and scalars, without the range, and are
   * copied; a thread takes `piece` units of `length` at a time.
   */
  post(kernel: number, words: Int32Array, length: number, piece: number): number {
    if (this.#error) throw this.#error
    if (this.#backlog.length > 0 || !this.#offer(kernel, words, length, piece))
      this.#backlog.push({ kernel, words: words.slice(), length, piece })
    return this.posted
  }

  /** Number of tasks posted so far. */
  get posted(): number {
    return this.#put + this.#backlog.length
  }

  /** Times tasks from the next one on: `onTime` hears each in order, at the latest when `done` is over. */
  time(onTime: ((begin: number, end: number) => void) | null): void {
    this.#listen()
    this.#onTime = onTime
    this.#heard = this.posted
    Atomics.store(this.#words, TIMED, onTime ? 1 : 0)
  }

  /** Waits until every task posted so far is finished; rejects with the first error of a thread. */
  async done(): Promise<void> {
    // Half of the ring is waited for at a time, so that the threads work on one half while the other is filled.
    while (this.#backlog.length > 0) {
      let taken = 0
      for (const { kernel, words, length, piece } of this.#backlog) {
        if (!this.#offer(kernel, words, length, piece)) break
        taken++
      }
      this.#backlog.splice(0, taken)
      await this.#wait(this.#put - SLOTS / 2)
    }
    await this.#wait(this.posted)
    this.#listen()
  }

  async stop(): Promise<void> {
    if (this.#stopped) return
    quit(this.#words)
    this.#fail(new Error('wasm: the device has been destroyed'))
    this.#stopped = true
    await Promise.all(this.#threads.map((thread) => thread.stop()))
  }

  /** Whether a thread has failed; its message with the reason may still be on the way. */
  #failing(): boolean {
    return Atomics.load(this.#words, FAILED) !== 0
  }

  #inRing(): number {
    return Atomics.load(this.#words, POSTED)
  }

  #offer(kernel: number, words: Int32Array, length: number, piece: number): boolean {
    const posted = this.#inRing()
    if (((posted - Atomics.load(this.#words, FINISHED)) | 0) >= SLOTS) return false
    if (this.#onTime) this.#listen()
    postTask(this.#words, kernel, words, length, piece)
    this.#put++
    return true
  }

  /** Takes the times of what has finished. */
  #listen(): void {
    if (!this.#onTime) return
    const { finished } = this
    // Task number n, counted from 1, lies in the slot of the counter before it.
    const first = this.#inRing() - this.#put
    for (; this.#heard < finished; this.#heard++) {
      const at = (slotOf((first + this.#heard) | 0) + TIMES) / 2
      // A task begins when the one before has ended. The clocks of two threads may differ by what a page's clock resolves.
      const begin = Math.max(this.#times[at]!, this.#timed)
      this.#timed = Math.max(begin, this.#times[at + 1]!)
      this.#onTime(begin, this.#timed)
    }
  }

  #wait(task: number): Promise<void> {
    if (this.#error) return Promise.reject(this.#error)
    if (this.finished >= task && !this.#failing()) return Promise.resolve()
    for (const thread of this.#threads) thread.hold(true)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ task, resolve, reject })
      this.#ask()
    })
  }

  /** Asks for a message at the nearest task that somebody waits for. */
  #ask(): void {
    while (this.#waiting.length > 0 && !this.#failing()) {
      const nearest = Math.min(...this.#waiting.map(({ task }) => task))
      const ahead = nearest - this.#put
      // 0 means "no wish", so that counter value asks for its successor's predecessor: one task earlier is harmless.
      const wanted = (this.#inRing() + ahead) | 0
      Atomics.store(this.#words, WANTED, wanted === 0 ? -1 : wanted)
      if (this.finished < nearest) return
      // It finished between the two looks: no message may come.
      this.#settle()
    }
  }

  #settle(): void {
    // Work after a failure is skipped, so that only the message may end the wait.
    if (this.#failing()) return
    const finished = this.finished
    const ready = this.#waiting.filter(({ task }) => task <= finished)
    this.#waiting = this.#waiting.filter(({ task }) => task > finished)
    if (this.#waiting.length === 0) for (const thread of this.#threads) thread.hold(false)
    for (const { resolve } of ready) resolve()
  }

  #hear(message: Message): void {
    // A late message must not let go of threads whose end is being waited for.
    if (this.#stopped) return
    if ('error' in message) {
      this.#fail(new Error(`wasm: ${message.error}`))
      return
    }
    this.#settle()
    this.#ask()
  }

  #fail(error: Error): void {
    if (this.#stopped) return
    this.#error ??= error
    Atomics.store(this.#words, FAILED, 1)
    const waiting = this.#waiting
    this.#waiting = []
    for (const thread of this.#threads) thread.hold(false)
    for (const { reject } of waiting) reject(this.#error)
  }
}
