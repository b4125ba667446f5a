// Where the time of a fit goes.

/** Adds up the time between changes of phase; the phases sum to the whole. */
export class Phases {
  /** Milliseconds by phase. */
  readonly ms: Record<string, number> = {}
  #name: string
  #since = performance.now()

  constructor(name: string) {
    this.#name = name
  }

  /** Ends the current phase and starts another; gives the name of the one that ended. */
  enter(name: string): string {
    const now = performance.now()
    const before = this.#name
    this.ms[before] = (this.ms[before] ?? 0) + now - this.#since
    this.#since = now
    this.#name = name
    return before
  }
}
