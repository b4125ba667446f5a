// What a loaded model has one of at a time and can be given another of while calls go on, such as its adapter.

interface Held<T> {
  readonly thing: T
  users: number
}

/** Holds one thing. Calls keep the one that they began with; what was replaced is destroyed when the last of them has ended. */
export class Slot<T extends { destroy(): void }> {
  #held: Held<T>
  #closed = false

  constructor(first: T) {
    this.#held = { thing: first, users: 0 }
  }

  get now(): T {
    return this.#held.thing
  }

  /** Runs work with what is there now. */
  async use<R>(work: (thing: T) => Promise<R>): Promise<R> {
    const held = this.#held
    held.users++
    try {
      return await work(held.thing)
    } finally {
      held.users--
      this.#release(held)
    }
  }

  /** Puts another thing in its place. */
  set(next: T): void {
    const old = this.#held
    this.#held = { thing: next, users: 0 }
    this.#release(old)
  }

  /** Destroys what it holds, when nobody uses it any more; safe to call twice. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#release(this.#held)
  }

  #release(held: Held<T>): void {
    if (held.users === 0 && (this.#closed || held !== this.#held)) held.thing.destroy()
  }
}
