// A tokenizer.json as a pipeline: added tokens, normalizer, pre-tokenizer, model, and the way back.
//
// Written for this project, because texts must become the tokens that Hugging Face tokenizers makes of them, for every kind of part that
// is read here, and the file may come from anywhere. What has no counterpart here is refused by its name.
import { type AddedToken, addedVocabulary } from './added_tokens.ts'
import { makeDecoder } from './decoders.ts'
import { readFrame } from './frame.ts'
import { makeModel } from './models.ts'
import { makeNormalizer } from './normalizers.ts'
import { makePreTokenizer } from './pre_tokenizers.ts'
import { Settings } from './settings.ts'

/** An added token as tokenizer_config.json may say it: over the file's own, or beside them. */
export type ExtraToken = Omit<AddedToken, 'id'>

export interface Pipeline {
  /** Number of tokens, added ones included. */
  readonly size: number
  /** The id of a token, undefined where there is none. */
  idOf(token: string): number | undefined
  has(id: number): boolean
  /** Token ids of a text, nothing added before or after. */
  encode(text: string): number[]
  /** Puts around ids what the tokenizer itself adds. */
  frame(ids: readonly number[]): number[]
  decode(ids: readonly number[], skipSpecial: boolean, partial?: boolean): string
}

/** Reads an added token, of tokenizer.json or of tokenizer_config.json. */
export function readExtraToken(settings: Settings): ExtraToken {
  const special = settings.flag('special', false)
  checkLength(settings.text('content'), settings)
  return {
    content: settings.text('content'),
    singleWord: settings.flag('single_word', false),
    lstrip: settings.flag('lstrip', false),
    rstrip: settings.flag('rstrip', false),
    normalized: settings.flag('normalized', !special),
    special,
  }
}

/** A text is searched for added tokens from each of its places on. */
const TOKEN_LIMIT = 512
const ADDED_LIMIT = 100000

function checkLength(content: string, settings: Settings): void {
  if (content.length <= TOKEN_LIMIT) return
  throw new Error(`${settings.at('content')} has ${content.length} characters, at most ${TOKEN_LIMIT} are read`)
}

/** Makes the pipeline of a tokenizer.json. Throws, naming the place, on values that are not what they must be and on unknown parts. */
export function makePipeline(json: unknown, where: string, extra: readonly ExtraToken[]): Pipeline {
  const settings = new Settings(json, where)
  const model = makeModel(settings.settings('model'))
  const normalize = makeNormalizer(settings.part('normalizer'))
  const cut = makePreTokenizer(settings.part('pre_tokenizer'))
  const decoder = makeDecoder(settings.part('decoder'))
  const { before, after } = readFrame(settings.part('post_processor'))
  const added = new Map<string, AddedToken>()
  if ((settings.raw('added_tokens') ?? null) !== null) {
    for (const token of settings.list('added_tokens')) {
      const read = readExtraToken(token)
      const id = model.vocabulary.get(read.content) ?? token.id('id')
      if (read.content !== '') added.set(read.content, { ...read, id })
    }
  }
  if (added.size + extra.length > ADDED_LIMIT) {
    throw new Error(`${settings.at('added_tokens')} are ${added.size + extra.length}, at most ${ADDED_LIMIT} are read`)
  }
  let free = Math.max(
    model.vocabulary.size,
    1 + Array.from(added.values()).reduce((most, { id }) => Math.max(most, id), -1),
  )
  for (const token of extra) {
    if (token.content === '') continue
    const id = added.get(token.content)?.id ?? model.vocabulary.get(token.content) ?? free++
    added.set(token.content, { ...token, id })
  }
  const vocabulary = addedVocabulary([...added.values()], normalize)
  let known: Map<number, string> | null = null
  /** Tokens by id; made where one is asked for. */
  const texts = (): Map<number, string> => {
    if (known === null) {
      known = new Map()
      for (const [token, id] of model.vocabulary) known.set(id, token)
      for (const { id, content, normalized } of added.values()) known.set(id, normalized ? normalize(content) : content)
    }
    return known
  }
  const special = new Set<number>()
  for (const { id, special: is } of added.values()) if (is) special.add(id)
  const own = Array.from(added.keys()).filter((token) => !model.vocabulary.has(token)).length
  return {
    size: model.vocabulary.size + own,
    idOf: (token) => added.get(token)?.id ?? model.vocabulary.get(token),
    has: (id) => texts().has(id),
    encode(text) {
      const ids: number[] = []
      for (const section of vocabulary.split(text)) {
        if ('id' in section) {
          ids.push(section.id)
          continue
        }
        if (section.text === '') continue
        for (const word of cut(section.text, section.atStart)) {
          if (word === '') continue
          for (const id of model.encode(word)) ids.push(id)
        }
      }
      return ids
    },
    frame: (ids) => [...before, ...ids, ...after],
    decode(ids, skipSpecial, partial = false) {
      const kept = skipSpecial ? ids.filter((id) => !special.has(id)) : ids
      return decoder(
        kept.map((id) => texts().get(id)!),
        partial,
      ).join('')
    },
  }
}
