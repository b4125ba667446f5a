// A causal model, loaded: rows to texts, all at once or as they grow, under an adapter that can be swapped.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import { readAdapter } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { openBackbone } from '../llama/forward.ts'
import { type DeviceAdapter, loadAdapter, NO_ADAPTER } from '../llama/lora_adapter.ts'
import { openOutputLayer, outputInfo } from '../llama/output_layer.ts'
import { Slot } from '../llama/slot.ts'
import { turns } from '../llama/turns.ts'
import { openFor } from '../reward/directory.ts'
import { encodeNamed } from '../reward/rows.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { type CacheStorage, mostTokens } from './cache.ts'
import { chooser } from './chooser.ts'
import { type Choose, GENERATION_DEFAULTS, type GenerationSettings } from './continuation.ts'
import { type DecoderModel, openDecoder } from './decoding.ts'
import { type EncodedPrompt, encodePrompt, keyPrompts, type PromptRow } from './prompt_rows.ts'
import { readStopTokens } from './stop_tokens.ts'
import { type GeneratedPiece, type GeneratedText, TextCollector, yieldTold } from './texts.ts'

/** Settings that are left out are those of `GENERATION_DEFAULTS`, stop tokens those of the model. */
export interface GenerateOptions extends Partial<GenerationSettings> {
  /** Texts for each row, at least 1; default 1. */
  readonly samples?: number
  /** Prompts that are texts are continued as they are, without the chat template; default false. */
  readonly plain?: boolean
  /** Samples that are decoded at the same time; default 16. It changes no text. */
  readonly slots?: number
  /** How keys and values are stored; default f32. */
  readonly storage?: CacheStorage
  /** Ends the work with the signal's reason. */
  readonly signal?: AbortSignal
  /** What errors call a row, counted from 0; `row 1` is the first by default. */
  readonly nameRow?: (row: number) => string
}

export interface CausalModel {
  readonly name: string
  readonly device: Device
  readonly config: LlamaConfig
  readonly tokenizer: Tokenizer | null
  /** What ends a text where no other stop tokens are given: those of generation_config.json, else of config.json. */
  readonly stopTokens: readonly number[]
  /**
   * Continues the prompts of rows, which are those of `score` without the response. Gives the texts by row, then sample. A text depends
   * on settings, prompt and sample alone, not on what is computed beside it. `onPiece` hears of every token as it comes. Throws
   * `row N: ...` on a prompt that cannot be continued, before any is computed.
   */
  generate(
    rows: readonly PromptRow[],
    options?: GenerateOptions & { readonly onPiece?: (piece: GeneratedPiece) => void },
  ): Promise<GeneratedText[]>
  /**
   * As `generate`, but yields the pieces as they come; those of different samples are mixed. It begins with the first that is asked for;
   * whoever breaks off ends the work. Pieces that have come are yielded before an error is thrown.
   */
  stream(rows: readonly PromptRow[], options?: GenerateOptions): AsyncIterable<GeneratedPiece>
  /**
   * Puts a LoRA adapter over the model, in the place of the one that was there; null: none. The base stays as it is loaded, and calls
   * that have begun keep the adapter that they began with. Throws where it does not fit, and then nothing has changed.
   */
  adapter(files: ModelFiles | null): Promise<void>
  destroy(): Promise<void>
}

export interface CausalModelOptions {
  /** A LoRA adapter that the model computes under from the beginning. */
  readonly adapter?: ModelFiles | null
}

