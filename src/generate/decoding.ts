// Decoding with a cache: prompts in, continuations out, token by token, many of them at a time.
//
// A prompt is computed once; its keys and values stay in the cache as long as a sample of it goes on, and all of its samples read
// them there. A sample has rows of its own behind them. Samples take places in the order of prompts and samples, as soon as a
// place and rows are free. What a sample becomes depends neither on its place nor on the others, to the bit.

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { type Backbone, prefill } from '../llama/forward.ts'
import type { LoraLayer } from '../llama/lora.ts'
import type { OutputLayer } from '../llama/output_layer.ts'
import { checkSequences } from '../llama/pack.ts'
import { type CacheStorage, makeCache, mostTokens, tokenBytes } from './cache.ts'
import type { Choose, Continuation, Prompt, StreamedToken } from './continuation.ts'
import { type DecodeStep, openDecodeStep, type StepRow } from './decode_step.ts'
import { RowRanges } from './row_ranges.ts'

/** Samples that go on at the same time. */
const SLOTS = 16
const MOST_SLOTS = 1024
/** Bytes of a cache that nobody has sized. */
const CACHE_BYTES = 2 ** 30
/** Tokens of prompts that are computed at once, unless one prompt alone has more. */
const PREFILL_TOKENS = 2048

/** What decodes: weights, output layer, and the adapter over them. */
export interface DecoderModel {
  readonly device: Device
  readonly model: Backbone
  readonly output: OutputLayer
  /** Branches of an adapter, none where the list is empty; a function is asked at the beginning of every run. */
  readonly adapter: readonly LoraLayer[] | (() => readonly LoraLayer[])
}

export interface DecoderOptions {
  /** Samples that go on at the same time, 1 to 1024; default 16. */
  readonly slots?: number
  /** Most tokens that the cache holds, prompts and continuations of all samples in work; by default as many as 1 GiB takes. */
  readonly maxTokens?: number
  /** How keys and values are stored; default f32. */
  readonly storage?: CacheStorage
}

export interface RunOptions {
  /** Most tokens of a continuation, at least 1. One also ends where prompt and continuation have the model's length. */
  readonly maxNewTokens: number
  /** Ends the run with the signal's reason. */
  readonly signal?: AbortSignal
  /** Hears of every token, in the order in which they are chosen. */
  readonly onToken?: (token: StreamedToken) => void
}

export interface Decoder {
  /** Most tokens that the cache of a run holds. */
  readonly maxTokens: number
  /** Bytes that a cache of so many tokens takes. */
  cacheBytes(tokens: number): number
  /**
   * Continues every prompt as often as it asks for; gives the continuations by prompt, then sample. Takes the memory of the cache
   * at the beginning and frees it at the end, whatever happens. Throws before it computes where a prompt is not the model's or
   * does not fit the cache.
   */
  run(prompts: readonly Prompt[], choose: Choose, options: RunOptions): Promise<Continuation[]>
  /** Refuses further runs. Model, output layer and adapter stay whose they are. */
  destroy(): void
}

/** A prompt in work. */
interface Group {
  readonly index: number
  readonly tokens: Uint32Array
  /** New tokens that a sample may have. */
  readonly limit: number
  /** First row of the prompt. */
  readonly prefix: number
  /** Logits behind the prompt [V], until all samples have begun. */
  logits: Float32Array
  /** Samples that have not ended. */
  left: number
}

/** A sample in work. */
interface Sample {
  readonly group: Group
  readonly sample: number
  /** First of its rows. */
  readonly own: number
  readonly tokens: number[]
  readonly logprobs: number[]
}

/** What a run works with. */
interface RunMemory {
  readonly parts: DecoderModel
  readonly adapter: readonly LoraLayer[]
  readonly cache: readonly Tensor[]
  readonly step: DecodeStep
  readonly rows: RowRanges
  readonly slots: number
}

