// Threads in a browser: Web Workers. The `#threads` module of everything but Node.
import type { Message, Start } from './queue.ts'

/** One running thread. */
export interface Thread {
  start(start: Start): void
  /** Whether the thread keeps the process alive; a page lives as long as it is open. */
  hold(hold: boolean): void
  stop(): Promise<void>
}

/** Shared memory needs a cross-origin isolated page. */
export const threadsSupported = (): boolean =>
  typeof SharedArrayBuffer === 'function' && globalThis.crossOriginIsolated === true && typeof Worker === 'function'

/** Number of threads that can run at once. */
export const cores = (): number => navigator.hardwareConcurrency || 1

/** Starts a thread from the text of its script. */
export function spawn(script: string, onMessage: (message: Message) => void, onError: (error: Error) => void): Thread {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
  const worker = new Worker(url)
  worker.onmessage = ({ data }: MessageEvent<Message>) => onMessage(data)
  worker.onerror = (event) => onError(new Error(event.message || 'the worker script could not be started'))
  return {
    start: (start) => worker.postMessage(start),
    hold: () => {},
    stop: async () => {
      worker.terminate()
      URL.revokeObjectURL(url)
    },
  }
}
