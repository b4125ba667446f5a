// Tables of an evaluation.
import type { PairedDifference } from '../evaluate/intervals.ts'
import type { Accuracy } from '../evaluate/pairs.ts'
import type { RewardBench } from '../evaluate/reward_bench.ts'
import { table } from './draw.ts'

/** A share with four digits. */
export const four = (value: number): string => value.toFixed(4)

const range = ([low, high]: readonly [number, number]): string => `${four(low)} - ${four(high)}`

/** What the accuracy of a section or of all of them rests on. */
export interface Basis {
  readonly interval: readonly [number, number]
  readonly rows: number
}

/** Sections and score of RewardBench; by section, and for the score, intervals and rows where they are known. */
export function sectionTable(
  { sections, priorSets, score }: RewardBench,
  known: {
    readonly sections: Readonly<Record<string, Basis>>
    readonly prior: Basis
    readonly score: Basis | null
  } | null,
): string {
  const line = (name: string, value: number, basis: Basis | null = null) => [
    name,
    four(value),
    ...(basis ? [range(basis.interval), String(basis.rows)] : []),
  ]
  const lines = Object.entries(sections).map(([name, value]) => line(name, value, known?.sections[name]))
  if (priorSets !== undefined) lines.push(line('Prior Sets (half)', priorSets, known?.prior))
  lines.push(line('score', score, known?.score))
  return `${table([['section', 'accuracy', ...(known ? ['95 %', 'rows'] : [])], ...lines], [1, 2, 3])}\n`
}

/** A line for each subset, and one for all. */
export function accuracyTable(subsets: Readonly<Record<string, Accuracy>>, all: Accuracy): string {
  const line = (name: string, { accuracy, interval, rows, ties }: Accuracy) => [
    name,
    four(accuracy),
    range(interval),
    String(rows),
    String(ties),
  ]
  const lines = [...Object.entries(subsets).map(([name, own]) => line(name, own)), line('all', all)]
  return `${table([['subset', 'accuracy', '95 %', 'rows', 'ties'], ...lines], [1, 2, 3, 4])}\n`
}

/** What a comparison of two models came to. */
export function comparisonLine(
  other: string,
  { difference, interval, p, mcnemar, firstOnly, secondOnly }: PairedDifference,
): string {
  const sign = difference < 0 ? '' : '+'
  return (
    `${sign}${four(difference)} against ${other}, 95 % ${range(interval)} (paired bootstrap, p ${p.toPrecision(2)}); ` +
    `only this right: ${firstOnly}, only the other: ${secondOnly} (McNemar p ${mcnemar.toPrecision(2)})\n`
  )
}