/** Opens a decoder over a model. Throws on options out of range. */
export function openDecoder(parts: DecoderModel, options: DecoderOptions = {}): Decoder {
  const { device, model } = parts
  const { config } = model
  const { slots = SLOTS, storage = 'f32' } = options
  if (storage !== 'f32' && storage !== 'f16')
    throw new TypeError(`decoder: storage must be "f32" or "f16", got ${JSON.stringify(storage)}`)
  checkCount(slots, 'slots', MOST_SLOTS)
  const most = mostTokens(device, config, storage)
  if (options.maxTokens !== undefined) checkCount(options.maxTokens, 'maxTokens', most)
  const maxTokens = options.maxTokens ?? Math.min(most, Math.floor(CACHE_BYTES / tokenBytes(config, storage)))
  let destroyed = false
  return {
    maxTokens,
    cacheBytes: (tokens) => tokens * tokenBytes(config, storage),
    async run(prompts, choose, run) {
      if (destroyed) throw new Error('decoder: cannot run, the decoder has been destroyed')
      const { signal, maxNewTokens } = run
      checkCount(maxNewTokens, 'maxNewTokens', 2 ** 31)
      signal?.throwIfAborted()
      const sizes = measure(model, prompts, maxNewTokens, maxTokens)
      if (sizes.longest === 0) return new Run(prompts, choose, run).results()
      const rows = Math.min(maxTokens, sizes.all, slots * sizes.largest)
      const adapter = typeof parts.adapter === 'function' ? parts.adapter() : parts.adapter
      const cache = makeCache(device, config, rows, storage)
      let step: DecodeStep | null = null
      try {
        step = openDecodeStep(device, model, adapter, cache, slots, sizes.longest)
        const work = new Run(prompts, choose, run)
        await work.all({ parts, adapter, cache, step, rows: new RowRanges(rows), slots })
        return work.results()
      } finally {
        step?.destroy()
        for (const tensor of cache) tensor.destroy()
      }
    },
    destroy() {
      destroyed = true
    },
  }
}

/** Checks prompts and gives rows of all of them, of the largest with one sample, and positions of the longest; 0 where no token is wanted. */
function measure({ config }: Backbone, prompts: readonly Prompt[], maxNewTokens: number, maxTokens: number) {
  if (prompts.length === 0) return { all: 0, largest: 0, longest: 0 }
  checkSequences(
    config,
    prompts.map(({ tokens }) => tokens),
    'decoder: prompt',
  )
  const sizes = { all: 0, largest: 0, longest: 0 }
  for (const [p, { tokens, samples }] of prompts.entries()) {
    if (!Number.isSafeInteger(samples) || samples < 1)
      throw new RangeError(`decoder: prompt ${p} must ask for a whole number of samples from 1, got ${samples}`)
    const limit = limitOf(config.maxPosition, tokens, maxNewTokens)
    if (limit === 0) continue
    // The last token of a continuation is not computed further.
    const own = limit - 1
    const one = tokens.length + own
    if (one > maxTokens)
      throw new RangeError(
        `decoder: prompt ${p} has ${tokens.length} tokens, which take ${one} places of the cache with ${limit} new ones; it has ${maxTokens} (maxTokens)`,
      )
    sizes.all += tokens.length + samples * own
    sizes.largest = Math.max(sizes.largest, one)
    sizes.longest = Math.max(sizes.longest, one)
  }
  return sizes
}

const limitOf = (maxPosition: number, tokens: Uint32Array, maxNewTokens: number): number =>
  Math.min(maxNewTokens, maxPosition - tokens.length)

function checkCount(value: number, name: string, most: number): void {
  if (!Number.isSafeInteger(value) || value < 1 || value > most)
    throw new RangeError(`decoder: ${name} must be a whole number from 1 to ${most}, got ${value}`)
}

/** One run over prompts. */
class Run {
  readonly #prompts: readonly Prompt[]
  readonly #choose: Choose
  readonly #options: RunOptions
  readonly #done: Continuation[][]
  /** The prompt and the sample of it that come next, and that prompt where a sample of it has begun. */
  #prompt = 0
  #sample = 0
  #group: Group | null = null
  #active: Sample[] = []

  constructor(prompts: readonly Prompt[], choose: Choose, options: RunOptions) {
    this.#prompts = prompts
    this.#choose = choose
    this.#options = options
    this.#done = prompts.map(() => [])
  }

