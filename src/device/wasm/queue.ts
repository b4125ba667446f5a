// Layout of the task queue in shared memory, known to the host (pool.ts) and to the threads (worker.ts).
//
// One host posts; all threads take every task in order, divide its range in pieces, and wait for each other before the next,
// so a task may use what the one before it wrote.

/** Words of the header, in 32-bit units from the queue's address. */
export const POSTED = 0
/** Tasks finished by all threads; both counters run on and wrap. */
export const FINISHED = 1
/** The host wants a message when this many tasks are finished; 0 and past values mean none. */
export const WANTED = 2
export const QUIT = 3
/** Set once a task has trapped: what follows is skipped. */
export const FAILED = 4
/** Threads that have started. */
export const READY = 5
export const HEADER = 16

/** Slots of the ring and words of a slot. */
export const SLOTS = 1024
export const SLOT = 32
/** Words of one slot. */
export const KERNEL = 0
export const LENGTH = 1
export const PIECE = 2
export const NEXT = 3
export const LEFT = 4
export const COUNT = 5
export const ARGUMENTS = 6

export const QUEUE_BYTES = 4 * (HEADER + SLOTS * SLOT)

/** What a thread is told when it starts. */
export interface Start {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly queue: number
  readonly scratch: number
  /** Exported functions by number, and which of their arguments are f32. */
  readonly kernels: readonly { readonly name: string; readonly floats: readonly boolean[] }[]
}

/** What a thread says: a count of finished tasks, or an error. */
export type Message = { readonly finished: number } | { readonly error: string }
