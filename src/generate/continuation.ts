// What generation takes and gives: prompts, settings and continuations.

/** A prompt, and how many continuations of it are asked for. */
export interface Prompt {
  /** Token ids, whatever frames them included; at least one. */
  readonly tokens: Uint32Array
  /** Continuations that are asked for; at least 1. */
  readonly samples: number
  /** Names the prompt in random draws, 32 bits: token t of sample s depends on (seed, key, s, t) alone, whatever is computed beside it. */
  readonly key: number
}

/** How a token is drawn. Order: repetition penalty, temperature, top-k, top-p of the renormalised rest, min-p (as in transformers). */
export interface SamplingSettings {
  /** Divides the logits; 0 takes the most probable token, the first of equals. */
  readonly temperature: number
  /** Most probable tokens that may be drawn; 0: all. */
  readonly topK: number
  /** Smallest set of most probable tokens whose probability reaches this; 1: all. */
  readonly topP: number
  /** Tokens below this share of the largest probability are not drawn; 0: all are. */
  readonly minP: number
  /** Divides positive logits, multiplies negative ones, of tokens that prompt or continuation have; 1: none. */
  readonly repetitionPenalty: number
  readonly seed: number
}

export interface GenerationSettings extends SamplingSettings {
  readonly maxNewTokens: number
  /** No stop token is drawn before so many tokens. */
  readonly minNewTokens: number
  /** A continuation ends with the first of these. */
  readonly stopTokens: readonly number[]
  /** A continuation ends where its text has one of these; they are not part of the text. Needs a tokenizer. */
  readonly stopStrings: readonly string[]
}

export const GENERATION_DEFAULTS: GenerationSettings = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 0,
  maxNewTokens: 512,
  minNewTokens: 0,
  stopTokens: [],
  stopStrings: [],
}

/** Why a continuation ended: a stop token or string, or its length, which is that of the model where it is shorter. */
export type FinishReason = 'stop' | 'length'

/** A continuation of a prompt. */
export interface Continuation {
  /** Index of the prompt among those that were given. */
  readonly prompt: number
  /** From 0. */
  readonly sample: number
  /** The stop token that ended it included. */
  readonly tokens: Uint32Array
  /** Log-probability of each token: of the penalised and scaled distribution before truncation; where greedy, of the unscaled one. */
  readonly logprobs: Float32Array
  readonly finishReason: FinishReason
}

/** A row of logits where the next token is to be chosen. */
export interface Choice {
  /** Indices as in `Continuation`. */
  readonly prompt: number
  readonly sample: number
  /** Tokens of the continuation so far; the same array every time, good during the call. */
  readonly tokens: readonly number[]
  /** [V], good during the call, in which it may be changed. */
  readonly logits: Float32Array
}

/** What has been chosen. */
export interface Chosen {
  readonly token: number
  readonly logprob: number
  /** Whether the continuation ends with it, and why. */
  readonly finish: FinishReason | null
}

/** Chooses the next token of a row. Must depend on its argument alone, not on the rows beside it. */
export type Choose = (choice: Choice) => Chosen

/** A token of a continuation, as soon as it has been chosen. */
export interface StreamedToken extends Chosen {
  /** Indices as in `Continuation`. */
  readonly prompt: number
  readonly sample: number
  /** Its place in the continuation, from 0. */
  readonly index: number
  /** Also 'length' where the continuation may not become longer. */
  readonly finish: FinishReason | null
}