  /** The continuations by prompt, then sample; a prompt of the model's length has empty ones. */
  results(): Continuation[] {
    return this.#prompts.flatMap(({ samples }, prompt) =>
      Array.from({ length: samples }, (_, sample): Continuation => {
        const none = { tokens: new Uint32Array(), logprobs: new Float32Array(), finishReason: 'length' as const }
        return this.#done[prompt]![sample] ?? { prompt, sample, ...none }
      }),
    )
  }

  async all(memory: RunMemory): Promise<void> {
    const { parts, rows, step } = memory
    const V = parts.model.config.vocab
    for (;;) {
      while (await this.#admit(memory)) this.#options.signal?.throwIfAborted()
      if (this.#active.length === 0) return
      this.#options.signal?.throwIfAborted()
      const states = await step.run(this.#active.map(rowOf))
      const logits = await parts.output.logits(states)
      this.#active = this.#active.filter((sample, n) => this.#grow(sample, logits.subarray(n * V, (n + 1) * V), rows))
    }
  }

  /** Begins the samples that come next, as many as have a place and rows; computes their prompts. False: there are none. */
  async #admit({ parts, adapter, cache, rows, slots }: RunMemory): Promise<boolean> {
    const { config } = parts.model
    const fresh: Group[] = []
    const begun: Sample[] = []
    let tokens = 0
    while (this.#prompt < this.#prompts.length && this.#active.length + begun.length < slots) {
      const prompt = this.#prompts[this.#prompt]!
      const limit = limitOf(config.maxPosition, prompt.tokens, this.#options.maxNewTokens)
      if (limit === 0) {
        this.#prompt++
        continue
      }
      const length = prompt.tokens.length
      if (!this.#group && tokens > 0 && tokens + length > PREFILL_TOKENS) break
      // The first sample's rows lie behind the prompt's, so that the others fit there too when it has ended.
      const first = rows.take(this.#group ? limit - 1 : length + limit - 1)
      if (first === null) break
      let own = first
      if (!this.#group) {
        const { samples } = prompt
        this.#group = { index: this.#prompt, tokens: prompt.tokens, limit, prefix: first, logits: NONE, left: samples }
        fresh.push(this.#group)
        tokens += length
        own += length
      }
      begun.push({ group: this.#group, sample: this.#sample++, own, tokens: [], logprobs: [] })
      if (this.#sample < prompt.samples) continue
      this.#prompt++
      this.#sample = 0
      this.#group = null
    }
    if (begun.length === 0) return false
    if (fresh.length > 0) {
      const places = fresh.flatMap(({ tokens, prefix }) => Array.from(tokens, (_, t) => prefix + t))
      const kept = { layers: cache, rows: Uint32Array.from(places) }
      const prompts = fresh.map((group) => group.tokens)
      const states = await prefill(parts.device, parts.model, prompts, kept, adapter)
      try {
        const logits = await parts.output.logits(states)
        for (const [g, group] of fresh.entries()) group.logits = logits.slice(g * config.vocab, (g + 1) * config.vocab)
      } finally {
        states.destroy()
      }
    }
    for (const sample of begun) {
      const { group } = sample
      // Whoever chooses may change what it gets.
      if (this.#grow(sample, group.logits.slice(), rows)) this.#active.push(sample)
      if (group !== this.#group && sample.sample === this.#prompts[group.index]!.samples - 1) group.logits = NONE
    }
    return true
  }

  /** Adds a token to a sample. False: it has ended, and its place and rows are free. */
  #grow(sample: Sample, logits: Float32Array, rows: RowRanges): boolean {
    const { group, tokens, logprobs, own } = sample
    const at = { prompt: group.index, sample: sample.sample }
    const { token, logprob, finish } = this.#choose({ ...at, tokens, logits })
    if (!Number.isSafeInteger(token) || token < 0 || token >= logits.length)
      throw new RangeError(
        `decoder: prompt ${at.prompt}, sample ${at.sample}: the token that is chosen must be from 0 to ${logits.length - 1}, got ${token}`,
      )
    tokens.push(token)
    logprobs.push(logprob)
    const end = finish ?? (tokens.length === group.limit ? 'length' : null)
    this.#options.onToken?.({ ...at, index: tokens.length - 1, token, logprob, finish: end })
    if (end === null) return true
    this.#done[at.prompt]![at.sample] = {
      ...at,
      tokens: Uint32Array.from(tokens),
      logprobs: Float32Array.from(logprobs),
      finishReason: end,
    }
    rows.give(own, group.limit - 1)
    group.left--
    if (group.left === 0) rows.give(group.prefix, group.tokens.length)
    return false
  }
}

/** The step's view of a sample: its latest token comes next. */
const rowOf = ({ group, own, tokens }: Sample): StepRow => ({
  token: tokens.at(-1)!,
  position: group.tokens.length + tokens.length - 1,
  prefix: group.prefix,
  ahead: group.tokens.length,
  own,
})

const NONE = new Float32Array()
