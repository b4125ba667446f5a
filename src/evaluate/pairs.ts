// Accuracy on pairs: the share whose chosen response scores higher. A tie is no win; it is counted.
import { wilson } from './intervals.ts'

export interface Accuracy {
  readonly accuracy: number
  /** Wilson's 95 % interval. */
  readonly interval: [number, number]
  readonly rows: number
  readonly ties: number
}

export interface PairAccuracy extends Accuracy {
  /** By subset, in the order of their first rows; empty where rows have none. */
  readonly subsets: Record<string, Accuracy>
}

/** Accuracy from the scores of both sides [N] and the subset of each pair, or null. Throws on NaN, and without pairs. */
export function pairAccuracy(
  chosen: ArrayLike<number>,
  rejected: ArrayLike<number>,
  subsets: readonly string[] | null = null,
): PairAccuracy {
  if (chosen.length === 0 || chosen.length !== rejected.length) {
    throw new Error(
      `pairAccuracy: both sides must have a score for the same pairs, got ${chosen.length} and ${rejected.length}`,
    )
  }
  const all = { wins: 0, rows: 0, ties: 0 }
  const own = new Map<string, typeof all>()
  for (let i = 0; i < chosen.length; i++) {
    if (Number.isNaN(chosen[i]) || Number.isNaN(rejected[i])) {
      throw new Error(`pairAccuracy: scores must be numbers, pair ${i + 1} has ${chosen[i]} and ${rejected[i]}`)
    }
    const name = subsets?.[i]
    const counts = [all]
    if (name !== undefined) {
      if (!own.has(name)) own.set(name, { wins: 0, rows: 0, ties: 0 })
      counts.push(own.get(name)!)
    }
    for (const count of counts) {
      count.rows++
      if (chosen[i] > rejected[i]) count.wins++
      if (chosen[i] === rejected[i]) count.ties++
    }
  }
  const summary = ({ wins, rows, ties }: typeof all): Accuracy => ({
    accuracy: wins / rows,
    interval: wilson(wins, rows),
    rows,
    ties,
  })
  return { ...summary(all), subsets: Object.fromEntries([...own].map(([name, count]) => [name, summary(count)])) }
}

/** 1 for each pair that is won, else 0 [N]: what `pairedBootstrap` takes. */
export function pairCredits(chosen: ArrayLike<number>, rejected: ArrayLike<number>): Float64Array {
  return Float64Array.from(chosen as ArrayLike<number>, (score, i) => (score > rejected[i] ? 1 : 0))
}

/** Wilson's interval of a weighted mean of accuracies, with the rows of an unweighted one as certain (Kish 1965). */
export function weightedInterval(
  parts: readonly { readonly accuracy: number; readonly rows: number; readonly weight: number }[],
): [number, number] {
  const total = parts.reduce((sum, { weight }) => sum + weight, 0)
  if (total === 0) return [0, 1]
  const mean = parts.reduce((sum, { accuracy, weight }) => sum + accuracy * weight, 0) / total
  const rows = total ** 2 / parts.reduce((sum, { weight, rows }) => sum + weight ** 2 / rows, 0)
  return wilson(Math.min(mean * rows, rows), rows)
}
