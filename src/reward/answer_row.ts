// What a reward model reads of an answer that a policy has given: what a user of `score` would give it, or the policy's own tokens.
import { type Message, renderOpenChat } from '../text/chat.ts'
import type { RewardModel } from './model.ts'
import type { EncodedRow } from './rows.ts'

/** An answer of a policy. */
export interface PolicyAnswer {
  /** null: the prompt is token ids. */
  readonly messages: readonly Message[] | null
  /** Without special tokens; null where the policy has no tokenizer. */
  readonly text: string | null
  /** Whether it came to its end; one that was cut has no end of turn. */
  readonly ended: boolean
}

/**
 * The row of an answer in the reward model's own template and BOS policy. Throws where there is no text or the reward model has no
 * tokenizer, and as `encode` does.
 */
export function answerRow(model: RewardModel, { messages, text, ended }: PolicyAnswer): EncodedRow {
  const { tokenizer, bos, name } = model
  if (messages === null || text === null || tokenizer === null) {
    const what =
      tokenizer === null
        ? `${name} has no tokenizer`
        : text === null
          ? 'the policy has no tokenizer'
          : 'the prompt is token ids'
    throw new Error(`${what}; let the reward model read the policy's tokens (--reward-tokens policy)`)
  }
  const row = ended
    ? { messages: [...messages, { role: 'assistant', content: text }] }
    : { input_ids: renderOpenChat(tokenizer, messages, text, { bos }) }
  return model.encode(row, { gate: true })
}

/** The row of a prompt's and an answer's tokens as the policy has them. */
export function tokensRow(model: RewardModel, prompt: Uint32Array, answer: Uint32Array): EncodedRow {
  const ids = new Uint32Array(prompt.length + answer.length)
  ids.set(prompt)
  ids.set(answer, prompt.length)
  return model.encode({ input_ids: ids }, { gate: true })
}
