// The CPU back end: kernels compiled from assembly/, on threads over shared memory, or on the caller where there are none.
import { threadsStart } from '#threads'
import { workerText } from '../../generated/worker.ts'
import type { Backend } from '../backend.ts'
import { openManyThreads } from './many_threads.ts'
import { openOneThread } from './one_thread.ts'
import { threadCount } from './pool.ts'

export interface OpenedCpu {
  readonly backend: Backend
  /** What is to be said about its threads, to stand behind a reason; empty most often. */
  readonly note: string
}

/** Opens the CPU with up to `threads` threads; all cores without a number, and one where shared memory or workers are missing. */
export async function openWasm(threads?: number, workerUrl?: string | URL): Promise<OpenedCpu> {
  const count = threadCount(threads)
  if (count === 1) return { backend: await openOneThread(), note: '' }
  if (await threadsStart(workerText, workerUrl)) return { backend: await openManyThreads(count, workerUrl), note: '' }
  const what =
    workerUrl === undefined ? 'from a blob: URL (worker-src of its policy); give workerUrl' : `from ${workerUrl}`
  return { backend: await openOneThread(), note: `, on one thread: the page lets no worker start ${what}` }
}
