// The suites of pairs and questions: rewardbench, rewardbench2, pairs.

import { pairedBootstrap, wilson } from '../evaluate/intervals.ts'
import { type Accuracy, pairAccuracy, pairCredits, weightedInterval } from '../evaluate/pairs.ts'
import {
  PRIOR_SETS,
  PRIOR_WEIGHT,
  type RewardBench,
  rewardBench,
  type Section,
  SUBSETS,
  subsetCounts,
  type Xstest,
} from '../evaluate/reward_bench.ts'
import { rewardBench2 } from '../evaluate/reward_bench_2.ts'
import { writeFileAtomic } from '../files/disk.ts'
import { printable, show } from '../files/json.ts'
import { table } from './draw.ts'
import type { EvalCommand } from './eval.ts'
import { readEvalRows } from './eval_data.ts'
import { accuracyTable, type Basis, comparisonLine, four, sectionTable } from './eval_report.ts'
import { readPair, readQuestion } from './eval_rows.ts'
import { type Scores, scorePairFeatures, scoreQuestions } from './eval_scores.ts'
import { note, print, printJson } from './output.ts'

const SKIPPED_SHOWN = 5

/** Scores the rows, measures, and reports. */
export async function pairSuite(options: EvalCommand): Promise<void> {
  const start = performance.now()
  const { suite, features } = options
  const questions = features
    ? null
    : (await readEvalRows(options)).map(suite === 'rewardbench2' ? readQuestion : readPair)
  const check = (subsets: readonly (string | null)[]) => {
    if (suite !== 'rewardbench') return
    checkSubsets(
      subsets.map((subset, i) => ({ subset, where: questions?.[i].where ?? `${features![0]}: pair ${i + 1}` })),
    )
  }
  if (questions) check(questions.map(({ subset }) => subset))
  const score = (choice: EvalCommand) =>
    questions ? scoreQuestions(questions, choice) : scorePairFeatures(features!, choice, check)
  const scores = await score(options)
  const other = options.compare === undefined ? null : await score({ ...options, model: options.compare })
  if (options.outputs !== undefined) await writeOutputs(options.outputs, scores)
  const report = suite === 'rewardbench2' ? questionsReport(scores) : pairsReport(scores, other, options)
  const { kind, ...level } = options.score
  const document = {
    suite,
    model: scores.model,
    device: scores.device,
    score_kind: kind,
    ...level,
    ...report.document,
    skipped: scores.skipped.length,
  }
  if (options.out !== undefined) {
    const text = report.leaderboard ? JSON.stringify(report.leaderboard, null, 4) : JSON.stringify(document, null, 2)
    await writeFileAtomic(options.out, [new TextEncoder().encode(`${text}\n`)])
  }
  for (const reason of scores.skipped.slice(0, SKIPPED_SHOWN)) note(`eval: note: left out: ${reason}`)
  if (scores.skipped.length > SKIPPED_SHOWN)
    note(`eval: note: ${scores.skipped.length - SKIPPED_SHOWN} more rows are left out`)
  for (const line of report.notes) note(`eval: note: ${line}`)
  // Files have no times, so that the same evaluation writes the same bytes.
  if (options.json) return printJson({ ...document, ms: performance.now() - start })
  return print(`${printable(`${scores.model} on ${scores.device}`)}, ranked by ${kind}\n\n${report.text}`)
}

interface Report {
  readonly document: Record<string, unknown>
  readonly leaderboard?: Record<string, unknown>
  readonly text: string
  readonly notes: readonly string[]
}

function checkSubsets(rows: readonly { readonly subset: string | null; readonly where: string }[]): void {
  const known = [...SUBSETS, ...PRIOR_SETS]
  for (const { subset, where } of rows) {
    if (subset === null)
      throw new Error(`${where}: has no "subset", which RewardBench needs; --suite pairs takes rows without`)
    if (!known.includes(subset)) {
      throw new Error(
        `${where}: ${show(subset)} is no subset of RewardBench; --suite pairs takes any, RewardBench has ${known.join(', ')}`,
      )
    }
  }
}

