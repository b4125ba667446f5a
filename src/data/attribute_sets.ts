// The paper's eight datasets of ratings, and the published set that merges them: part of the table of datasets.
//
// Source: the paper's appendix; names and order of the attributes as the published ArmoRM and QRM models have them.
import { isObject, show } from '../files/json.ts'
import { ATTRIBUTES } from './attributes.ts'
import type { Attribute, AttributeSet, RatedRow } from './dataset.ts'
import { asPair, FormError, field, messages, objects, text, texts, Unusable } from './fields.ts'
import { BOOLEAN, levels, normaliseAll, type Scale, UNIT } from './scale.ts'

const MIDDLES =
  'the normalisation is not published; n levels are taken as the middles of n equal parts, as HelpSteer does'

/** Attributes `prefix-column` on one scale. */
function attributes(prefix: string, columns: readonly string[], scale: Scale): Attribute[] {
  return columns.map((column) => ({ name: `${prefix}-${column}`, column, scale }))
}

/** One text with the ratings that `raw` finds for the attributes; a row without any rating is of no use. */
function rated(text: RatedRow['text'], chosen: readonly Attribute[], raw: (at: Attribute) => unknown): RatedRow {
  const labels = Object.fromEntries(chosen.map((at) => [at.name, normaliseAll(raw(at), at.scale)]))
  if (Object.values(labels).every((label) => label === null)) throw new Unusable('no rating')
  return { text, labels }
}

/** Each of several texts of a record on its own: an unusable one does not take the others along. */
function several<T>(items: readonly T[], row: (item: T) => RatedRow): (RatedRow | Unusable)[] {
  if (items.length === 0) throw new Unusable('no response')
  return items.map((item) => {
    try {
      return row(item)
    } catch (error) {
      if (error instanceof Unusable) return error
      throw error
    }
  })
}

/** Rows of one prompt, one response and a column for each attribute. */
function columnRatings(prompt: string, response: string): AttributeSet['read'] {
  return (record, all) => [
    rated({ prompt: text(record, prompt), response: text(record, response) }, all, (at) => field(record, at.column)),
  ]
}

const HELPSTEER: AttributeSet = {
  kind: 'attributes',
  name: 'helpsteer',
  title: 'HelpSteer',
  hub: 'nvidia/HelpSteer',
  files: 'train.jsonl.gz',
  columns: ['prompt', 'response', 'helpfulness', 'correctness', 'coherence', 'complexity', 'verbosity'],
  attributes: attributes(
    'helpsteer',
    ['helpfulness', 'correctness', 'coherence', 'complexity', 'verbosity'],
    levels(0, 4),
  ),
  size: 35_331,
  licence: 'cc-by-4.0',
  assumed: [],
  read: columnRatings('prompt', 'response'),
}

const ULTRAFEEDBACK: AttributeSet = {
  kind: 'attributes',
  name: 'ultrafeedback',
  title: 'UltraFeedback',
  hub: 'openbmb/UltraFeedback',
  files: '*.jsonl',
  columns: ['instruction', 'completions'],
  attributes: [
    { name: 'ultrafeedback-overall_score', column: 'overall_score', scale: levels(1, 10) },
    ...attributes('ultrafeedback', ['instruction_following', 'truthfulness', 'honesty', 'helpfulness'], levels(1, 5)),
  ],
  size: 240_000,
  licence: 'mit',
  assumed: [
    MIDDLES,
    'the system prompt that each model was given is left out: the published features have one user turn',
  ],
  read: (record, all) => {
    const prompt = text(record, 'instruction')
    return several(objects(record, 'completions'), (completion) =>
      rated({ prompt, response: text(completion, 'response') }, all, (at) => {
        if (at.column === 'overall_score') return field(completion, at.column)
        const annotations = field(completion, 'annotations')
        if (annotations === null) return null
        if (!isObject(annotations)) throw new FormError(`"annotations" must be an object, got ${show(annotations)}`)
        const one = annotations[at.column]
        return isObject(one) ? field(one, 'Rating') : null
      }),
    )
  },
}

const BEAVERTAILS: AttributeSet = {
  kind: 'attributes',
  name: 'beavertails',
  title: 'BeaverTails-30k',
  hub: 'PKU-Alignment/BeaverTails',
  files: 'round0/30k/train.jsonl*',
  columns: ['prompt', 'response', 'is_safe'],
  attributes: [{ name: 'beavertails-is_safe', column: 'is_safe', scale: BOOLEAN }],
  size: 30_000,
  licence: 'cc-by-nc-4.0',
  assumed: ['the 30k_train split lies in round0/30k, as its card says'],
  read: columnRatings('prompt', 'response'),
}

const CODE: AttributeSet = {
  kind: 'attributes',
  name: 'code-ultrafeedback',
  title: 'CodeUltraFeedback',
  hub: 'coseal/CodeUltraFeedback',
  files: 'data/train-*.parquet',
  columns: ['instruction', 'preference', 'responses', 'annotations'],
  attributes: attributes(
    'code',
    ['complexity', 'style', 'explanation', 'instruction-following', 'readability'],
    levels(1, 5),
  ),
  size: 50_000,
  licence: 'mit',
  assumed: [
    MIDDLES,
    'each instruction is rated for one of the five preferences, so four of the attributes of a row are missing',
    'the card names a preference with or without "code-" before it; both are read',
  ],
  read: (record, all) => {
    const prompt = text(record, 'instruction')
    const preference = text(record, 'preference').replace(/^code-/, '')
    const at = all.find(({ column }) => column === preference)
    if (!at) throw new FormError(`"preference" must be one of ${all.map(({ column }) => show(column)).join(', ')}`)
    const responses = new Map(objects(record, 'responses').map((one) => [field(one, 'model'), one]))
    return several(objects(record, 'annotations'), (annotation) => {
      const response = responses.get(field(annotation, 'model'))
      if (!response) throw new Unusable('a rating without its response')
      return rated({ prompt, response: text(response, 'response') }, [at], () => field(annotation, 'rating'))
    })
  },
}

