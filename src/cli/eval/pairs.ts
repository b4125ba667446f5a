// The suites of pairs and questions: rewardbench, rewardbench2, pairs.
import { comparePairs, measurePairs } from '../../evaluate/pair_results.ts'
import { type Scores, scorePairFeatures, scoreQuestions } from '../../evaluate/pair_scores.ts'
import { type PairSuite, type Question, readQuestions, unusedFields } from '../../evaluate/questions.ts'
import { printable } from '../../files/json.ts'
import { comparisonLine } from '../../report/evaluation.ts'
import { pairsNote } from '../../report/heads.ts'
import { leaderboard, missingOf, pairDocument, pairTables, scoreLines } from '../../report/pairs.ts'
import { skippedNotes } from '../../report/scores.ts'
import { readCheckpoint } from '../../reward/checkpoint.ts'
import { loadHeads } from '../../reward/heads.ts'
import { loadRewardModel } from '../../reward/model.ts'
import { openPairs } from '../../reward/pair_file.ts'
import { openModel, withDevice, withFeatures, withModel } from '../engine.ts'
import { chosenHeads, EMBEDDED } from '../options.ts'
import { note, print, printJson, writeDocument, writeText } from '../output.ts'
import { startProgress, startRows } from '../progress.ts'
import type { EvalCommand } from './eval.ts'
import { readEvalRows } from './rows.ts'

type ModelScores = Scores & { readonly model: string; readonly device: string }

/** Scores the rows, measures, and reports. */
export async function pairSuite(options: EvalCommand): Promise<void> {
  const start = performance.now()
  const { features, compare, out, outputs } = options
  const suite = options.suite as PairSuite
  const records = features ? null : await readEvalRows(options)
  const questions = records && readQuestions(records, suite)
  const unused = records ? unusedFields(records) : []
  if (unused.length > 0) note(`eval: note: fields that are not used: ${printable(unused.join(', '))}`)
  const score = (choice: EvalCommand) => (questions ? scoreRows(questions, choice) : scoreFeatures(features!, choice))
  const scores = await score(options)
  const other =
    compare === undefined ? null : await score({ ...options, model: compare, adapter: undefined, heads: undefined })
  if (outputs !== undefined) await writeText(outputs, scoreLines(scores))
  const found = measurePairs(scores, suite, options)
  const compared = other && comparePairs(scores, other)
  const { model, device, skipped } = scores
  const ranking = { model, adapter: options.adapter, device, score: options.score }
  const document = pairDocument(found, ranking, compared && { model: other.model, difference: compared })
  if (out !== undefined) {
    if (found.suite === 'rewardbench') await writeDocument(out, leaderboard(found, model), 4)
    else await writeDocument(out, document)
  }
  for (const line of skippedNotes(skipped)) note(`eval: note: ${line}`)
  const missing = missingOf(found)
  if (missing.length > 0) note(`eval: note: there are no rows of ${missing.join(', ')}`)
  // Files have no times, so that the same evaluation writes the same bytes.
  if (options.json) return printJson({ ...document, ms: performance.now() - start })
  const line = compared ? `\n${comparisonLine(printable(other.model), compared)}` : ''
  return print(`${printable(`${model} on ${device}`)}, ranked by ${options.score.kind}\n\n${pairTables(found)}${line}`)
}

function scoreRows(questions: readonly Question[], options: EvalCommand): Promise<ModelScores> {
  const { score, lambda, doubleBos, skipInvalid, maxLength, share } = options
  return withModel(
    options,
    (device, files, own) => loadRewardModel(device, files, { ...chosenHeads(options), ...own }),
    async (model, device, compute) => {
      const progress = startRows()
      const choice = { score, lambda, doubleBos, skipInvalid, maxLength, share, onProgress: progress.update }
      const found = await compute(() => scoreQuestions(model, questions, choice)).finally(progress.end)
      return { model: model.name, device: device.name, ...found }
    },
  )
}

/** Scores pairs of features by the heads of the model directory of `options`. */
async function scoreFeatures(paths: readonly string[], options: EvalCommand): Promise<ModelScores> {
  const { model = EMBEDDED, score, lambda, suite } = options
  const { files } = await openModel(options)
  return withFeatures(paths, async (sources) => {
    const pairs = await openPairs(sources)
    return withDevice(options, async (device) => {
      const heads = await loadHeads(device, files, chosenHeads(options))
      const progress = startProgress('pairs')
      const choice = { score, lambda, onProgress: progress.update }
      const found = await scorePairFeatures(device, heads, pairs, choice, suite as PairSuite).finally(progress.end)
      heads.destroy()
      const seen = pairsNote((await readCheckpoint(files)).fitted, found.keys)
      if (seen !== null) note(`eval: note: ${seen}`)
      return { model, device: device.name, ...found }
    })
  })
}
