// How far long work has come, in words: how much is done, how fast, and how long the rest takes.
import type { Progress } from '../reward/features.ts'
import { duration } from './draw.ts'

/** ", 3 min left" where `done` of `total` took so many seconds; nothing where nothing is done yet. */
export function timeLeft(done: number, total: number, seconds: number): string {
  const rate = done / seconds
  return rate > 0 ? `, ${duration((total - done) / rate)} left` : ''
}

/** Things called `unit` of which some are done, with the rate of the `work` in them. */
export function countText(
  [done, total, unit]: readonly [done: number, total: number, unit: string],
  [work, totalWork, workUnit]: readonly [work: number, totalWork: number, workUnit: string],
  seconds: number,
): string {
  const rate = Number((work / seconds).toPrecision(3))
  return `${done} of ${total} ${unit}, ${rate} ${workUnit} a second${timeLeft(work, totalWork, seconds)}`
}

/** Rows as a model reports them; `before` were there when the work began. */
export function rowsText(
  { done, rows, tokens, totalTokens }: Progress,
  before: Pick<Progress, 'done' | 'tokens'>,
  seconds: number,
): string {
  const rate = (tokens - before.tokens) / seconds
  const [some, many] = [(done - before.done) / seconds, rate].map((value) => Number(value.toPrecision(3)))
  const left = timeLeft(tokens - before.tokens, totalTokens - before.tokens, seconds)
  return `${done} of ${rows} rows, ${some} rows and ${many} tokens a second${left}`
}
