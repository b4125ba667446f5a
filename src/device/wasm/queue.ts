// Layout of the task queue in shared memory, known to the host (pool.ts) and to the threads (worker.ts).
//
// One host posts; the threads take tasks in order, divide the range of each in pieces, and go on to the next when all pieces are
// finished, so a task may use what the one before it wrote. A thread that is late, because the system runs something else on its
// core, finds the pieces taken and holds nobody up.

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
/** Threads that sleep, or are about to: nobody else has to be woken. */
export const ASLEEP = 6
/** Not 0: tasks leave the times of their begin and end in their slots. */
export const TIMED = 7
export const HEADER = 16

/** Slots of the ring and words of a slot, a multiple of a cache line. */
export const SLOTS = 1024
export const SLOT = 48
/** Words of one slot. */
export const KERNEL = 0
export const LENGTH = 1
export const PIECE = 2
/** The next piece, in the lower 16 bits; the upper ones count the uses of the slot, so that no late thread takes a piece of a later task. */
export const NEXT = 3
/** Pieces that are not finished. */
export const LEFT = 4
export const COUNT = 5
export const ARGUMENTS = 6
/** The most arguments of a kernel: tensors, letters and scalars. */
export const MAX_ARGUMENTS = 32
/** Begin and end of the task in milliseconds of the host's clock, two f64; words from the slot. */
export const TIMES = 40

const MAX_PIECES = 0xffff

export const QUEUE_BYTES = 4 * (HEADER + SLOTS * SLOT)

/** What a thread is told when it starts. */
export interface Start {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly queue: number
  readonly scratch: number
  /** Exported functions by number, and which of their arguments are f32. */
  readonly kernels: readonly { readonly name: string; readonly floats: readonly boolean[] }[]
  /** The host's `performance.timeOrigin`, where tasks may be timed. */
  readonly origin?: number
  /** A lock that a thread in a page holds as long as it lives (threads_browser.ts). */
  readonly lock?: string
}

/** What a thread says: a count of finished tasks, or an error. */
export type Message = { readonly finished: number } | { readonly error: string }
/** What a thread in a page says first: that it holds its lock. */
export interface Held {
  readonly held: string
}

/** A thread of a page has been loaded. */
export interface Started {
  readonly started: true
}

/** Index of the slot of a task. */
export function slotOf(task: number): number {
  return HEADER + ((task >>> 0) % SLOTS) * SLOT
}

function useOf(task: number): number {
  return Math.floor((task >>> 0) / SLOTS) & 0xffff
}

/** Writes a task into its slot, which must be free, and announces it. */
export function postTask(
  words: Int32Array,
  kernel: number,
  args: ArrayLike<number>,
  length: number,
  piece: number,
): void {
  const task = Atomics.load(words, POSTED)
  const slot = slotOf(task)
  const use = useOf(task) << 16
  // While the slot is being written, nobody may take a piece.
  Atomics.store(words, slot + NEXT, use | MAX_PIECES)
  const size = Math.max(1, piece, Math.ceil(length / (MAX_PIECES - 1)))
  words[slot + KERNEL] = kernel
  words[slot + LENGTH] = length
  words[slot + PIECE] = size
  words[slot + COUNT] = args.length
  for (let i = 0; i < args.length; i++) words[slot + ARGUMENTS + i] = args[i]
  Atomics.store(words, slot + LEFT, Math.max(1, Math.ceil(length / size)))
  Atomics.store(words, slot + NEXT, use)
  Atomics.store(words, POSTED, (task + 1) | 0)
  // A call into the system costs more than all of the above. Whoever counts itself as asleep after this look finds the new task.
  if (Atomics.load(words, ASLEEP) !== 0) Atomics.notify(words, POSTED)
}

/** Sleeps until `words[index]` is no longer `value`. */
export function sleep(words: Int32Array, index: number, value: number): void {
  Atomics.add(words, ASLEEP, 1)
  while (Atomics.load(words, index) === value) Atomics.wait(words, index, value)
  Atomics.sub(words, ASLEEP, 1)
}

/** Ends the threads, after the tasks that they are at. */
export function quit(words: Int32Array): void {
  Atomics.store(words, QUIT, 1)
  Atomics.add(words, POSTED, 1)
  Atomics.notify(words, POSTED)
}

/** Takes pieces of a task until none is left. Returns true if this thread finished the last one, and so the task. */
export function takePieces(words: Int32Array, task: number, run: (start: number, end: number) => void): boolean {
  const slot = slotOf(task)
  const use = useOf(task)
  const length = words[slot + LENGTH] >>> 0
  const size = words[slot + PIECE] >>> 0
  const count = Math.max(1, Math.ceil(length / size))
  let next = Atomics.load(words, slot + NEXT)
  while (next >>> 16 === use && (next & MAX_PIECES) < count) {
    const seen = Atomics.compareExchange(words, slot + NEXT, next, next + 1)
    if (seen !== next) {
      next = seen
      continue
    }
    const start = (next & MAX_PIECES) * size
    run(start, Math.min(length, start + size))
    if (Atomics.sub(words, slot + LEFT, 1) === 1) {
      Atomics.store(words, FINISHED, (task + 1) | 0)
      Atomics.notify(words, FINISHED)
      return true
    }
    next = Atomics.load(words, slot + NEXT)
  }
  return false
}
