// Long work that saves what it has when it is interrupted.
import { discardUnfinished } from '../files/disk.ts'
import { SIGNAL_EXITS, SIGNALS } from './exit_codes.ts'
import { withoutInterruptHandler } from './signals.ts'

export interface Interrupt {
  readonly signal: AbortSignal
  /** The exit code, once there was one. */
  code(): number
}

/** Runs work of a command that an interrupt aborts by the signal; a second one ends the process at once. */
export function interruptible<T>(command: string, work: (interrupt: Interrupt) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const { signal } = controller
  let code = 0
  const stop = (name: NodeJS.Signals) => {
    code = SIGNAL_EXITS[name as keyof typeof SIGNAL_EXITS]
    if (signal.aborted) {
      discardUnfinished()
      process.exit(code)
    }
    controller.abort(new Error(`${command}: interrupted by ${name}`))
  }
  return withoutInterruptHandler(async () => {
    for (const name of SIGNALS) process.on(name, stop)
    try {
      return await work({ signal, code: () => code })
    } finally {
      for (const name of SIGNALS) process.off(name, stop)
    }
  })
}
