// What a tokenizer puts around a text. Source: the post-processors of Hugging Face tokenizers.
import { show } from '../../files/json.ts'
import { ID_RULE, isId, type Settings } from './settings.ts'

export interface Frame {
  readonly before: readonly number[]
  readonly after: readonly number[]
}

const NONE: Frame = { before: [], after: [] }

export function readFrame(settings: Settings | null): Frame {
  if (settings === null) return NONE
  switch (settings.raw('type')) {
    case 'ByteLevel':
      return NONE
    case 'Sequence': {
      // Each frames what the one before it has framed.
      const frames = settings.list('processors').map(readFrame)
      return {
        before: frames.toReversed().flatMap(({ before }) => before),
        after: frames.flatMap(({ after }) => after),
      }
    }
    case 'TemplateProcessing':
      return templateFrame(settings)
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [pairId(settings, 'cls')], after: [pairId(settings, 'sep')] }
  }
  return settings.refuse('post-processor')
}

/** A pair of a token and its id. */
function pairId(settings: Settings, key: string): number {
  const pair = settings.raw(key)
  return Array.isArray(pair) && isId(pair[1]) ? pair[1] : settings.fail(key, 'a token and its id')
}

function templateFrame(settings: Settings): Frame {
  const special = settings.part('special_tokens')
  const [before, after]: number[][] = [[], []]
  let texts = 0
  for (const piece of settings.list('single')) {
    if (piece.raw('Sequence') !== undefined) {
      texts++
      continue
    }
    const name = piece.settings('SpecialToken').text('id')
    const token = special?.part(name) ?? null
    if (token === null)
      throw new Error(`${piece.where} has the token ${show(name)}, which special_tokens does not explain`)
    const ids = token.raw('ids')
    if (!Array.isArray(ids) || !ids.every(isId)) token.fail('ids', `a list of ids, each ${ID_RULE}`)
    ;(texts === 0 ? before : after).push(...(ids as number[]))
  }
  if (texts !== 1) settings.fail('single', 'a template with the text in it once')
  return { before, after }
}
