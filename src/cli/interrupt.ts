// Long work that saves what it has when it is interrupted.
import { discardUnfinished } from '../files/disk.ts'
import { finishedText, interruptedText } from '../report/training.ts'
import { SIGNAL_EXITS, SIGNALS } from './exit_codes.ts'
import { note } from './output.ts'
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

/** A training that is kept in a folder while it goes on. */
interface KeptTraining<Trained> {
  readonly command: string
  readonly out: string
  /** Trains, and says which step an interrupt has saved. */
  train(signal: AbortSignal, onSave: (step: number) => void): Promise<Trained>
  report(trained: Trained): Promise<void>
  /** The line that says how far it is. */
  readonly progress: { end(): void }
}

/** Runs a training and reports; an interrupt ends it with a note about what is kept. */
export function interruptibleTraining<Trained extends { readonly finished: boolean }>({
  command,
  out,
  train,
  report,
  progress,
}: KeptTraining<Trained>): Promise<void> {
  return interruptible(command, async ({ signal, code }) => {
    let saved: number | undefined
    try {
      const trained = await train(signal, (step) => {
        saved = step
      })
      progress.end()
      if (trained.finished) note(`${command}: ${finishedText(out)}`)
      await report(trained)
    } catch (error) {
      progress.end()
      if (!signal.aborted) throw error
      note(`${command}: ${interruptedText(saved, out)}`)
      process.exitCode = code()
    }
  })
}
