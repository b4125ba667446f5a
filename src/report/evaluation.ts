// Tables of an evaluation: sections, subsets and domains, two models compared, calibration of attributes.
import type { PairedDifference } from '../evaluate/intervals.ts'
import type { Basis, QuestionsResult } from '../evaluate/pair_results.ts'
import type { Accuracy } from '../evaluate/pairs.ts'
import type { CalibrationEvaluation } from '../evaluate/rated_quantiles.ts'
import type { RewardBench } from '../evaluate/reward_bench.ts'
import { figure, four, optional, table } from './draw.ts'

const range = ([low, high]: readonly [number, number]): string => `${four(low)} - ${four(high)}`

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

/** A line for each domain of RewardBench 2, and one for the score. */
export function questionTable({ subsets, score, rows }: QuestionsResult): string {
  const lines = Object.entries(subsets).map(([name, { accuracy, interval, rows }]) => [
    name,
    four(accuracy),
    interval ? range(interval) : '',
    String(rows),
  ])
  const head = ['subset', 'score', '95 %', 'rows']
  return `${table([head, ...lines, ['score', four(score), '', String(rows)]], [1, 2, 3])}\n`
}

/** A line for each attribute, by the unit of the evaluation, with the coverage error by the other one. */
export function calibrationTable({
  unit,
  attributes,
  units,
}: Pick<CalibrationEvaluation, 'unit' | 'attributes' | 'units'>): string {
  const other = unit === 'item' ? 'rating' : 'item'
  const head = [
    'attribute',
    'items',
    'ratings',
    'pinball',
    'unconditional',
    'gain',
    'CRPS',
    `coverage error by ${unit}`,
    `by ${other}`,
    'worst',
    'sharpness',
    'crossings',
  ]
  const lines = Object.entries(attributes).map(([name, r]) => [
    name,
    String(r.items),
    String(r.ratings),
    figure(r.pinball),
    figure(r.unconditional_pinball),
    `${(100 * r.gain).toFixed(1)} %`,
    figure(r.crps),
    four(r.coverage_error),
    four(units[other].coverage_errors[name]),
    four(r.worst_coverage_error),
    optional(r.sharpness),
    `${(100 * r.crossings).toFixed(1)} %`,
  ])
  return table([head, ...lines], [...head.keys()].slice(1))
}
