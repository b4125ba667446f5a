// Padding in rows of tokens: what it is, and what is left of a row without it.
//
// Source: LlamaForSequenceClassification of transformers 5.24, which reads the state at the last token that is not
// `pad_token_id`, whatever the attention mask; and the mask of 0 that its tokenizers give padding.
import type { LlamaConfig } from '../llama/config.ts'
import type { Tokenizer } from '../text/tokenizer.ts'

export interface Padding {
  readonly id: number
  /** Whether the model never reads its result there, as config.json says; otherwise the tokenizer alone has this token. */
  readonly pools: boolean
  /** Whether it is nothing but padding. Where it is not, as where `<|eot_id|>` pads, it is text but at the ends of a row. */
  readonly dedicated: boolean
  /** Whether text may begin with it. */
  readonly begins: boolean
}

/** The padding of a model, null where it has none. A token that ends texts and is the tokenizer's padding alone is text. */
export function paddingOf(
  { pad, bos, eos }: Pick<LlamaConfig, 'pad' | 'bos' | 'eos'>,
  tokenizer: Tokenizer | null,
  gatePattern: readonly number[],
): Padding | null {
  const id = pad ?? tokenizer?.pad ?? null
  if (id === null) return null
  const begins = id === bos || id === tokenizer?.bos
  const inTemplate = (): boolean => {
    const { chatTemplate, pad: own, specialTokens } = tokenizer ?? {}
    return own === id && !!chatTemplate && chatTemplate.includes(specialTokens!.pad_token)
  }
  const dedicated = !begins && !eos.includes(id) && id !== tokenizer?.eos && !gatePattern.includes(id) && !inTemplate()
  return pad === null && !dedicated ? null : { id, pools: pad !== null, dedicated, begins }
}

/** The end of a row without the padding behind it. Throws where the row is nothing else. */
export function pooledLength(tokens: ArrayLike<number>, padding: Padding | null | undefined): number {
  let length = tokens.length
  if (!padding?.pools) return length
  while (length > 0 && tokens[length - 1] === padding.id) length--
  if (length === 0 && tokens.length > 0) {
    throw new Error(`the row is nothing but padding (token ${padding.id}); give at least one token of text`)
  }
  return length
}

/**
 * The places of a row of given tokens that are no padding, or null where all are: as under an attention mask of 0 at the padding, with
 * positions that count what is left. Padding that is also text counts as such between tokens; before the first, it is padding unless
 * text may begin with it, and then only one is.
 */
export function textPlaces(tokens: ArrayLike<number>, padding: Padding | null | undefined): number[] | null {
  if (!padding) return null
  const { id, dedicated, begins } = padding
  let [first, end] = [0, tokens.length]
  while (end > 0 && tokens[end - 1] === id) end--
  while (first < end && tokens[first] === id) first++
  if (end === 0) throw new Error(`input_ids is nothing but padding (token ${id}); give at least one token of text`)
  if (begins) {
    if (first > 1) {
      throw new Error(
        `input_ids begins with ${first} tokens ${id}, which is BOS and padding both; leave out what is padding`,
      )
    }
    first = 0
  }
  const places: number[] = []
  for (let i = first; i < end; i++) if (!dedicated || tokens[i] !== id) places.push(i)
  return places.length === tokens.length ? null : places
}
