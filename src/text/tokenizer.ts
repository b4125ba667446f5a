// A model directory's tokenizer: text to token ids and back, with the ids that frame a sequence and its chat template.
import { Tokenizer as Engine } from '@huggingface/tokenizers'
import { isObject, parseJsonObject, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'

export interface Tokenizer {
  readonly name: string
  /** Ids, null where tokenizer_config.json names no such token. */
  readonly bos: number | null
  readonly eos: number | null
  readonly pad: number | null
  /** The texts of the special tokens that tokenizer_config.json names: bos_token, eos_token, ... */
  readonly specialTokens: Readonly<Record<string, string>>
  /** The Jinja source of the chat template, or null. */
  readonly chatTemplate: string | null
  /** Number of ids, added tokens included. */
  readonly size: number
  /**
   * Text to token ids, nothing added before or after, or, with `framed`, what the tokenizer itself puts there (Llama's: BOS). Text that
   * spells a special token becomes that token, as in transformers. Throws on lone surrogates, which have no UTF-8.
   */
  encode(text: string, options?: { framed?: boolean }): Uint32Array<ArrayBuffer>
  /** Token ids to text; special tokens are kept unless `skipSpecial`. Throws on ids that the vocabulary does not have. */
  decode(tokens: ArrayLike<number>, options?: { skipSpecial?: boolean }): string
}

const SPECIAL = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

/**
 * Loads tokenizer.json and tokenizer_config.json (and chat_template.jinja, where transformers put the template there).
 * Gives null when the directory has neither; throws when only the second is there or one is broken.
 */
export async function loadTokenizer(files: ModelFiles): Promise<Tokenizer | null> {
  const [vocabulary, settings, template] = await Promise.all([
    readText(files, 'tokenizer.json'),
    readText(files, 'tokenizer_config.json'),
    readText(files, 'chat_template.jinja'),
  ])
  if (vocabulary === null) {
    if (settings === null) return null
    throw new Error(`${files.name}: tokenizer_config.json is there, tokenizer.json is not`)
  }
  const config = settings === null ? {} : parseJsonObject(settings, `${files.name}/tokenizer_config.json`)
  const engine = makeEngine(vocabulary, config, `${files.name}/tokenizer.json`)
  return describe(engine, config, template, files.name)
}

function makeEngine(vocabulary: string, config: Record<string, unknown>, where: string): Engine {
  let json: unknown
  try {
    json = JSON.parse(vocabulary)
  } catch {
    throw new Error(`${where}: not valid JSON`)
  }
  if (!isObject(json) || !isObject(json.model)) throw new Error(`${where}: must be an object with a "model"`)
  try {
    return new Engine(json, config)
  } catch (error) {
    throw new Error(`${where}: cannot be used (${show((error as Error).message)})`)
  }
}

function describe(engine: Engine, config: Record<string, unknown>, template: string | null, name: string): Tokenizer {
  const specialTokens: Record<string, string> = {}
  for (const key of SPECIAL) {
    const token = tokenText(config[key], `${name}/tokenizer_config.json: ${key}`)
    if (token !== null) specialTokens[key] = token
  }
  const id = (key: string): number | null => {
    if (!(key in specialTokens)) return null
    const found = engine.token_to_id(specialTokens[key])
    if (found !== undefined) return found
    throw new Error(`${name}/tokenizer_config.json: ${key} ${show(specialTokens[key])} is not in the vocabulary`)
  }
  return {
    name,
    bos: id('bos_token'),
    eos: id('eos_token'),
    pad: id('pad_token'),
    specialTokens,
    chatTemplate: template ?? defaultTemplate(config.chat_template, name),
    size: engine.get_vocab(true).size,
    encode(text, { framed = false } = {}) {
      if (/\p{Surrogate}/u.test(text)) throw new Error(`${name}: text has a lone surrogate: ${show(text)}`)
      return Uint32Array.from(engine.encode(text, { add_special_tokens: framed }).ids)
    },
    decode(tokens, { skipSpecial = false } = {}) {
      const ids = Array.from(tokens)
      if (ids.length === 0) return ''
      for (const token of ids) {
        if (engine.id_to_token(token) === undefined) throw new Error(`${name}: no token has the id ${token}`)
      }
      return engine.decode(ids, { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false })
    },
  }
}

/** A special token is its text or, in older files, an object with its text as `content`. */
function tokenText(value: unknown, where: string): string | null {
  if (value == null) return null
  const text = isObject(value) ? value.content : value
  if (typeof text !== 'string') throw new Error(`${where} must be a text, got ${show(value)}`)
  return text
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
