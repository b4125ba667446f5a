// A model directory's tokenizer: text to token ids and back, with the ids that frame a sequence and its chat template.
import { isObject, parseJsonObject, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { makePipeline, type Pipeline } from './encoding/pipeline.ts'
import { readExtraTokens, readSpecialTokens, type TokenFiles } from './special_tokens.ts'

export interface Tokenizer {
  readonly name: string
  /** Ids, null where no file names such a token. */
  readonly bos: number | null
  readonly eos: number | null
  readonly pad: number | null
  /** The texts of the special tokens by what the files call them: bos_token, eos_token, ... */
  readonly specialTokens: Readonly<Record<string, string>>
  /** The Jinja source of the chat template, or null. */
  readonly chatTemplate: string | null
  /** Number of ids, added tokens included. */
  readonly size: number
  /**
   * Text to token ids, nothing added before or after, or, with `framed`, what the tokenizer itself puts there (Llama's: BOS). Text that
   * spells a special token becomes that token, as in transformers. Throws on lone surrogates, which have no UTF-8, and where a regular
   * expression of tokenizer.json takes too long.
   */
  encode(text: string, options?: { framed?: boolean }): Uint32Array<ArrayBuffer>
  /**
   * Token ids to text; special tokens are kept unless `skipSpecial`. With `partial` the text is still growing: where tokens of single
   * bytes end amid a character, the characters before it stay, of which Python makes U+FFFD. Throws on ids that the vocabulary does not
   * have.
   */
  decode(tokens: ArrayLike<number>, options?: { skipSpecial?: boolean; partial?: boolean }): string
}

/**
 * Loads tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja, as transformers does. Gives null when
 * there is none of the first two; throws when only the second is there or one is broken.
 */
export async function loadTokenizer(files: ModelFiles): Promise<Tokenizer | null> {
  const { name } = files
  const [vocabulary, settings, tokenMap, template] = await Promise.all([
    readText(files, 'tokenizer.json'),
    readText(files, 'tokenizer_config.json'),
    readText(files, 'special_tokens_map.json'),
    readText(files, 'chat_template.jinja'),
  ])
  if (vocabulary === null) {
    if (settings === null) return null
    throw new Error(`${name}: tokenizer_config.json is there, tokenizer.json is not`)
  }
  const where = `${name}/tokenizer.json`
  const tokenFiles: TokenFiles = {
    name,
    tokenizer: parseTokenizer(vocabulary, where),
    config: settings === null ? {} : parseJsonObject(settings, `${name}/tokenizer_config.json`),
    map: tokenMap === null ? null : parseJsonObject(tokenMap, `${name}/special_tokens_map.json`),
  }
  const pipeline = makePipeline(tokenFiles.tokenizer, where, readExtraTokens(tokenFiles))
  return describe(pipeline, tokenFiles, template)
}

function parseTokenizer(text: string, where: string): Record<string, unknown> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    throw new Error(`${where}: not valid JSON`)
  }
  if (!isObject(json) || !isObject(json.model)) throw new Error(`${where}: must be an object with a "model"`)
  return json
}

function describe(pipeline: Pipeline, files: TokenFiles, template: string | null): Tokenizer {
  const { name, config } = files
  if (config.split_special_tokens === true) {
    throw new Error(`${name}/tokenizer_config.json: split_special_tokens is true, which is not supported`)
  }
  const { tokens, source } = readSpecialTokens(files)
  const id = (key: string): number | null => {
    if (tokens[key] === undefined) return null
    const found = pipeline.idOf(tokens[key])
    if (found !== undefined) return found
    if (source[key] === '') return null
    throw new Error(`${name}/${source[key]}: ${key} ${show(tokens[key])} is not in the vocabulary`)
  }
  return {
    name,
    bos: id('bos_token'),
    eos: id('eos_token'),
    pad: id('pad_token'),
    specialTokens: tokens,
    chatTemplate: template ?? defaultTemplate(config.chat_template, name),
    size: pipeline.size,
    encode(text, { framed = false } = {}) {
      if (/\p{Surrogate}/u.test(text)) throw new Error(`${name}: text has a lone surrogate: ${show(text)}`)
      const ids = pipeline.encode(text)
      return Uint32Array.from(framed ? pipeline.frame(ids) : ids)
    },
    decode(ids, { skipSpecial = false, partial = false } = {}) {
      const list = Array.from(ids)
      const unknown = list.find((one) => !pipeline.has(one))
      if (unknown !== undefined) throw new Error(`${name}: no token has the id ${unknown}`)
      return list.length === 0 ? '' : pipeline.decode(list, skipSpecial, partial)
    },
  }
}

/** A chat template is its text or a list of named ones, of which the one called "default" is meant. */
function defaultTemplate(value: unknown, name: string): string | null {
  if (value == null) return null
  if (typeof value === 'string') return value
  if (Array.isArray(value)) {
    const found: unknown = value.find((entry) => isObject(entry) && entry.name === 'default')
    if (isObject(found) && typeof found.template === 'string') return found.template
  }
  throw new Error(`${name}/tokenizer_config.json: chat_template must be a text or hold one named "default"`)
}
