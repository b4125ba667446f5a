// Texts that a model writes, as they grow: the tokens of a decoder, gathered by row and sample and turned into text.
import type { Message } from '../text/chat.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { openWriter, type Writer } from './chooser.ts'
import type { FinishReason, GenerationSettings, StreamedToken } from './continuation.ts'
import type { EncodedPrompt, RowId } from './prompt_rows.ts'

/** A continuation of a row's prompt. */
export interface GeneratedText {
  /** Index of the row among those that were given. */
  readonly row: number
  /** From 0. */
  readonly sample: number
  /** As the row has it. */
  readonly id?: RowId
  /** The prompt as the row gives it: its text, its messages or its token ids. */
  readonly prompt: string | readonly Message[] | readonly number[]
  /** The prompt as the model has read it. */
  readonly promptTokens: Uint32Array<ArrayBuffer>
  /** Without special tokens and without what ended it; null where the model has no tokenizer. */
  readonly text: string | null
  /** The stop token that ended it included. */
  readonly tokens: Uint32Array<ArrayBuffer>
  /** Of each token, before top-k, top-p and min-p; where greedy, of the unscaled distribution. */
  readonly logprobs: Float32Array<ArrayBuffer>
  /** `length`: it has as many tokens as were asked for, or as the model takes. */
  readonly finishReason: FinishReason
}

/** What a token added. */
export interface GeneratedPiece {
  readonly row: number
  readonly sample: number
  /** Text that is certain now; may be empty. The pieces of a sample together are its text. */
  readonly text: string
  /** Null in the only piece of a prompt that leaves no room for a token. */
  readonly token: number | null
  readonly logprob: number | null
  /** The whole, with the last piece of a sample. */
  readonly result: GeneratedText | null
}

interface Growing {
  readonly writer: Writer | null
  readonly tokens: number[]
  readonly logprobs: number[]
  text: string
}

/** Gathers the tokens of a run. */
export class TextCollector {
  readonly #prompts: readonly EncodedPrompt[]
  readonly #settings: GenerationSettings
  readonly #tokenizer: Tokenizer | null
  readonly #growing = new Map<string, Growing>()

  constructor(prompts: readonly EncodedPrompt[], settings: GenerationSettings, tokenizer: Tokenizer | null) {
    this.#prompts = prompts
    this.#settings = settings
    this.#tokenizer = tokenizer
  }

  /** The piece that a token makes. */
  push({ prompt: row, sample, token, logprob, finish }: StreamedToken): GeneratedPiece {
    const name = `${row} ${sample}`
    const own = this.#growing.get(name) ?? this.#begin()
    this.#growing.set(name, own)
    own.tokens.push(token)
    own.logprobs.push(logprob)
    const text = (own.writer?.push(token) ?? '') + (finish === null ? '' : (own.writer?.end() ?? ''))
    own.text += text
    if (finish !== null) this.#growing.delete(name)
    const result = finish === null ? null : this.#result(row, sample, own, finish)
    return { row, sample, text, token, logprob: own.logprobs.at(-1)!, result }
  }

  /** The piece of a sample that can have no token. */
  empty(row: number, sample: number): GeneratedPiece {
    const result = this.#result(row, sample, this.#begin(), 'length')
    return { row, sample, text: '', token: null, logprob: null, result }
  }

  #begin(): Growing {
    const writer = this.#tokenizer && openWriter(this.#settings, this.#tokenizer)
    return { writer, tokens: [], logprobs: [], text: '' }
  }

  #result(row: number, sample: number, own: Growing, finishReason: FinishReason): GeneratedText {
    const { id, given, tokens } = this.#prompts[row]
    return {
      ...{ row, sample, ...(id !== undefined && { id }), prompt: given, promptTokens: tokens },
      text: this.#tokenizer && own.text,
      tokens: Uint32Array.from(own.tokens),
      logprobs: Float32Array.from(own.logprobs),
      finishReason,
    }
  }
}

/**
 * Runs work that tells of things as they come and yields them; the work begins with the first that is asked for. What was told is
 * yielded before an error is thrown. Whoever stops asking aborts the work.
 */
export async function* yieldTold<T>(
  work: (tell: (thing: T) => void, signal: AbortSignal) => Promise<unknown>,
  outer?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const abort = new AbortController()
  const pass = (): void => abort.abort(outer?.reason)
  if (outer?.aborted) pass()
  else outer?.addEventListener('abort', pass)
  const told: T[] = []
  let wake = (): void => {}
  let ended = false
  const tell = (thing: T): void => {
    told.push(thing)
    wake()
  }
  const running = work(tell, abort.signal).finally(() => {
    ended = true
    wake()
  })
  // Thrown below, once everything has been yielded.
  running.catch(() => {})
  try {
    for (;;) {
      const things = told.splice(0)
      yield* things
      if (things.length > 0) continue
      if (ended) break
      await new Promise<void>((resolve) => {
        wake = resolve
        if (ended || told.length > 0) resolve()
      })
    }
    await running
  } finally {
    outer?.removeEventListener('abort', pass)
    abort.abort(new Error('generate: nobody listens any more'))
    await running.catch(() => {})
  }
}