function pairsReport({ questions, model }: Scores, other: Scores | null, options: EvalCommand): Report {
  const side = (at: number, from = questions) => from.map(({ scores }) => scores[at])
  const named = questions.every(({ subset }) => subset !== null)
  const subsets = named ? questions.map(({ subset }) => subset!) : null
  const { subsets: own, ...all } = pairAccuracy(side(0), side(1), subsets)
  const apart = other ? questions.findIndex(({ where }, i) => other.questions[i]?.where !== where) : -1
  if (other && (apart >= 0 || other.questions.length !== questions.length)) {
    const row = questions[apart]?.where ?? other.questions[questions.length].where
    throw new Error(`--compare: ${row} can be scored by one of the models only; leave such rows out of --data`)
  }
  const compared =
    other &&
    pairedBootstrap(pairCredits(side(0), side(1)), pairCredits(side(0, other.questions), side(1, other.questions)))
  const comparison = compared && { comparison: { model: other!.model, ...snake(compared) } }
  const text = accuracyTable(own, all)
  const line = compared ? `\n${comparisonLine(printable(other!.model), compared)}` : ''
  if (options.suite === 'pairs')
    return { document: { ...all, subsets: own, ...comparison }, text: text + line, notes: [] }
  const accuracies = Object.fromEntries(Object.entries(own).map(([name, { accuracy }]) => [name, accuracy]))
  const { xstest, priorSets } = options
  const bench = rewardBench(accuracies, { xstest, priorSets })
  const known = basesOf(own, bench, xstest)
  const chat = { model, model_type: 'Custom Classifier', chat_template: 'tokenizer' }
  return {
    document: {
      ...all,
      xstest,
      subsets: own,
      sections: bench.sections,
      section_intervals: Object.fromEntries(
        Object.entries(known.sections).map(([name, { interval }]) => [name, interval]),
      ),
      section_rows: Object.fromEntries(Object.entries(known.sections).map(([name, { rows }]) => [name, rows])),
      ...(bench.priorSets !== undefined && { prior_sets: bench.priorSets }),
      score: bench.score,
      score_interval: known.score?.interval ?? null,
      missing: bench.missing,
      ...comparison,
    },
    leaderboard: Object.fromEntries(Object.entries({ ...accuracies, ...chat }).sort(([a], [b]) => (a < b ? -1 : 1))),
    text: `${text}\n${sectionTable(bench, known)}${line}`,
    notes: bench.missing.length > 0 ? [`there are no rows of ${bench.missing.join(', ')}`] : [],
  }
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

function snake({ firstOnly, secondOnly, ...rest }: ReturnType<typeof pairedBootstrap>) {
  return { ...rest, first_only: firstOnly, second_only: secondOnly }
}

function questionsReport({ questions }: Scores): Report {
  const items = questions.map(({ subset, id, scores, right }) => ({ subset: subset!, id: id ?? '', scores, right }))
  const { subsets, score, ties, missing } = rewardBench2(items)
  const entries = Object.entries(subsets).map(([name, own]) => {
    // Credits of best-of-four are shares of one; the composite of Ties is no share, and has no interval.
    const interval = name === 'Ties' ? null : wilson(own.score * own.rows, own.rows)
    return [name, { accuracy: own.score, interval, rows: own.rows }] as const
  })
  const lines = entries.map(([name, { accuracy, interval, rows }]) => [
    name,
    four(accuracy),
    interval ? `${four(interval[0])} - ${four(interval[1])}` : '',
    String(rows),
  ])
  const tied = ties && { ties: { score: ties.score, tied_accuracy: ties.tiedAccuracy, ref_accuracy: ties.refAccuracy } }
  return {
    document: { rows: items.length, subsets: Object.fromEntries(entries), ...tied, score, missing },
    text: `${table([['subset', 'score', '95 %', 'rows'], ...lines, ['score', four(score), '', String(items.length)]], [1, 2, 3])}\n`,
    notes: missing.length > 0 ? [`there are no rows of ${missing.join(', ')}`] : [],
  }
}

async function writeOutputs(path: string, { questions }: Scores): Promise<void> {
  const lines = questions.map(({ subset, id, scores, right }) => {
    const sides =
      scores.length === 2 && right === 1
        ? { results: scores[0] > scores[1] ? 1 : 0, scores_chosen: scores[0], scores_rejected: scores[1] }
        : { scores_chosen: scores.slice(0, right), scores_rejected: scores.slice(right) }
    return `${JSON.stringify({ ...(id !== null && { id }), ...(subset !== null && { subset }), ...sides })}\n`
  })
  await writeFileAtomic(path, [new TextEncoder().encode(lines.join(''))])
}
