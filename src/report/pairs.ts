// What an evaluation of pairs or questions comes to: its document, the form of the leaderboard, scores of rows, tables.
import type { PairedDifference } from '../evaluate/intervals.ts'
import type { PairEvaluation } from '../evaluate/pair_results.ts'
import type { Scores } from '../evaluate/pair_scores.ts'
import type { RewardBench, Xstest } from '../evaluate/reward_bench.ts'
import { PRIOR_SETS, SUBSETS } from '../evaluate/reward_bench.ts'
import type { ScoreKind } from '../reward/scoring.ts'
import { accuracyTable, questionTable, sectionTable } from './evaluation.ts'

/** What was scored, by what, and what ranked. */
export interface Ranking {
  readonly model: string
  /** The adapter that the model is under. */
  readonly adapter?: string
  readonly device: string
  readonly score: ScoreKind
}

/** The document of --json and --out; `compared` is what a second model on the same rows came to. */
export function pairDocument(
  found: PairEvaluation,
  { model, adapter, device, score }: Ranking,
  compared: { readonly model: string; readonly difference: PairedDifference } | null,
): Record<string, unknown> {
  const { kind, ...level } = score
  return {
    ...{ suite: found.suite, model, ...(adapter !== undefined && { adapter }) },
    ...{ device, score_kind: kind, ...level, ...numbersOf(found) },
    ...(compared && { comparison: { model: compared.model, ...snake(compared.difference) } }),
    skipped: found.skipped.length,
  }
}

/** The document of an evaluation of accuracies alone, as the leaderboard of RewardBench publishes them. */
export function resultsDocument(
  bench: RewardBench,
  accuracies: Readonly<Record<string, number>>,
  { model, xstest }: { readonly model: unknown; readonly xstest: Xstest },
): Record<string, unknown> {
  const known = [...SUBSETS, ...PRIOR_SETS]
  return {
    suite: 'rewardbench',
    ...(typeof model === 'string' && { model }),
    xstest,
    sections: bench.sections,
    ...(bench.priorSets !== undefined && { prior_sets: bench.priorSets }),
    score: bench.score,
    subsets: Object.fromEntries(known.filter((name) => name in accuracies).map((name) => [name, accuracies[name]])),
    missing: bench.missing,
  }
}

/** The numbers of an evaluation, as --json and --out name them. */
function numbersOf(found: PairEvaluation): Record<string, unknown> {
  if (found.suite === 'rewardbench2') {
    const { rows, subsets, ties, score, missing } = found.result
    const tied = ties && {
      ties: { score: ties.score, tied_accuracy: ties.tiedAccuracy, ref_accuracy: ties.refAccuracy },
    }
    return { rows, subsets, ...tied, score, missing }
  }
  const { accuracy, interval, rows, ties, subsets } = found.result
  const all = { accuracy, interval, rows, ties }
  if (found.suite === 'pairs') return { ...all, subsets }
  const { bench, xstest, sections, score } = found.result
  const each = <T>(value: (basis: (typeof sections)[string]) => T) =>
    Object.fromEntries(Object.entries(sections).map(([name, basis]) => [name, value(basis)]))
  return {
    ...all,
    xstest,
    subsets,
    sections: bench.sections,
    section_intervals: each((basis) => basis.interval),
    section_rows: each((basis) => basis.rows),
    ...(bench.priorSets !== undefined && { prior_sets: bench.priorSets }),
    score: bench.score,
    score_interval: score?.interval ?? null,
    missing: bench.missing,
  }
}

/** Subsets of the suite that no row has. */
export function missingOf(found: PairEvaluation): readonly string[] {
  if (found.suite === 'pairs') return []
  return found.suite === 'rewardbench' ? found.result.bench.missing : found.result.missing
}

/** One accuracy for each subset, as the leaderboard of RewardBench has them. */
export function leaderboard({ result }: PairEvaluation & { readonly suite: 'rewardbench' }, model: string) {
  const accuracies = Object.fromEntries(Object.entries(result.subsets).map(([name, { accuracy }]) => [name, accuracy]))
  const all = { ...accuracies, model, model_type: 'Custom Classifier', chat_template: 'tokenizer' }
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** Tables of an evaluation, for people. */
export function pairTables(found: PairEvaluation): string {
  if (found.suite === 'rewardbench2') return questionTable(found.result)
  const text = accuracyTable(found.result.subsets, found.result)
  return found.suite === 'pairs' ? text : `${text}\n${sectionTable(found.result.bench, found.result)}`
}

function snake({ firstOnly, secondOnly, ...rest }: PairedDifference) {
  return { ...rest, first_only: firstOnly, second_only: secondOnly }
}

/** JSON Lines: the scores of every row, those of the right answers before the others. */
export function scoreLines({ questions }: Scores): string {
  const lines = questions.map(({ subset, id, scores, right }) => {
    const sides =
      scores.length === 2 && right === 1
        ? { results: scores[0] > scores[1] ? 1 : 0, scores_chosen: scores[0], scores_rejected: scores[1] }
        : { scores_chosen: scores.slice(0, right), scores_rejected: scores.slice(right) }
    return `${JSON.stringify({ ...(id !== null && { id }), ...(subset !== null && { subset }), ...sides })}\n`
  })
  return lines.join('')
}
