// The table of generations: a line of JSON for every completion that was trained on. How long it was is part of a training's state, so
// that it goes on with the same bytes.
import { printable } from '../../files/json.ts'
import type { Store } from '../../files/store.ts'

export const GENERATIONS_FILE = 'generations.jsonl'

/** A line. */
export interface Generation {
  /** From 1. */
  readonly step: number
  /** The id of the row, or its number from 0. */
  readonly prompt_id: unknown
  /** Texts; null without a tokenizer. */
  readonly prompt: string | null
  readonly completion: string | null
  /** Before clipping and KL; null: none was given. */
  readonly reward: number | null
  readonly advantage: number
  /** The stop token that ended it included. */
  readonly tokens: readonly number[]
  readonly finish_reason: 'stop' | 'length'
}

/** Appends lines to the table of a store; without a store they go nowhere. */
export class GenerationLog {
  readonly #store: Store | undefined
  #waiting: Uint8Array[] = []
  #length = 0

  constructor(store: Store | undefined) {
    this.#store = store
  }

  /** Takes lines and gives their bytes. */
  add(lines: readonly Generation[]): number {
    if (!this.#store) return 0
    const text = new TextEncoder().encode(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    this.#waiting.push(text)
    return text.length
  }

  /** Cuts the file back to what it had when the state was saved. Throws where it has less. */
  async goOn(length: number): Promise<void> {
    this.#waiting = []
    this.#length = length
    if (!this.#store) return
    const source = await this.#store.open(GENERATIONS_FILE)
    const found = source?.byteLength ?? 0
    await source?.close()
    if (found < length) {
      const path = `${printable(this.#store.name)}/${GENERATIONS_FILE}`
      throw new Error(`${path}: has ${found} bytes, the steps that are saved had written ${length}; give --restart`)
    }
    if (found > length) await this.#store.append(GENERATIONS_FILE, length, new Uint8Array())
  }

  /** Writes what waits. */
  async flush(): Promise<void> {
    for (const lines of this.#waiting.splice(0)) {
      await this.#store!.append(GENERATIONS_FILE, this.#length, lines)
      this.#length += lines.length
    }
  }

  /** Gives the file to a training that is finished, as one of its own. */
  async finish(out: Store): Promise<void> {
    const source = await this.#store?.open(GENERATIONS_FILE)
    if (!source) return
    try {
      await out.write(GENERATIONS_FILE, blocks(source))
    } finally {
      await source.close()
    }
  }
}

const BLOCK = 2 ** 20

async function* blocks(source: { readonly byteLength: number; read(at: number, length: number): Promise<Uint8Array> }) {
  for (let at = 0; at < source.byteLength; at += BLOCK)
    yield await source.read(at, Math.min(BLOCK, source.byteLength - at))
}
