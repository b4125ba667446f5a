// The log of a training: lines of JSON without times, so that a run that was interrupted writes the same bytes.

/** A line of the log; values are JSON. */
export type LogEntry = object

/** An entry as a line of the log. Throws on numbers that JSON cannot hold, rather than write null. */
export function logLine(entry: LogEntry): string {
  const text = JSON.stringify(entry, (key, value: unknown) => {
    if (typeof value === 'number' && !Number.isFinite(value))
      throw new Error(`training: ${key} must be finite, got ${value}`)
    return value
  })
  return `${text}\n`
}
