// Work that may be interrupted: what is finished is given in order, and is what there is at the end.
import type { RewardModel } from '../reward/model.ts'
import { type RankedTexts, type RankOptions, rankTexts } from './best_of.ts'
import type { CausalModel, GenerateOptions } from './causal_model.ts'
import type { PromptRow } from './prompt_rows.ts'
import type { GeneratedPiece, GeneratedText } from './texts.ts'

export interface FinishedOptions extends GenerateOptions {
  /** Hears of every piece; how many texts have ended, that piece's included, and how many tokens have come. */
  readonly onPiece?: (piece: GeneratedPiece, done: number, tokens: number) => Promise<void> | void
  /** Hears of every text that has ended, in the order of rows and samples: where an interrupt came, of those that there are. */
  readonly onText?: (text: GeneratedText) => Promise<void> | void
}

/** Continues rows as `stream` does. An abort is no error: the texts that had ended by then are given, by row and sample. */
export async function finishedTexts(
  model: CausalModel,
  rows: readonly PromptRow[],
  { onPiece, onText, ...options }: FinishedOptions,
): Promise<GeneratedText[]> {
  const { samples = 1, signal } = options
  const found = new Array<GeneratedText | null>(rows.length * samples).fill(null)
  let [done, tokens, next] = [0, 0, 0]
  try {
    for await (const piece of model.stream(rows, options)) {
      if (piece.token !== null) tokens++
      if (piece.result) {
        done++
        found[piece.row * samples + piece.sample] = piece.result
      }
      await onPiece?.(piece, done, tokens)
      for (let text = found[next]; text; text = found[++next]) await onText?.(text)
    }
  } catch (error) {
    if (!signal?.aborted) throw error
  }
  const there = (text: GeneratedText | null): text is GeneratedText => text !== null
  for (const text of found.slice(next).filter(there)) await onText?.(text)
  return found.filter(there)
}

/**
 * Ranks the rows of which all `n` texts are there. An abort is no error: the rows that had been ranked by then are given. Where it came
 * before, all are ranked.
 */
export async function rankFinished(
  reward: RewardModel,
  texts: readonly GeneratedText[],
  n: number,
  options: RankOptions,
): Promise<RankedTexts[]> {
  const counts = new Map<number, number>()
  for (const { row } of texts) counts.set(row, (counts.get(row) ?? 0) + 1)
  const whole = texts.filter(({ row }) => counts.get(row) === n)
  const signal = options.signal?.aborted ? undefined : options.signal
  const ranked: RankedTexts[] = []
  const onRanked = (row: RankedTexts): void => {
    ranked.push(row)
    options.onRanked?.(row)
  }
  try {
    await rankTexts(reward, whole, { ...options, signal, onRanked })
  } catch (error) {
    if (!signal?.aborted) throw error
  }
  return ranked
}
