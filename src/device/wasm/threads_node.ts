// Threads in Node: worker_threads. The `#threads` module of Node.
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Message, Start } from './queue.ts'

/** One running thread. */
export interface Thread {
  start(start: Start): void
  /** Whether the thread keeps the process alive. */
  hold(hold: boolean): void
  stop(): Promise<void>
}

export const threadsSupported = (): boolean => true

/** Number of threads that can run at once. */
export const cores = (): number => availableParallelism()

/** Whether threads can be started: always. */
export const threadsStart = async (_script: string, _url?: string | URL): Promise<boolean> => true

/** Starts a thread from the text of its script. `onError` also hears when it ends before `stop`. */
export function spawn(
  script: string,
  onMessage: (message: Message) => void,
  onError: (error: Error) => void,
  _url?: string | URL,
): Thread {
  // A flag such as --input-type would reach the worker's script too.
  const worker = new Worker(script, { eval: true, execArgv: [] })
  let stopped = false
  worker.on('message', onMessage)
  worker.on('error', onError)
  worker.on('exit', (code) => {
    if (!stopped) onError(new Error(`ended before its time (exit code ${code})`))
  })
  worker.unref()
  return {
    start: (start) => worker.postMessage(start),
    hold: (hold) => (hold ? worker.ref() : worker.unref()),
    stop: async () => {
      stopped = true
      await worker.terminate()
    },
  }
}
