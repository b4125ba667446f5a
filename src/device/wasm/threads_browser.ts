// Threads in a browser: Web Workers. The `#threads` module of everything but Node.
import type { Held, Message, Start, Started } from './queue.ts'

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

/** By address, or '' for scripts from text. */
const known = new Map<string, Promise<boolean>>()

/**
 * Whether a worker starts, from the text of its script or from where that text is served: a page's policy may forbid either. It is
 * tried once a page.
 */
export function threadsStart(script: string, url?: string | URL): Promise<boolean> {
  const key = String(url ?? '')
  const found = known.get(key) ?? tryToStart(script, url)
  known.set(key, found)
  return found
}

function tryToStart(script: string, url?: string | URL): Promise<boolean> {
  return new Promise((resolve) => {
    try {
      const { worker, release } = startWorker(script, url)
      const end = (starts: boolean) => {
        worker.terminate()
        release()
        resolve(starts)
      }
      worker.onmessage = () => end(true)
      worker.onerror = () => end(false)
    } catch {
      resolve(false)
    }
  })
}

function startWorker(script: string, url?: string | URL): { worker: Worker; release: () => void } {
  if (url !== undefined) return { worker: new Worker(url), release: () => {} }
  const own = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
  return { worker: new Worker(own), release: () => URL.revokeObjectURL(own) }
}

/**
 * Starts a thread from the text of its script, or from where that is served. `onError` also hears when it ends before `stop`: a page gets no event then, so the
 * thread holds a lock, which the browser gives to the page when the thread is gone.
 */
export function spawn(
  script: string,
  onMessage: (message: Message) => void,
  onError: (error: Error) => void,
  url?: string | URL,
): Thread {
  const { worker, release } = startWorker(script, url)
  const over = new AbortController()
  const watch = (lock: string): void => {
    const request = navigator.locks.request(lock, { signal: over.signal }, () =>
      onError(new Error('was ended by the browser')),
    )
    request.catch(() => {})
  }
  worker.onmessage = ({ data }: MessageEvent<Message | Held | Started>) => {
    if ('held' in data) watch(data.held)
    else if (!('started' in data)) onMessage(data)
  }
  worker.onerror = (event) => onError(new Error(event.message || 'the worker script could not be started'))
  // Names are shared by all pages of an origin.
  const lock = navigator.locks ? `pinball thread ${crypto.randomUUID()}` : undefined
  return {
    start: (start) => worker.postMessage({ ...start, lock }),
    hold: () => {},
    stop: async () => {
      over.abort()
      worker.terminate()
      release()
    },
  }
}
