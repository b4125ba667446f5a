// The CPU back end: kernels compiled from assembly/, on threads over shared memory, or on the caller where there are none.
import type { Backend } from '../backend.ts'
import { openManyThreads } from './many_threads.ts'
import { openOneThread } from './one_thread.ts'
import { threadCount } from './pool.ts'

/** Opens the CPU with up to `threads` threads; all cores without a number, and one where shared memory is missing. */
export async function openWasm(threads?: number): Promise<Backend> {
  const count = threadCount(threads)
  return count > 1 ? openManyThreads(count) : openOneThread()
}
