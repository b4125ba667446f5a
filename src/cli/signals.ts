// What the process does when it is interrupted or when the reader of its output goes away.
import { discardUnfinished } from '../files/disk.ts'
import { EXIT, SIGNAL_EXITS, SIGNALS } from './exit_codes.ts'

function stop(signal: NodeJS.Signals): void {
  discardUnfinished()
  process.exit(SIGNAL_EXITS[signal as keyof typeof SIGNAL_EXITS])
}

/** Says whether an error of a stream means that its reader has gone away. */
export function isReaderGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'EPIPE'
}

/** Ends the process quietly, as there is nobody left to read its output. */
export function endQuietly(): never {
  discardUnfinished()
  process.exit(EXIT.done)
}

/** Ends quietly where the reader of a pipe has gone away; removes unfinished files on an interrupt and exits with its code. */
export function handleSignals(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => {
      if (!isReaderGone(error)) throw error
      endQuietly()
    })
  }
  for (const signal of SIGNALS) process.on(signal, stop)
}

/**
 * Runs work that computes for a long time without a pause and writes no file. A handler would be called only in a pause, so
 * the system's own is put back, which ends the process at once. Inside of such work, or of work with a handler of its own, this
 * changes nothing.
 */
export async function withoutInterruptHandler<T>(work: () => Promise<T>): Promise<T> {
  const removed = SIGNALS.filter((signal) => process.listeners(signal).includes(stop))
  for (const signal of removed) process.off(signal, stop)
  try {
    return await work()
  } finally {
    for (const signal of removed) process.on(signal, stop)
  }
}
