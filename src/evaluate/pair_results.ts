// What scored pairs and questions come to: accuracies with intervals, sections of RewardBench, two models compared.
import type { FileRecord } from '../files/records.ts'
import type { RewardModel } from '../reward/model.ts'
import { type PairedDifference, pairedBootstrap, wilson } from './intervals.ts'
import { type QuestionOptions, type Scored, type Scores, scoreQuestions } from './pair_scores.ts'
import { type Accuracy, type PairAccuracy, pairAccuracy, pairCredits, weightedInterval } from './pairs.ts'
import { type PairSuite, readQuestions } from './questions.ts'
import {
  PRIOR_SETS,
  PRIOR_WEIGHT,
  type RewardBench,
  rewardBench,
  type Section,
  subsetCounts,
  type Xstest,
} from './reward_bench.ts'
import { rewardBench2, type TiesResult } from './reward_bench_2.ts'

/** What an accuracy of a section or of all of them rests on. */
export interface Basis {
  readonly interval: readonly [number, number]
  readonly rows: number
}

export interface RewardBenchResult extends PairAccuracy {
  /** Sections and score, from the accuracies of the subsets. */
  readonly bench: RewardBench
  readonly xstest: Xstest
  /** By section, for those with rows and those without. */
  readonly sections: Readonly<Record<string, Basis>>
  readonly prior: Basis
  /** null where a section has no rows. */
  readonly score: Basis | null
}

export interface QuestionsResult {
  readonly rows: number
  /** By domain; the composite of Ties is no share and has no interval. */
  readonly subsets: Readonly<
    Record<string, { readonly accuracy: number; readonly interval: [number, number] | null; readonly rows: number }>
  >
  readonly ties: TiesResult | null
  readonly score: number
  readonly missing: readonly string[]
}

export interface RewardBenchOptions {
  readonly xstest?: Xstest
  readonly priorSets?: boolean
}

export type PairEvaluation = Scores &
  (
    | { readonly suite: 'pairs'; readonly result: PairAccuracy }
    | { readonly suite: 'rewardbench'; readonly result: RewardBenchResult }
    | { readonly suite: 'rewardbench2'; readonly result: QuestionsResult }
  )

/**
 * Scores rows (as `readRecords` gives them: pairs, or the questions of RewardBench 2) by a model and measures them by the rules of a
 * suite. Throws on rows that the suite does not have, and on those that cannot be scored unless `skipInvalid` leaves them out.
 */
export async function evaluatePairs(
  model: RewardModel,
  records: readonly FileRecord[],
  { suite = 'pairs', ...options }: QuestionOptions & RewardBenchOptions & { readonly suite?: PairSuite } = {},
): Promise<PairEvaluation> {
  const { xstest, priorSets, ...scoring } = options
  const scores = await scoreQuestions(model, readQuestions(records, suite), scoring)
  return measurePairs(scores, suite, { xstest, priorSets })
}

/** Measures scores by the rules of a suite. */
export function measurePairs(scores: Scores, suite: PairSuite, options: RewardBenchOptions = {}): PairEvaluation {
  const { questions } = scores
  if (suite === 'rewardbench2') return { ...scores, suite, result: measureQuestions(questions) }
  const named = questions.every(({ subset }) => subset !== null)
  const subsets = named ? questions.map(({ subset }) => subset!) : null
  const accuracy = pairAccuracy(side(questions, 0), side(questions, 1), subsets)
  if (suite === 'pairs') return { ...scores, suite, result: accuracy }
  return { ...scores, suite, result: measureRewardBench(accuracy, options) }
}

const side = (questions: readonly Scored[], at: number): number[] => questions.map(({ scores }) => scores[at])

/** Compares two models on the same pairs. Throws where one has scored pairs that the other has not. */
export function comparePairs(one: Scores, other: Scores): PairedDifference {
  const [a, b] = [one.questions, other.questions]
  const apart = a.findIndex(({ where }, i) => b[i]?.where !== where)
  if (apart >= 0 || b.length !== a.length) {
    const row = a[apart]?.where ?? b[a.length].where
    throw new Error(`--compare: ${row} can be scored by one of the models only; leave such rows out of --data`)
  }
  return pairedBootstrap(pairCredits(side(a, 0), side(a, 1)), pairCredits(side(b, 0), side(b, 1)))
}

function measureRewardBench(accuracy: PairAccuracy, { xstest = 'current', priorSets }: RewardBenchOptions) {
  const { subsets } = accuracy
  const shares = Object.fromEntries(Object.entries(subsets).map(([name, own]) => [name, own.accuracy]))
  const bench = rewardBench(shares, { xstest, priorSets })
  return { ...accuracy, bench, xstest, ...basesOf(subsets, bench, xstest) }
}

interface Part {
  readonly accuracy: number
  readonly rows: number
  readonly weight: number
}

/** Intervals and rows of the sections, of the prior sets and of the score, from the accuracies of the subsets and their weights. */
function basesOf(own: Readonly<Record<string, Accuracy>>, bench: RewardBench, xstest: Xstest) {
  const shares = (weights: Readonly<Record<string, number>>, whole: number): Part[] => {
    const there = Object.entries(weights).filter(([name]) => name in own)
    const total = there.reduce((sum, [, weight]) => sum + weight, 0)
    return there.map(([name, weight]) => ({ ...own[name], weight: (whole * weight) / total }))
  }
  const basis = (parts: readonly Part[]): Basis => ({
    interval: weightedInterval(parts),
    rows: parts.reduce((sum, { rows }) => sum + rows, 0),
  })
  const sections = Object.keys(bench.sections).map(
    (name) => [name, shares(subsetCounts(name as Section, xstest), 1)] as const,
  )
  const prior = shares(Object.fromEntries(PRIOR_SETS.map((name) => [name, 1])), PRIOR_WEIGHT)
  const all = [...sections.flatMap(([, parts]) => parts), ...(bench.priorSets === undefined ? [] : prior)]
  return {
    sections: Object.fromEntries(sections.map(([name, parts]) => [name, basis(parts)])),
    prior: basis(prior),
    // A section without rows counts as 0 in the score, of which no interval can tell.
    score: sections.every(([, parts]) => parts.length > 0) ? basis(all) : null,
  }
}

function measureQuestions(questions: readonly Scored[]): QuestionsResult {
  const items = questions.map(({ subset, id, scores, right }) => ({ subset: subset!, id: id ?? '', scores, right }))
  const { subsets, ...rest } = rewardBench2(items)
  const entries = Object.entries(subsets).map(([name, own]) => {
    // Credits of best-of-four are shares of one.
    const interval = name === 'Ties' ? null : wilson(own.score * own.rows, own.rows)
    return [name, { accuracy: own.score, interval, rows: own.rows }] as const
  })
  return { rows: items.length, subsets: Object.fromEntries(entries), ...rest }
}