const PROMETHEUS: AttributeSet = {
  kind: 'attributes',
  name: 'prometheus',
  title: 'Prometheus',
  hub: 'prometheus-eval/Feedback-Collection',
  files: '*.json',
  columns: ['orig_instruction', 'orig_response', 'orig_score'],
  attributes: [{ name: 'prometheus-score', column: 'orig_score', scale: levels(1, 5) }],
  size: 200_000,
  licence: 'cc-by-4.0',
  assumed: [
    MIDDLES,
    'the prompt is the original instruction without the rubric: how the published models render it is not known',
    'the paper counts 200k rows, the published collection has 100k',
  ],
  read: columnRatings('orig_instruction', 'orig_response'),
}

const CAPYBARA: AttributeSet = {
  kind: 'attributes',
  name: 'argilla-capybara',
  title: 'Argilla-Capybara',
  hub: 'argilla/Capybara-Preferences-Filtered',
  files: 'data/train-*.parquet',
  columns: ['chosen', 'chosen_rating', 'rejected', 'rejected_rating'],
  attributes: [{ name: 'argilla-overall_quality', column: 'chosen_rating, rejected_rating', scale: levels(1, 5) }],
  size: 15_000,
  licence: 'apache-2.0',
  assumed: [MIDDLES, 'both responses of a pair are rows; columns as in the sister set Capybara-Preferences'],
  read: (record, all) =>
    several(['chosen', 'rejected'], (side) => {
      const turns = messages(record, side)
      return rated(asPair(turns) ?? { messages: turns }, all, () => field(record, `${side}_rating`))
    }),
}

const OPENORCA: AttributeSet = {
  kind: 'attributes',
  name: 'argilla-openorca',
  title: 'Argilla-OpenOrca',
  hub: 'argilla/distilabel-intel-orca-dpo-pairs',
  files: 'data/train-*.parquet',
  columns: ['system', 'input', 'generations', 'rating'],
  attributes: [{ name: 'argilla-judge_lm', column: 'rating', scale: levels(1, 10) }],
  size: 13_000,
  licence: 'apache-2.0',
  assumed: [
    MIDDLES,
    'rating and generations are in one order, and JudgeLM rates from 1 to 10',
    'the system prompt is kept as a system turn',
  ],
  read: (record, all) => {
    const prompt = text(record, 'input')
    const system = field(record, 'system')
    const ratings = field(record, 'rating')
    if (ratings === null) throw new Unusable('no rating')
    const generations = texts(record, 'generations')
    if (!Array.isArray(ratings) || ratings.length !== generations.length) {
      throw new Unusable('ratings and generations of different numbers')
    }
    const asked = typeof system === 'string' && system.trim() !== '' ? [{ role: 'system', content: system }] : []
    return several([...generations.entries()], ([i, response]) => {
      if (response.trim() === '') throw new Unusable('an empty response')
      const turns = [...asked, { role: 'user', content: prompt }, { role: 'assistant', content: response }]
      return rated(asPair(turns) ?? { messages: turns }, all, () => ratings[i])
    })
  },
}

const MATH: AttributeSet = {
  kind: 'attributes',
  name: 'argilla-math',
  title: 'Argilla-Math-Preference',
  hub: 'argilla/distilabel-math-preference-dpo',
  files: 'data/train-*.parquet',
  columns: ['instruction', 'chosen_response', 'chosen_rating', 'rejected_response', 'rejected_rating'],
  attributes: [
    {
      name: 'ultrafeedback-instruction_following',
      column: 'chosen_rating, rejected_rating',
      scale: levels(1, 5),
    },
  ],
  size: 2_400,
  licence: 'apache-2.0',
  assumed: [
    MIDDLES,
    'ratings are from 1 to 5, the levels of the instruction-following task that made them; others are left out and counted',
  ],
  read: (record, all) => {
    const prompt = text(record, 'instruction')
    return several(['chosen', 'rejected'], (side) =>
      rated({ prompt, response: text(record, `${side}_response`) }, all, () => field(record, `${side}_rating`)),
    )
  },
}

/** All attributes in one set, already normalised, as the authors of ArmoRM merged them. */
const MERGED: AttributeSet = {
  kind: 'attributes',
  name: 'armorm',
  title: 'ArmoRM Multi-Objective Data v0.1',
  hub: 'RLHFlow/ArmoRM-Multi-Objective-Data-v0.1',
  files: 'data/train-*.parquet',
  columns: ['messages', ...ATTRIBUTES],
  attributes: ATTRIBUTES.map((name) => ({ name, column: name, scale: UNIT })),
  size: null,
  licence: null,
  assumed: ['labels are in [0, 1] already; others are left out and counted'],
  read: (record, all) => {
    const turns = messages(record, 'messages')
    return [rated(asPair(turns) ?? { messages: turns }, all, (at) => field(record, at.column))]
  },
}

/** The paper's eight, in its order. */
export const ATTRIBUTE_SETS: readonly AttributeSet[] = [
  HELPSTEER,
  ULTRAFEEDBACK,
  BEAVERTAILS,
  CODE,
  PROMETHEUS,
  CAPYBARA,
  OPENORCA,
  MATH,
]

/** Sets that repeat others, so that they are read only when they are named. */
export const MERGED_SETS: readonly AttributeSet[] = [MERGED]
