// The paper's ten datasets of preferences and the two benchmarks: part of the table of datasets.
//
// Source: the paper's appendix; where ArmoRM takes pairs that RLHF Workflow made of ratings or votes, so is it here.
import { isObject, show } from '../files/json.ts'
import type { Message } from '../text/chat.ts'
import type { RankedRow, RankedSet } from './dataset.ts'
import { anyText, asPair, dialogue, FormError, field, messages, objects, text, texts, Unusable } from './fields.ts'

/** A pair of conversations; where both are answers to one question, as texts after one prompt. */
function pair(chosen: readonly Message[], rejected: readonly Message[], subset: string): RankedRow {
  const [better, worse] = [asPair(chosen), asPair(rejected)]
  const together = better !== null && worse !== null && better.prompt === worse.prompt
  return distinct({
    text: together
      ? { prompt: better.prompt, chosen: better.response, rejected: worse.response }
      : { chosen, rejected },
    subset,
  })
}

/** A pair of equal texts says nothing. */
function distinct(row: RankedRow): RankedRow {
  if (JSON.stringify(row.text.chosen) === JSON.stringify(row.text.rejected)) throw new Unusable('two equal texts')
  return row
}

const STANDARD = 'pairs as RLHF Workflow made them; which pairs the paper draws of them is not published'

/** An entry in the format of RLHF Workflow: two conversations. */
function standard(
  name: string,
  title: string,
  hub: string,
  size: number | null,
  licence: string | null,
  assumed: readonly string[] = [],
): RankedSet {
  return {
    kind: 'preferences',
    name,
    title,
    hub,
    files: 'data/train-*.parquet',
    columns: ['chosen', 'rejected'],
    size,
    licence,
    assumed: [STANDARD, ...assumed],
    read: (record) => [pair(messages(record, 'chosen'), messages(record, 'rejected'), name)],
  }
}

const HH_RLHF: RankedSet = {
  kind: 'preferences',
  name: 'hh-rlhf',
  title: 'HH-RLHF',
  hub: 'Anthropic/hh-rlhf',
  files: 'h*/train.jsonl.gz',
  columns: ['chosen', 'rejected'],
  size: 157_000,
  licence: 'mit',
  assumed: [
    'the original files of helpful-base, helpful-online, helpful-rejection-sampled and harmless-base; the paper counts 157k pairs, after a filter that is not published',
  ],
  read: (record, path) => {
    const folder = /(?:^|\/)((?:helpful|harmless)-[\w-]+)(?:\/|\.)/.exec(path)?.[1]
    return [pair(dialogue(record, 'chosen'), dialogue(record, 'rejected'), folder ?? 'hh-rlhf')]
  },
}

const CAPYBARA: RankedSet = {
  kind: 'preferences',
  name: 'argilla-capybara-pairs',
  title: 'Argilla-Capybara',
  hub: 'argilla/Capybara-Preferences-Filtered',
  files: 'data/train-*.parquet',
  columns: ['chosen', 'rejected'],
  size: 15_000,
  licence: 'apache-2.0',
  assumed: ['columns as in the sister set Capybara-Preferences'],
  read: (record) => [pair(messages(record, 'chosen'), messages(record, 'rejected'), 'argilla-capybara-pairs')],
}

const PRM: RankedSet = {
  kind: 'preferences',
  name: 'prm-phase-2',
  title: 'PRM-Phase-2',
  hub: 'tasksource/PRM800K',
  files: '*phase2_train.jsonl',
  columns: ['question', 'label'],
  size: 80_000,
  licence: 'mit',
  assumed: [
    'how the paper made 80k pairs of the rated steps is not published: here, at each step, the first completion rated 1 against each rated -1, both after the steps that were chosen before',
    'a copy on the hub of the file phase2_train.jsonl of github.com/openai/prm800k',
  ],
  read: (record) => {
    const question = field(record, 'question')
    const label = field(record, 'label')
    if (!isObject(question) || !isObject(label)) {
      throw new FormError(`"question" and "label" must be objects, got ${show(question)} and ${show(label)}`)
    }
    const prompt = text(question, 'problem')
    const rows = stepPairs(prompt, objects(label, 'steps'))
    if (rows.length === 0) throw new Unusable('no step with a right and a wrong completion')
    return rows
  },
}

function stepPairs(prompt: string, steps: readonly Record<string, unknown>[]): RankedRow[] {
  const rows: RankedRow[] = []
  const before: string[] = []
  for (const step of steps) {
    const completions = objects(step, 'completions')
    const right = completions.find((one) => one.rating === 1 && isText(one.text))
    for (const wrong of completions.filter((one) => one.rating === -1 && isText(one.text))) {
      if (!right || right.text === wrong.text) continue
      const chosen = [...before, right.text].join('\n')
      rows.push({ text: { prompt, chosen, rejected: [...before, wrong.text].join('\n') }, subset: 'prm-phase-2' })
    }
    const human = isObject(step.human_completion) ? step.human_completion.text : null
    const taken = typeof step.chosen_completion === 'number' ? completions[step.chosen_completion]?.text : human
    if (!isText(taken)) break
    before.push(taken)
  }
  return rows
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== ''
}

