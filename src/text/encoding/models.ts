// The models of tokenizers that turn a word into tokens. Source: the models of Hugging Face tokenizers.
import { show } from '../../files/json.ts'
import { makeBpe } from './bpe.ts'
import { ID_RULE, isId, type Settings } from './settings.ts'
import { makeUnigram } from './unigram.ts'

export interface Model {
  readonly vocabulary: ReadonlyMap<string, number>
  /** Token ids of a word. */
  encode(word: string): readonly number[]
}

/** Reads a vocabulary: token to id, every id once. */
export function readVocabulary(settings: Settings): Map<string, number> {
  const vocabulary = new Map<string, number>()
  for (const [token, id] of settings.settings('vocab').entries()) {
    if (!isId(id))
      throw new Error(`${settings.at('vocab')}: the id of ${show(token)} must be ${ID_RULE}, got ${show(id)}`)
    vocabulary.set(token, id)
  }
  return vocabulary
}

export function makeModel(settings: Settings): Model {
  // Older files of BPE models do not say their type.
  switch (settings.raw('type') ?? (settings.raw('merges') === undefined ? undefined : 'BPE')) {
    case 'BPE':
      return makeBpe(settings, readVocabulary(settings))
    case 'WordLevel':
      return makeWordLevel(settings)
    case 'WordPiece':
      return makeWordPiece(settings)
    case 'Unigram':
      return makeUnigram(settings)
  }
  return settings.refuse('model')
}

/** The id of the token for what is unknown. */
function unknownId(settings: Settings, vocabulary: ReadonlyMap<string, number>): number {
  const id = vocabulary.get(settings.text('unk_token'))
  return id ?? settings.fail('unk_token', 'a token of the vocabulary')
}

function makeWordLevel(settings: Settings): Model {
  const vocabulary = readVocabulary(settings)
  const unknown = vocabulary.get(settings.text('unk_token'))
  return {
    vocabulary,
    encode(word) {
      const id = vocabulary.get(word) ?? unknown
      if (id === undefined) settings.fail('unk_token', `a token of the vocabulary, for the word ${show(word)}`)
      return [id]
    },
  }
}

function makeWordPiece(settings: Settings): Model {
  const vocabulary = readVocabulary(settings)
  const unknown = unknownId(settings, vocabulary)
  const prefix = settings.text('continuing_subword_prefix', '##')
  const longest = settings.count('max_input_chars_per_word', 100)
  return {
    vocabulary,
    encode(word) {
      const characters = Array.from(word)
      if (characters.length > longest) return [unknown]
      const ids: number[] = []
      for (let begin = 0; begin < characters.length; ) {
        let end = characters.length
        let id: number | undefined
        for (; end > begin; end--) {
          id = vocabulary.get((begin > 0 ? prefix : '') + characters.slice(begin, end).join(''))
          if (id !== undefined) break
        }
        if (id === undefined) return [unknown]
        ids.push(id)
        begin = end
      }
      return ids
    },
  }
}
