// Progress on standard error: one line that is redrawn on a terminal, and now and then a line where there is none.

import { printable } from '../files/json.ts'
import { countText, rowsText } from '../report/progress.ts'
import type { Progress } from '../reward/features.ts'

const REDRAW_MS = 200
// Short work on a terminal shows nothing, and a log gets a line only where the work is long.
const QUIET_MS = 1000
const LOG_MS = 30_000

export interface ProgressLine {
  /** `done` of `total` things are finished; where they differ in size, `work` of `totalWork` says it better for the rate. */
  update(done: number, total: number, work?: number, totalWork?: number): void
  /** Clears the line. */
  end(): void
}

/** A line that says how far work has come; the text is made only where it is shown. */
export interface StatusLine {
  show(text: () => string): void
  /** Clears the line. */
  end(): void
}

/** Starts a line of any text. */
export function startStatus(): StatusLine {
  const terminal = process.stderr.isTTY === true
  let shown = performance.now() + (terminal ? QUIET_MS - REDRAW_MS : 0)
  let drawn = false
  return {
    show(text) {
      const now = performance.now()
      if (now - shown < (terminal ? REDRAW_MS : LOG_MS)) return
      shown = now
      process.stderr.write(terminal ? `\r\u001b[K${fitted(text())}` : `pinball: ${text()}\n`)
      drawn = terminal
    },
    end() {
      if (drawn) process.stderr.write('\r\u001b[K')
      drawn = false
    },
  }
}

/** A line that is broken by the terminal could not be redrawn. */
function fitted(line: string): string {
  const width = process.stderr.columns
  return width > 0 && line.length >= width ? line.slice(0, width - 1) : line
}

/** Starts a progress line for things called `unit`, with a rate in `workUnit`. */
export function startProgress(unit: string, workUnit = unit): ProgressLine {
  const status = startStatus()
  const start = performance.now()
  return {
    update(done, total, work = done, totalWork = total) {
      status.show(() => countText([done, total, unit], [work, totalWork, workUnit], (performance.now() - start) / 1000))
    },
    end: status.end,
  }
}

export interface Phases {
  update(doing: string, done: number, total: number): void
  end(): void
}

/** A progress line for work of several phases, each with things of its own: the line begins anew with each. */
export function startPhases(start: (doing: string) => ProgressLine = startProgress): Phases {
  let phase: string | null = null
  let line: ProgressLine | null = null
  return {
    update(doing, done, total) {
      if (doing !== phase) {
        line?.end()
        line = start(doing)
        phase = doing
      }
      line?.update(done, total)
    },
    end: () => line?.end(),
  }
}

/** A progress line for files that are fetched one after the other, by name and bytes. */
export function startFetches(): Phases {
  const { update, end } = startPhases((name) => startProgress(`MB of ${printable(name)}`, 'MB'))
  return { update: (name, bytes, total) => update(name, Math.round(bytes / 1e6), Math.round(total / 1e6)), end }
}

/** A progress line for rows, as a model reports them; `before` were there when the work began. */
export function startRows(before: Pick<Progress, 'done' | 'tokens'> = { done: 0, tokens: 0 }): {
  update: (progress: Progress) => void
  end(): void
} {
  const status = startStatus()
  const start = performance.now()
  return {
    update(progress) {
      status.show(() => rowsText(progress, before, (performance.now() - start) / 1000))
    },
    end: status.end,
  }
}
