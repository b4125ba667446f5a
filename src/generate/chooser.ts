// What ends a continuation and how its tokens are drawn: settings to the function that a decoder asks for each token.
import { show } from '../files/json.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { Choice, Choose, Chosen, Continuation, GenerationSettings, Prompt } from './continuation.ts'
import { Sampler, unitDraw } from './sampling.ts'
import { openTextStream, type TextStream } from './text_stream.ts'

const COUNT = 2 ** 31
const NONE: readonly number[] = []

/** Throws on settings that no draw is defined for, with the name of the first. */
export function checkGeneration(settings: GenerationSettings): void {
  const { temperature, topK, topP, minP, repetitionPenalty, seed, maxNewTokens, minNewTokens } = settings
  const must = (fits: boolean, name: string, range: string, value: unknown): void => {
    if (!fits) throw new Error(`generate: ${name} must be ${range}, got ${show(value)}`)
  }
  const whole = (value: number, least: number): boolean =>
    Number.isSafeInteger(value) && value >= least && value < COUNT
  must(temperature >= 0 && temperature < Infinity, 'temperature', 'a number of at least 0', temperature)
  must(whole(topK, 0), 'topK', 'a whole number of at least 0 (0: all tokens)', topK)
  must(topP > 0 && topP <= 1, 'topP', 'above 0 and at most 1', topP)
  must(minP >= 0 && minP <= 1, 'minP', 'from 0 to 1', minP)
  must(repetitionPenalty > 0 && repetitionPenalty < Infinity, 'repetitionPenalty', 'above 0', repetitionPenalty)
  must(Number.isSafeInteger(seed) && seed >= 0 && seed < 2 ** 32, 'seed', 'a whole number from 0 to 2^32 - 1', seed)
  must(whole(maxNewTokens, 1), 'maxNewTokens', 'a whole number of at least 1', maxNewTokens)
  must(whole(minNewTokens, 0), 'minNewTokens', 'a whole number of at least 0', minNewTokens)
  must(minNewTokens <= maxNewTokens, 'minNewTokens', `at most maxNewTokens (${maxNewTokens})`, minNewTokens)
  for (const token of settings.stopTokens) must(whole(token, 0), 'a stop token', 'a token id', token)
  for (const stop of settings.stopStrings) {
    must(stop !== '' && !/\p{Surrogate}/u.test(stop), 'a stop string', 'a text of at least one character', stop)
  }
}

/** Settings with stop tokens in the place of stop strings that are one special token each, such as `<|im_end|>`. */
export function resolveStops(settings: GenerationSettings, tokenizer: Tokenizer | null): GenerationSettings {
  const { stopStrings } = settings
  if (stopStrings.length === 0) return settings
  if (tokenizer === null) {
    throw new Error(`generate: stop strings need a tokenizer, and the model has none; give stop tokens`)
  }
  const stopTokens = [...settings.stopTokens]
  const texts = stopStrings.filter((stop) => {
    const tokens = tokenizer.encode(stop)
    if (tokens.length !== 1 || tokenizer.decode(tokens, { skipSpecial: true }) !== '') return true
    stopTokens.push(tokens[0])
    return false
  })
  return { ...settings, stopTokens, stopStrings: texts }
}

/**
 * Makes the function that draws every token of the prompts' continuations and says where one ends by a stop token or string; whoever
 * calls it ends them by their length. What it gives depends on seed, key, sample and the tokens before, not on what is drawn beside it
 * or in which order. Throws where `checkGeneration` does, and on stop strings without a tokenizer.
 */
export function chooser(
  settings: GenerationSettings,
  prompts: readonly Prompt[],
  tokenizer?: Tokenizer | null,
): Choose {
  checkGeneration(settings)
  const { stopTokens, stopStrings, minNewTokens, seed } = resolveStops(settings, tokenizer ?? null)
  const stops = new Set(stopTokens)
  const banned = [...stops]
  const texts = new Map<string, { readonly stream: TextStream; tokens: number }>()
  let sampler: Sampler | null = null

  /** Whether a stop string is complete with this token. */
  const endsText = ({ prompt, sample, tokens }: Choice, token: number): boolean => {
    const name = `${prompt} ${sample}`
    let text = texts.get(name)
    if (text?.tokens !== tokens.length) {
      text = { stream: openTextStream(tokenizer!, stopStrings), tokens: 0 }
      for (; text.tokens < tokens.length; text.tokens++) {
        text.stream.push(tokens[text.tokens], text.tokens >= minNewTokens)
      }
      texts.set(name, text)
    }
    const { stopped } = text.stream.push(token, text.tokens++ >= minNewTokens)
    if (stopped) texts.delete(name)
    return stopped
  }

  return (choice): Chosen => {
    const { prompt, sample, tokens, logits } = choice
    const own = prompts[prompt]
    sampler ??= new Sampler(settings, logits.length)
    const drawn = sampler.draw(logits, {
      seen: [own.tokens, tokens],
      banned: tokens.length < minNewTokens ? banned : NONE,
      unit: unitDraw(seed, own.key, sample, tokens.length),
    })
    const finished = stops.has(drawn.token) || (stopStrings.length > 0 && endsText(choice, drawn.token))
    if (finished) texts.delete(`${prompt} ${sample}`)
    return { ...drawn, finish: finished ? 'stop' : null }
  }
}

/** The text of a continuation: no special tokens, nothing of the stop token or stop string that ended it. */
export function continuationText(
  { tokens }: Pick<Continuation, 'tokens'>,
  settings: GenerationSettings,
  tokenizer: Tokenizer,
): string {
  const writer = openWriter(settings, tokenizer)
  let text = ''
  for (const token of tokens) text += writer.push(token)
  return text + writer.end()
}

/** Writes one continuation as text while it grows. */
export interface Writer {
  /** Adds a token and gives the text that is certain now. */
  push(token: number): string
  /** The rest. */
  end(): string
}

/** Starts the text of a continuation; see `continuationText`. */
export function openWriter(settings: GenerationSettings, tokenizer: Tokenizer): Writer {
  const { stopTokens, stopStrings, minNewTokens } = resolveStops(settings, tokenizer)
  const stops = new Set(stopTokens)
  const stream = openTextStream(tokenizer, stopStrings)
  let count = 0
  let stopped = false
  return {
    push(token) {
      // A token before the smallest number is never a stop; after one that is, nothing comes.
      const stop = count >= minNewTokens
      count++
      if (stopped || (stop && stops.has(token))) return ''
      const piece = stream.push(token, stop)
      stopped = piece.stopped
      return piece.text
    },
    end: () => stream.end(),
  }
}
