// Progress on standard error: one line that is redrawn on a terminal, and now and then a line where there is none.

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
      status.show(() => {
        const rate = work / ((performance.now() - start) / 1000)
        const left = rate > 0 ? `, ${duration((totalWork - work) / rate)} left` : ''
        return `${done} of ${total} ${unit}, ${Number(rate.toPrecision(3))} ${workUnit} a second${left}`
      })
    },
    end: status.end,
  }
}

/** A progress line for work of several phases, each with things of its own: the line begins anew with each. */
export function startPhases(): { update(doing: string, done: number, total: number): void; end(): void } {
  let phase: string | null = null
  let line: ProgressLine | null = null
  return {
    update(doing, done, total) {
      if (doing !== phase) {
        line?.end()
        line = startProgress(doing)
        phase = doing
      }
      line?.update(done, total)
    },
    end: () => line?.end(),
  }
}

/** Seconds as people say them: 0.4 s, 42 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** A progress line for rows, as a model reports them; `before` were there when the work began. */
export function startRows(before: Pick<Progress, 'done' | 'tokens'> = { done: 0, tokens: 0 }): {
  update: (progress: Progress) => void
  end(): void
} {
  const status = startStatus()
  const start = performance.now()
  return {
    update({ done, rows, tokens, totalTokens }) {
      status.show(() => {
        const seconds = (performance.now() - start) / 1000
        const rate = (tokens - before.tokens) / seconds
        const [some, many] = [(done - before.done) / seconds, rate].map((value) => Number(value.toPrecision(3)))
        const left = rate > 0 ? `, ${duration((totalTokens - tokens) / rate)} left` : ''
        return `${done} of ${rows} rows, ${some} rows and ${many} tokens a second${left}`
      })
    },
    end: status.end,
  }
}
