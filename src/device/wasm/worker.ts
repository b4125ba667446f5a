// A thread: takes its share of each task of the queue. Self-contained; the generator bundles it into a string.
import {
  ARGUMENTS,
  COUNT,
  FAILED,
  FINISHED,
  HEADER,
  type Held,
  KERNEL,
  type Message,
  POSTED,
  QUIT,
  READY,
  SLOT,
  SLOTS,
  type Start,
  type Started,
  sleep,
  slotOf,
  TIMED,
  TIMES,
  takePieces,
  WANTED,
} from './queue.ts'

/** Tries before a thread goes to sleep: about 20 microseconds, the gap between two kernels of a forward pass. */
const SPINS = 2000

/** Waits until `words[index]` is no longer `value`. */
function waitForChange(words: Int32Array, index: number, value: number): void {
  for (let i = 0; i < SPINS; i++) if (Atomics.load(words, index) !== value) return
  sleep(words, index, value)
}

function work({ module, memory, queue, scratch, kernels, origin = 0 }: Start, post: (message: Message) => void): void {
  const instance = new WebAssembly.Instance(module, {
    env: { memory, abort: () => {} },
  })
  const exports = instance.exports as Record<string, (...values: number[]) => void>
  exports.set_scratch!(scratch)
  const functions = kernels.map(({ name }) => exports[name]!)
  const words = new Int32Array(memory.buffer, queue, HEADER + SLOTS * SLOT)
  const floats = new Float32Array(memory.buffer, queue, HEADER + SLOTS * SLOT)
  const times = new Float64Array(memory.buffer, queue, (HEADER + SLOTS * SLOT) / 2)
  const clock = (): number => performance.timeOrigin - origin + performance.now()

  Atomics.add(words, READY, 1)
  for (let task = 0; ; task = (task + 1) | 0) {
    waitForChange(words, POSTED, task)
    if (Atomics.load(words, QUIT) !== 0) return
    // What this thread slept through is over.
    const finished = Atomics.load(words, FINISHED)
    if (((finished - task) | 0) > 0) {
      task = (finished - 1) | 0
      continue
    }
    const slot = slotOf(task)
    const kernel = words[slot + KERNEL]!
    const count = words[slot + COUNT]!
    const values: number[] = []
    for (let i = 0; i < count; i++) {
      const at = slot + ARGUMENTS + i
      values.push(kernels[kernel]?.floats[i] ? floats[at]! : words[at]!)
    }
    const last = takePieces(words, task, (start, end) => {
      if (Atomics.load(words, FAILED) !== 0) return
      values[count] = start
      values[count + 1] = end
      const timed = Atomics.load(words, TIMED) !== 0
      if (timed && start === 0) times[(slot + TIMES) / 2] = clock()
      try {
        functions[kernel]!(...values)
      } catch (error) {
        Atomics.store(words, FAILED, 1)
        post({ error: `${kernels[kernel]?.name}: ${(error as Error).message}` })
      }
      // The last piece to end is the last to write.
      if (timed) times[(slot + TIMES) / 2 + 1] = clock()
    })
    if (last) {
      const wanted = Atomics.load(words, WANTED)
      if (wanted !== 0 && ((task + 1 - wanted) | 0) >= 0) {
        Atomics.store(words, WANTED, 0)
        post({ finished: (task + 1) | 0 })
      }
    } else waitForChange(words, FINISHED, task)
  }
}

// In Node the bundle runs inside a worker_threads worker, whose script has `require` as a global; in a page inside a Web Worker.
interface NodeThreads {
  readonly parentPort: {
    once(event: 'message', listener: (start: Start) => void): void
    postMessage(message: Message): void
  }
}
const scope = globalThis as unknown as {
  readonly require?: (name: string) => NodeThreads
  onmessage: ((event: { readonly data: Start }) => void) | null
  postMessage(message: Message | Held | Started): void
}
if (scope.require) {
  const { parentPort } = scope.require('node:worker_threads')
  parentPort.once('message', (start) => work(start, (message) => parentPort.postMessage(message)))
} else {
  scope.onmessage = async ({ data }) => {
    const post = (message: Message | Held) => scope.postMessage(message)
    if (data.lock !== undefined) await hold(data.lock, post)
    work(data, post)
  }
  scope.postMessage({ started: true })
}

/** Takes a lock for as long as the thread lives: whoever gets it later knows that the thread is gone. */
function hold(lock: string, post: (message: Held) => void): Promise<void> {
  return new Promise((resolve) => {
    navigator.locks.request(lock, () => {
      post({ held: lock })
      resolve()
      return new Promise(() => {})
    })
  })
}