const PROMETHEUS: RankedSet = {
  kind: 'preferences',
  name: 'prometheus-2',
  title: 'Prometheus2-Preference-Collection',
  hub: 'prometheus-eval/Preference-Collection',
  files: '*.json',
  columns: ['orig_instruction', 'orig_response_A', 'orig_response_B', 'orig_preference'],
  size: 200_000,
  licence: 'cc-by-4.0',
  assumed: ['the prompt is the original instruction without the rubric'],
  read: (record) => {
    const prompt = text(record, 'orig_instruction')
    const [a, b] = [text(record, 'orig_response_A'), text(record, 'orig_response_B')]
    const better = field(record, 'orig_preference')
    if (better === 'tie') throw new Unusable('a tie')
    if (better !== 'A' && better !== 'B') throw new FormError(`"orig_preference" must be A or B, got ${show(better)}`)
    const [chosen, rejected] = better === 'A' ? [a, b] : [b, a]
    return [distinct({ text: { prompt, chosen, rejected }, subset: 'prometheus-2' })]
  },
}

/** The paper's ten, in its order. */
export const PREFERENCE_SETS: readonly RankedSet[] = [
  standard('helpsteer-pairs', 'HelpSteer', 'RLHFlow/Helpsteer-preference-standard', 37_131, 'cc-by-4.0'),
  standard('ultrafeedback-pairs', 'UltraFeedback', 'RLHFlow/UltraFeedback-preference-standard', 340_025, 'mit'),
  standard('shp', 'SHP', 'RLHFlow/SHP-standard', 93_301, null),
  HH_RLHF,
  standard('pku-saferlhf', 'PKU-SafeRLHF-30K', 'RLHFlow/PKU-SafeRLHF-30K-standard', 26_874, 'cc-by-nc-4.0', [
    'whether the safer or the more helpful response is chosen is what that set decided',
  ]),
  CAPYBARA,
  standard('argilla-math-pairs', 'Argilla-Math-Preferences', 'RLHFlow/Argilla-Math-DPO-standard', 2_418, 'apache-2.0'),
  standard('code-ultrafeedback-pairs', 'CodeUltraFeedback', 'RLHFlow/CodeUltraFeedback-standard', 50_156, 'mit'),
  PRM,
  PROMETHEUS,
]

// No row of a benchmark is left out: an empty answer is a fact of it, and any other form an error.

/** Names of rows are numbers in RewardBench and texts in RewardBench 2. */
function rowName(record: Record<string, unknown>): string {
  const id = field(record, 'id')
  if (typeof id === 'string' || typeof id === 'number') return `${id}`
  throw new FormError(`"id" must be a number or a text, got ${show(id)}`)
}

const REWARD_BENCH: RankedSet = {
  kind: 'evaluation',
  name: 'reward-bench',
  title: 'RewardBench',
  hub: 'allenai/reward-bench',
  files: 'data/filtered-*.parquet',
  columns: ['prompt', 'chosen', 'rejected', 'subset', 'id'],
  size: 2_985,
  licence: 'odc-by',
  assumed: [],
  read: (record) => {
    const [chosen, rejected] = [anyText(record, 'chosen'), anyText(record, 'rejected')]
    const prompt = anyText(record, 'prompt')
    return [{ text: { prompt, chosen, rejected }, subset: anyText(record, 'subset'), id: rowName(record) }]
  },
}

const REWARD_BENCH_2: RankedSet = {
  kind: 'evaluation',
  name: 'reward-bench-2',
  title: 'RewardBench 2',
  hub: 'allenai/reward-bench-2',
  files: 'data/test-*.parquet',
  columns: ['prompt', 'chosen', 'rejected', 'num_correct', 'num_rejected', 'subset', 'id'],
  size: 1_865,
  licence: 'odc-by',
  assumed: [],
  read: (record) => {
    const [chosen, rejected] = [texts(record, 'chosen'), texts(record, 'rejected')]
    const { num_correct = chosen.length, num_rejected = rejected.length } = record
    return [
      {
        text: { prompt: anyText(record, 'prompt'), chosen, rejected },
        subset: anyText(record, 'subset'),
        id: rowName(record),
        more: { num_correct, num_rejected },
      },
    ]
  },
}

export const EVALUATION_SETS: readonly RankedSet[] = [REWARD_BENCH, REWARD_BENCH_2]
