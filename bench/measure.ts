// Measures one thing: warm-up, then repetitions until the time is long enough, median and spread.

export interface Timing {
  /** Median milliseconds of one run. */
  readonly ms: number
  /** Half the distance between the quartiles, in milliseconds. */
  readonly spreadMs: number
  readonly runs: number
}

export interface MeasureOptions {
  /** Total time to spend, in milliseconds. */
  readonly budgetMs?: number
  readonly minRuns?: number
}

/**
 * Times `run`, which must leave nothing unfinished when it returns. Runs it once without counting, more often if it is fast
 * (compilers and caches warm up), then until the budget is spent and at least `minRuns` times.
 */
export async function measure(
  run: () => void | Promise<void>,
  { budgetMs = 500, minRuns = 5 }: MeasureOptions = {},
): Promise<Timing> {
  const warmUntil = performance.now() + budgetMs / 5
  do await run()
  while (performance.now() < warmUntil)
  const times: number[] = []
  let total = 0
  while (total < budgetMs || times.length < minRuns) {
    const begin = performance.now()
    await run()
    const ms = performance.now() - begin
    times.push(ms)
    total += ms
  }
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(share * times.length))]!
  return { ms: at(0.5), spreadMs: (at(0.75) - at(0.25)) / 2, runs: times.length }
}

/** Aligned columns; numbers on the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]): string =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  ')
  return [line(head), ...rows.map(line)].join('\n')
}
