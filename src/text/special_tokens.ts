// Which tokens begin, end and pad a text: what transformers takes of tokenizer_config.json, special_tokens_map.json and tokenizer.json.
//
// Source: PreTrainedTokenizerBase._from_pretrained of transformers 5.24. A tokenizer_config.json with `added_tokens_decoder` says
// all; beside an older one special_tokens_map.json counts, and counts more. A padding set in tokenizer.json names a padding token
// where nothing else does.
import { isObject, show } from '../files/json.ts'
import { type ExtraToken, readExtraToken } from './encoding/pipeline.ts'
import { Settings } from './encoding/settings.ts'

/** The texts of special tokens by what they are: bos_token, eos_token, ... */
export type SpecialTokens = Readonly<Record<string, string>>

export interface TokenFiles {
  readonly name: string
  /** The object of tokenizer.json. */
  readonly tokenizer: Readonly<Record<string, unknown>>
  /** The object of tokenizer_config.json; empty where there is none. */
  readonly config: Readonly<Record<string, unknown>>
  /** The object of special_tokens_map.json, or null. */
  readonly map: Readonly<Record<string, unknown>> | null
}

/** Files name these where they have nothing to say about them. */
const LLAMA_DEFAULTS: SpecialTokens = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' }

/** Reads the special tokens; where each was found is told for errors. */
export function readSpecialTokens({ name, tokenizer, config, map }: TokenFiles): {
  readonly tokens: SpecialTokens
  /** The file that named a token. */
  readonly source: SpecialTokens
} {
  const tokens: Record<string, string> = {}
  const source: Record<string, string> = {}
  const put = (key: string, text: string | null, file: string): void => {
    delete tokens[key]
    if (text === null) return
    tokens[key] = text
    source[key] = file
  }
  const read = (values: Readonly<Record<string, unknown>>, file: string): void => {
    for (const [key, value] of Object.entries(values)) {
      if (/^\w+_token$/.test(key) && typeof value !== 'boolean')
        put(key, tokenText(value, `${name}/${file}: ${key}`), file)
    }
  }
  read(config, 'tokenizer_config.json')
  if (map !== null && !isObject(config.added_tokens_decoder)) read(map, 'special_tokens_map.json')
  const { padding } = tokenizer
  if (tokens.pad_token === undefined && isObject(padding) && padding.pad_token !== undefined) {
    put('pad_token', tokenText(padding.pad_token, `${name}/tokenizer.json: padding.pad_token`), 'tokenizer.json')
  }
  if (/^LlamaTokenizer(Fast)?$/.test(String(config.tokenizer_class))) {
    for (const [key, text] of Object.entries(LLAMA_DEFAULTS)) {
      if (!(key in config) && tokens[key] === undefined) put(key, text, '')
    }
  }
  return { tokens, source }
}

/** A special token is its text or an object with its text as `content`. */
function tokenText(value: unknown, where: string): string | null {
  if (value == null) return null
  const text = isObject(value) ? value.content : value
  if (typeof text !== 'string') throw new Error(`${where} must be a text, got ${show(value)}`)
  return text
}

/** The added tokens of tokenizer_config.json in the order of their ids: they stand over those of tokenizer.json. */
export function readExtraTokens({ name, config }: TokenFiles): ExtraToken[] {
  const all = config.added_tokens_decoder
  if (!isObject(all)) return []
  const where = `${name}/tokenizer_config.json: added_tokens_decoder`
  const entries = Object.entries(all).map(([id, token]) => {
    if (!/^\d{1,10}$/.test(id)) throw new Error(`${where} must name tokens by id, got ${show(id)}`)
    return [Number(id), readExtraToken(new Settings(token, `${where}.${id}`))] as const
  })
  return entries.sort(([a], [b]) => a - b).map(([, token]) => token)
}
