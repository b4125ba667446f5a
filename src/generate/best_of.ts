// Decoding that is guided by a reward distribution: of several texts for each prompt, the best by a ranking.
//
// Source: best-of-n sampling with the risk measures of QRM, section 3.5, as rankings.
import type { RewardModel, Score } from '../reward/model.ts'
import { type EncodedRow, encodeNamed } from '../reward/rows.ts'
import { pointScore, type ScoreKind } from '../reward/scoring.ts'
import { type Message, renderOpenChat } from '../text/chat.ts'
import type { GeneratedText } from './texts.ts'

/** Texts of which whole rows are scored together. */
const TEXTS_AT_ONCE = 64

/** What the reward model reads: prompt and text in its own template, or the tokens as the policy has them. */
export type RewardTokens = 'own' | 'policy'

export interface RankOptions {
  /** Which number of the distribution ranks; default the expectation. */
  readonly rank?: ScoreKind
  /** Of utility and certainty equivalent; default the reward model's. */
  readonly lambda?: number
  readonly rewardTokens?: RewardTokens
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: { readonly done: number; readonly texts: number }) => void
  /** Hears of every row when it has been ranked. */
  readonly onRanked?: (row: RankedTexts) => void
  /** What errors call a row, counted from 0; `row 1` is the first by default. */
  readonly nameRow?: (row: number) => string
}

/** The texts of one row, scored. */
export interface RankedTexts {
  readonly row: number
  /** As they were given. */
  readonly texts: readonly GeneratedText[]
  /** Of each text. */
  readonly scores: readonly Score[]
  /** What ranks [n], larger is better. */
  readonly points: readonly number[]
  /** Index of the best, the first of equals. */
  readonly chosen: number
  /** Index of the best by expectation. */
  readonly expected: number
}

/**
 * Scores the texts of each row and ranks them; rows come in the order in which they are first met. Beginnings that texts of a row share
 * are computed once. The reward model reads what a user of `score` would give it: the conversation with the text as its answer; one
 * that was ended by its length has no end of turn. Throws `row N, sample S: ...` on a text that it cannot read, before any of its row
 * is scored, and where a ranking says nothing.
 */
export async function rankTexts(
  reward: RewardModel,
  texts: readonly GeneratedText[],
  options: RankOptions = {},
): Promise<RankedTexts[]> {
  const { rank = { kind: 'expectation' }, lambda = reward.lambda, rewardTokens = 'own', signal } = options
  const { nameRow = (row: number) => `row ${row + 1}`, onProgress, onRanked } = options
  if (rank.kind === 'utility' && lambda === 0)
    throw new Error('rank: the utility of lambda 0 is -1 for every text; give a lambda above 0')
  const groups = new Map<number, GeneratedText[]>()
  for (const text of texts) {
    const group = groups.get(text.row)
    if (group) group.push(text)
    else groups.set(text.row, [text])
  }
  const rows = [...groups.values()]
  const ranked: RankedTexts[] = []
  let done = 0
  for (let from = 0; from < rows.length; ) {
    let to = from
    let count = 0
    while (to < rows.length && count < TEXTS_AT_ONCE) count += rows[to++].length
    const own = rows.slice(from, to)
    const flat = own.flat()
    const encoded = encodeNamed(
      flat,
      (text) => rewardRow(reward, text, rewardTokens),
      (i) => `${nameRow(flat[i].row)}, sample ${flat[i].sample}`,
    )
    const scores = await reward.score(encoded, { lambda, signal })
    let at = 0
    for (const row of own) {
      const found = scores.slice(at, at + row.length)
      at += row.length
      const points = found.map((score) => pointScore(rank, score, reward.levels, lambda))
      const expected = firstLargest(found.map(({ score }) => score))
      ranked.push({ row: row[0].row, texts: row, scores: found, points, chosen: firstLargest(points), expected })
      onRanked?.(ranked.at(-1)!)
    }
    done += flat.length
    onProgress?.({ done, texts: texts.length })
    from = to
  }
  return ranked
}

function firstLargest(values: readonly number[]): number {
  return values.indexOf(Math.max(...values))
}

/** What the reward model reads of a text. */
function rewardRow(reward: RewardModel, own: GeneratedText, tokens: RewardTokens): EncodedRow {
  const { prompt, promptTokens, text, finishReason } = own
  if (tokens === 'policy') {
    const all = new Uint32Array(promptTokens.length + own.tokens.length)
    all.set(promptTokens)
    all.set(own.tokens, promptTokens.length)
    return reward.encode({ input_ids: all }, { gate: true })
  }
  const { tokenizer, bos } = reward
  const messages = conversation(prompt)
  if (messages === null || text === null || tokenizer === null) {
    const what =
      tokenizer === null
        ? `${reward.name} has no tokenizer`
        : text === null
          ? 'the text is tokens, the model has no tokenizer'
          : 'the prompt is token ids'
    throw new Error(`${what}; let the reward model read the policy's tokens (--reward-tokens policy)`)
  }
  if (finishReason === 'stop')
    return reward.encode({ messages: [...messages, { role: 'assistant', content: text }] }, { gate: true })
  return reward.encode({ input_ids: renderOpenChat(tokenizer, messages, text, { bos }) }, { gate: true })
}

/** The turns of a prompt; null where it is token ids. */
function conversation(prompt: GeneratedText['prompt']): readonly Message[] | null {
  if (typeof prompt === 'string') return [{ role: 'user', content: prompt }]
  return typeof prompt[0] === 'number' ? null : (prompt as readonly Message[])
}
