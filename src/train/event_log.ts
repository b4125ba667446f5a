// The event file of a training: what the log says, for TensorBoard. It follows the log; the log alone is compared bit for bit.
import type { Store } from '../files/store.ts'
import type { LogEntry } from './log.ts'
import { EVENTS_FILE, firstEvent, keptBytes, scalarEvent, tagOf } from './tensorboard.ts'

/** Appends entries to the event file of a store. */
export class EventLog {
  readonly #store: Store
  #waiting: { readonly step: number; readonly scalars: Record<string, number> }[] = []
  #length: number | null = null

  constructor(store: Store) {
    this.#store = store
  }

  /** Takes a line of the log; numbers but for the step become curves. */
  add(entry: LogEntry): void {
    const { step, ...rest } = entry as { step: number } & Record<string, unknown>
    const scalars: Record<string, number> = {}
    for (const [name, value] of Object.entries(rest)) if (typeof value === 'number') scalars[tagOf(name)] = value
    this.#waiting.push({ step, scalars })
  }

  /** Writes what waits. The first time, what the file has of this step and later ones is cut off. */
  async flush(step: number): Promise<void> {
    const time = Date.now() / 1000
    const parts: Uint8Array[] = []
    if (this.#length === null) {
      this.#length = await this.#kept(Math.min(step, ...this.#waiting.map((waiting) => waiting.step)) - 1)
      if (this.#length === 0) parts.push(firstEvent(time))
    }
    for (const { step: at, scalars } of this.#waiting.splice(0)) parts.push(scalarEvent(at, time, scalars))
    for (const part of parts) {
      await this.#store.append(EVENTS_FILE, this.#length, part)
      this.#length += part.length
    }
  }

  async #kept(step: number): Promise<number> {
    const source = await this.#store.open(EVENTS_FILE)
    if (source === null) return 0
    try {
      return keptBytes(await source.read(0, source.byteLength), step)
    } finally {
      await source.close()
    }
  }
}
