// Reading one batch while the one before it is computed, with one buffer in host memory.

/** Reads batches one ahead. */
export interface ReadAhead<T> {
  /** The next batch as it was read; what it shares with others may be overwritten after `release`. */
  next(): Promise<T>
  /** Says that what was read is no longer needed: the batch after it begins to be read. */
  release(): void
  /** Waits for what is being read. */
  end(): Promise<void>
}

/** Starts reading the first of the batches. An error is thrown by the `next` that asks for its batch. */
export function readAhead<B, T>(batches: Iterator<B>, read: (batch: B) => Promise<T>): ReadAhead<T> {
  const start = () => {
    const { value, done } = batches.next()
    if (done) return null
    const reading = read(value)
    // The error is for the one who asks for the batch, which may be later than it occurs.
    reading.catch(() => {})
    return reading
  }
  let reading = start()
  return {
    next() {
      if (reading === null) throw new Error('training: there is no batch left')
      return reading
    },
    release() {
      reading = start()
    },
    async end() {
      await reading?.catch(() => {})
    },
  }
}