/** Loads a model directory with an output layer. Throws on whatever is missing or damaged, naming file and tensor. */
export async function loadCausalModel(
  device: Device,
  files: ModelFiles,
  options: CausalModelOptions = {},
): Promise<CausalModel> {
  return openFor(files, async (directory) => {
    const { name, manifest, tensors } = directory
    const owned: { destroy(): void }[] = []
    const own = <T extends { destroy(): void }>(thing: T): T => {
      owned.push(thing)
      return thing
    }
    const destroyAll = (): void => {
      for (const thing of owned.splice(0).reverse()) thing.destroy()
    }
    try {
      const tokenizer = await loadTokenizer(files)
      const model = own(await openBackbone(device, directory))
      const { config } = model
      const info = outputInfo(tensors, config)
      if (info === undefined) throw new Error(`${name}: lm_head.weight is missing; generation needs a causal model`)
      const output = own(await openOutputLayer(device, config, info))
      const stopTokens = await readStopTokens(files, config.eos)
      const slot = new Slot<DeviceAdapter>(NO_ADAPTER)
      own({ destroy: () => slot.close() })
      const rules = { name, tokenizer, bos: manifest.bos, vocab: config.vocab, maxPosition: config.maxPosition }
      const takeTurn = turns()
      let destroyed = false

      const generate: CausalModel['generate'] = async (rows, { onPiece, ...choice } = {}) => {
        const { nameRow = (row: number) => `row ${row + 1}`, plain = false } = choice
        const encoded = encodeNamed(rows, (row) => encodePrompt(row, { ...rules, plain }), nameRow)
        return slot.use((adapter) =>
          takeTurn(async () => {
            if (destroyed) throw new Error(`${name}: the model has been destroyed`)
            const parts = { device, model, output, adapter: adapter.layers }
            const settings = { ...GENERATION_DEFAULTS, stopTokens, ...choice }
            return writeTexts(parts, encoded, tokenizer, { ...settings, nameRow, onPiece })
          }),
        )
      }
      const causal: CausalModel = {
        ...{ name, device, config, tokenizer, stopTokens, generate },
        stream: (rows, choice = {}) =>
          yieldTold((onPiece, signal) => generate(rows, { ...choice, signal, onPiece }), choice.signal),
        async adapter(own) {
          const adapter = own && (await readAdapter(own, config))
          if (adapter?.score)
            throw new Error(`${adapter.name}: is an adapter of a classifier; generation needs a causal one`)
          slot.set(adapter ? loadAdapter(device, adapter, config) : NO_ADAPTER)
        },
        destroy: () =>
          takeTurn(async () => {
            destroyed = true
            destroyAll()
          }),
      }
      if (options.adapter) await causal.adapter(options.adapter)
      return causal
    } catch (error) {
      destroyAll()
      throw error
    }
  })
}

interface WriteOptions extends GenerationSettings, Pick<GenerateOptions, 'samples' | 'slots' | 'storage' | 'signal'> {
  readonly nameRow: (row: number) => string
  readonly onPiece?: (piece: GeneratedPiece) => void
}

async function writeTexts(
  parts: DecoderModel,
  encoded: readonly EncodedPrompt[],
  tokenizer: Tokenizer | null,
  { nameRow, onPiece, slots, storage = 'f32', signal, samples = 1, ...settings }: WriteOptions,
): Promise<GeneratedText[]> {
  if (!Number.isSafeInteger(samples) || samples < 1)
    throw new Error(`generate: samples must be a whole number of at least 1, got ${samples}`)
  const prompts = keyPrompts(
    encoded.map(({ tokens }) => tokens),
    samples,
  )
  const choose = chooser(settings, prompts, tokenizer)
  const { maxNewTokens } = settings
  const texts: GeneratedText[][] = encoded.map(() => [])
  const collector = new TextCollector(encoded, settings, tokenizer)
  const tell = (piece: GeneratedPiece): void => {
    if (piece.result) texts[piece.row][piece.sample] = piece.result
    onPiece?.(piece)
  }
  const maxTokens = cacheTokens(parts, encoded, maxNewTokens, storage, nameRow)
  const decoder = openDecoder(parts, { slots, storage, maxTokens })
  signal?.throwIfAborted()
  for (const [row, { tokens }] of encoded.entries()) {
    if (tokens.length < parts.model.config.maxPosition) continue
    for (let sample = 0; sample < samples; sample++) tell(collector.empty(row, sample))
  }
  const named: Choose = (choice) => {
    try {
      return choose(choice)
    } catch (error) {
      throw new Error(`${nameRow(choice.prompt)}: ${(error as Error).message}`, { cause: error })
    }
  }
  await decoder.run(prompts, named, { maxNewTokens, signal, onToken: (token) => tell(collector.push(token)) })
  return texts.flat()
}

/** Tokens that the cache needs to have for the longest row, where they are more than it has by default. Throws where it cannot. */
function cacheTokens(
  parts: DecoderModel,
  encoded: readonly EncodedPrompt[],
  maxNewTokens: number,
  storage: CacheStorage,
  nameRow: (row: number) => string,
): number | undefined {
  const { config } = parts.model
  const usual = openDecoder(parts, { storage }).maxTokens
  const most = mostTokens(parts.device, config, storage)
  let largest = 0
  for (const [row, { tokens }] of encoded.entries()) {
    // The last token is not computed further.
    const size = Math.min(tokens.length + maxNewTokens, config.maxPosition) - 1
    if (size > most)
      throw new Error(
        `${nameRow(row)}: ${tokens.length} tokens and up to ${maxNewTokens} new ones need a cache of ${size} tokens, ` +
          `${parts.device.name} holds ${most}; ask for fewer new tokens${storage === 'f32' ? ', or store it as f16' : ''}`,
      )
    largest = Math.max(largest, size)
  }
  return largest > usual ? largest : undefined
}
