// The suites of pairs and questions: rewardbench, rewardbench2, pairs.
import type { PairedDifference } from '../../evaluate/intervals.ts'
import { comparePairs, measurePairs, type PairEvaluation } from '../../evaluate/pair_results.ts'
import { type Scores, scorePairFeatures, scoreQuestions } from '../../evaluate/pair_scores.ts'
import { type PairSuite, type Question, readQuestions } from '../../evaluate/questions.ts'
import { openDirectory, writeFileAtomic } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import { loadHeads } from '../../reward/heads.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { openPairs } from '../../reward/pair_file.ts'
import { withDevice, withModel } from '../engine.ts'
import { withFeatureFiles } from '../feature_files.ts'
import { chosenHeads, EMBEDDED, embeddedModel } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startProgress, startRows } from '../progress.ts'
import type { EvalCommand } from './eval.ts'
import { accuracyTable, comparisonLine, questionTable, sectionTable, writeDocument } from './report.ts'
import { readEvalRows } from './rows.ts'

const SKIPPED_SHOWN = 5

type ModelScores = Scores & { readonly model: string; readonly device: string }

/** Scores the rows, measures, and reports. */
export async function pairSuite(options: EvalCommand): Promise<void> {
  const start = performance.now()
  const { features, compare, out, outputs } = options
  const suite = options.suite as PairSuite
  const questions = features ? null : readQuestions(await readEvalRows(options), suite)
  const score = (choice: EvalCommand) => (questions ? scoreRows(questions, choice) : scoreFeatures(features!, choice))
  const scores = await score(options)
  const other = compare === undefined ? null : await score({ ...options, model: compare, adapter: undefined })
  if (outputs !== undefined) await writeFileAtomic(outputs, [new TextEncoder().encode(outputLines(scores))])
  const found = measurePairs(scores, suite, options)
  const compared = other && comparePairs(scores, other)
  const { kind, ...level } = options.score
  const { model, device, skipped } = scores
  const document = {
    ...{ suite, model },
    ...(options.adapter !== undefined && { adapter: options.adapter }),
    ...{ device, score_kind: kind, ...level, ...describe(found) },
    ...(compared && { comparison: { model: other.model, ...snake(compared) } }),
    skipped: skipped.length,
  }
  if (out !== undefined) {
    if (found.suite === 'rewardbench') await writeDocument(out, leaderboard(found, model), 4)
    else await writeDocument(out, document)
  }
  for (const reason of skipped.slice(0, SKIPPED_SHOWN)) note(`eval: note: left out: ${reason}`)
  if (skipped.length > SKIPPED_SHOWN) note(`eval: note: ${skipped.length - SKIPPED_SHOWN} more rows are left out`)
  const missing = missingOf(found)
  if (missing.length > 0) note(`eval: note: there are no rows of ${missing.join(', ')}`)
  // Files have no times, so that the same evaluation writes the same bytes.
  if (options.json) return printJson({ ...document, ms: performance.now() - start })
  const line = compared ? `\n${comparisonLine(printable(other.model), compared)}` : ''
  return print(`${printable(`${model} on ${device}`)}, ranked by ${kind}\n\n${tables(found)}${line}`)
}

function scoreRows(questions: readonly Question[], options: EvalCommand): Promise<ModelScores> {
  const { score, lambda, doubleBos, skipInvalid, share } = options
  return withModel(
    options,
    (device, files, own) => loadRewardModel(device, files, { ...chosenHeads(options), ...own }),
    async (model, device, compute) => {
      const progress = startRows()
      const choice = { score, lambda, doubleBos, skipInvalid, share, onProgress: progress.update }
      const found = await compute(() => scoreQuestions(model, questions, choice)).finally(progress.end)
      return { model: model.name, device: device.name, ...found }
    },
  )
}

/** Scores pairs of features by the heads of the model directory of `options`. */
async function scoreFeatures(paths: readonly string[], options: EvalCommand): Promise<ModelScores> {
  const { model = EMBEDDED, score, lambda, suite } = options
  const files = await openDirectory(options.model ?? embeddedModel())
  return withFeatureFiles(paths, async (sources) => {
    const pairs = await openPairs(sources)
    return withDevice(options, async (device) => {
      const heads = await loadHeads(device, files, chosenHeads(options))
      const progress = startProgress('pairs')
      const choice = { score, lambda, onProgress: progress.update }
      const found = await scorePairFeatures(device, heads, pairs, choice, suite as PairSuite).finally(progress.end)
      heads.destroy()
      return { model, device: device.name, ...found }
    })
  })
}

/** The numbers of an evaluation, as --json and --out name them. */
function describe(found: PairEvaluation): Record<string, unknown> {
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

function missingOf(found: PairEvaluation): readonly string[] {
  if (found.suite === 'pairs') return []
  return found.suite === 'rewardbench' ? found.result.bench.missing : found.result.missing
}

/** One accuracy for each subset, as the leaderboard of RewardBench has them. */
function leaderboard({ result }: PairEvaluation & { readonly suite: 'rewardbench' }, model: string) {
  const accuracies = Object.fromEntries(Object.entries(result.subsets).map(([name, { accuracy }]) => [name, accuracy]))
  const all = { ...accuracies, model, model_type: 'Custom Classifier', chat_template: 'tokenizer' }
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function tables(found: PairEvaluation): string {
  if (found.suite === 'rewardbench2') return questionTable(found.result)
  const text = accuracyTable(found.result.subsets, found.result)
  return found.suite === 'pairs' ? text : `${text}\n${sectionTable(found.result.bench, found.result)}`
}

function snake({ firstOnly, secondOnly, ...rest }: PairedDifference) {
  return { ...rest, first_only: firstOnly, second_only: secondOnly }
}

function outputLines({ questions }: Scores): string {
  const lines = questions.map(({ subset, id, scores, right }) => {
    const sides =
      scores.length === 2 && right === 1
        ? { results: scores[0] > scores[1] ? 1 : 0, scores_chosen: scores[0], scores_rejected: scores[1] }
        : { scores_chosen: scores.slice(0, right), scores_rejected: scores.slice(right) }
    return `${JSON.stringify({ ...(id !== null && { id }), ...(subset !== null && { subset }), ...sides })}\n`
  })
  return lines.join('')
}
