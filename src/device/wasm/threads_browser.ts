// Threads in a browser: Web Workers. The `#threads` module of everything but Node.
import type { Held, Message, Start } from './queue.ts'

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

/**
 * Starts a thread from the text of its script. `onError` also hears when it ends before `stop`: a page gets no event then, so the
 * thread holds a lock, which the browser gives to the page when the thread is gone.
 */
export function spawn(script: string, onMessage: (message: Message) => void, onError: (error: Error) => void): Thread {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
  const worker = new Worker(url)
  const over = new AbortController()
  const watch = (lock: string): void => {
    const request = navigator.locks.request(lock, { signal: over.signal }, () =>
      onError(new Error('was ended by the browser')),
    )
    request.catch(() => {})
  }
  worker.onmessage = ({ data }: MessageEvent<Message | Held>) => ('held' in data ? watch(data.held) : onMessage(data))
  worker.onerror = (event) => onError(new Error(event.message || 'the worker script could not be started'))
  // Names are shared by all pages of an origin.
  const lock = navigator.locks ? `pinball thread ${crypto.randomUUID()}` : undefined
  return {
    start: (start) => worker.postMessage({ ...start, lock }),
    hold: () => {},
    stop: async () => {
      over.abort()
      worker.terminate()
      URL.revokeObjectURL(url)
    },
  }
}
