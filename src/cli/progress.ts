// Progress on standard error: one line that is redrawn on a terminal, and now and then a line where there is none.

const REDRAW_MS = 200
// Short work on a terminal shows nothing, and a log gets a line only where the work is long.
const QUIET_MS = 1000
const LOG_MS = 30_000

export interface Progress {
  update(done: number, total: number): void
  /** Clears the line. */
  end(): void
}

/** Starts a progress line for work on things called `unit`. */
export function startProgress(unit: string): Progress {
  const terminal = process.stderr.isTTY === true
  const start = performance.now()
  let shown = start + (terminal ? QUIET_MS - REDRAW_MS : 0)
  let drawn = false
  return {
    update(done, total) {
      const now = performance.now()
      if (now - shown < (terminal ? REDRAW_MS : LOG_MS)) return
      shown = now
      const rate = done / ((now - start) / 1000)
      const left = rate > 0 ? `, ${duration((total - done) / rate)} left` : ''
      const line = `${done} of ${total} ${unit}, ${Number(rate.toPrecision(3))} a second${left}`
      process.stderr.write(terminal ? `\r\u001b[K${line}` : `pinball: ${line}\n`)
      drawn = terminal
    },
    end() {
      if (drawn) process.stderr.write('\r\u001b[K')
      drawn = false
    },
  }
}

/** Seconds as people say them: 42 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
