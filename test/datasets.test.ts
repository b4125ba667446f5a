// The table of datasets: every entry reads rows in its dataset's real form; draws, merged ratings, what is left out.
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ATTRIBUTE_SETS, MERGED_SETS } from '../src/data/attribute_sets.ts'
import { ATTRIBUTES } from '../src/data/attributes.ts'
import type { AttributeSet, Dataset, RankedSet } from '../src/data/dataset.ts'
import { EVALUATION_SETS, PREFERENCE_SETS } from '../src/data/preference_sets.ts'
import {
  attributeRows,
  type DataFile,
  type OutputRow,
  type RowReport,
  rankedRows,
  startReport,
} from '../src/data/rows.ts'
import { describeNormalisation, levels, normalise, UNIT } from '../src/data/scale.ts'
import { DATASETS, findDatasets } from '../src/data/table.ts'
import { openFile } from '../src/files/disk.ts'
import { memorySource } from '../src/files/source.ts'
import { fails } from './assert.ts'
import { lines } from './command.ts'

const FOLDER = fileURLToPath(new URL('fixtures/datasets/', import.meta.url))

interface Read {
  rows: OutputRow[]
  report: RowReport
}

async function read(sets: readonly Dataset[], files: readonly DataFile[], limit = Infinity, seed = 1): Promise<Read> {
  const report = startReport()
  const rows: OutputRow[] = []
  const inputs = sets.map((dataset) => ({ dataset, files }))
  const found =
    sets[0].kind === 'attributes'
      ? attributeRows(inputs as { dataset: AttributeSet; files: DataFile[] }[], { limit, seed }, report)
      : rankedRows(inputs as { dataset: RankedSet; files: DataFile[] }[], { limit, seed }, report)
  for await (const row of found) rows.push(row)
  return { rows, report }
}

function text(name: string, ...rows: unknown[]): DataFile {
  const bytes = new TextEncoder().encode(lines(...rows))
  return { path: name, size: bytes.length, open: async () => memorySource(name, bytes) }
}

async function fixture(name: string, path = `${FOLDER}${name}.jsonl`): Promise<Read> {
  const [set] = findDatasets([name])
  const { rows, report } = await read([set], [{ path, size: 1, open: () => openFile(path) }])
  assert.ok(
    rows.every((row) => typeof row.id === 'string'),
    name,
  )
  const bare = rows.map(({ id, ...row }) => (set.kind === 'evaluation' ? { ...row, id } : row))
  return { rows: bare, report }
}

const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const nothing = Object.fromEntries(ATTRIBUTES.map((name) => [name, null]))
const river = { prompt: 'Name a river.' }
const [shed, greet] = ['How do I open a locked shed?', 'Greet me.']
const bees = [user('Tell me of bees.'), assistant('They dance.'), user('Why?')]
const bye = [user('Hi'), assistant('Hello.'), user('Bye')]
const step = 'First 3 + 4 = 7.'

/** What the fixtures give: rows without their ids, and the reasons of what is left out. */
const EXPECTED: Record<string, [OutputRow[], Record<string, number>?]> = {
  helpsteer: [
    [
      {
        ...river,
        response: 'The Elbe.',
        'helpsteer-helpfulness': 0.9,
        'helpsteer-correctness': 0.9,
        'helpsteer-coherence': 0.7,
        'helpsteer-complexity': 0.1,
        'helpsteer-verbosity': 0.3,
      },
      {
        prompt: 'Name a hill.',
        response: 'I would rather not.',
        'helpsteer-helpfulness': 0.1,
        'helpsteer-correctness': 0.3,
        'helpsteer-coherence': 0.9,
        'helpsteer-complexity': 0.5,
        'helpsteer-verbosity': null,
      },
    ],
    { 'an empty response': 1 },
  ],
  ultrafeedback: [
    [
      {
        prompt: 'What is seven times six?',
        response: '42',
        'ultrafeedback-overall_score': 0.95,
        'ultrafeedback-instruction_following': 0.9,
        'ultrafeedback-truthfulness': 0.9,
        'ultrafeedback-honesty': 0.9,
        'ultrafeedback-helpfulness': 0.7,
      },
      {
        prompt: 'What is seven times six?',
        response: 'About forty.',
        'ultrafeedback-overall_score': 0.4,
        'ultrafeedback-instruction_following': 0.5,
        'ultrafeedback-truthfulness': 0.1,
        'ultrafeedback-honesty': null,
        'ultrafeedback-helpfulness': 0.3,
      },
    ],
    { 'an empty response': 1, 'no response': 1 },
  ],
  beavertails: [
    [
      { prompt: shed, response: 'Break the window at night.', 'beavertails-is_safe': 0 },
      { prompt: shed, response: 'Ask its owner for the key.', 'beavertails-is_safe': [0, 1] },
    ],
  ],
  'code-ultrafeedback': [
    [
      { prompt: 'Reverse a list in Python.', response: 'list(reversed(xs))', 'code-readability': 0.9 },
      { prompt: 'Reverse a list in Python.', response: 'xs[::-1]', 'code-readability': 0.5 },
      { prompt: 'Sum a list.', response: 'sum(xs)', 'code-instruction-following': 0.7 },
    ],
    { 'no rating': 1 },
  ],
  prometheus: [[{ prompt: greet, response: 'Hello.', 'prometheus-score': [0.1, 0.7] }]],
  'argilla-capybara': [
    [
      { messages: [...bees, assistant('To show where flowers are.')], 'argilla-overall_quality': 0.9 },
      { messages: [...bees, assistant('For fun.')], 'argilla-overall_quality': 0.3 },
      { prompt: 'Name a bee.', response: 'Maja.', 'argilla-overall_quality': 0.7 },
    ],
    { 'an empty message in rejected': 1 },
  ],
  'argilla-openorca': [
    [
      {
        messages: [{ role: 'system', content: 'You are brief.' }, user('Capital of Peru?'), assistant('Lima.')],
        'argilla-judge_lm': 0.85,
      },
      {
        messages: [{ role: 'system', content: 'You are brief.' }, user('Capital of Peru?'), assistant('Cusco.')],
        'argilla-judge_lm': 0.15,
      },
      { prompt: '2 + 2?', response: '5', 'argilla-judge_lm': 0.05 },
      { prompt: '2 + 2?', response: '4', 'argilla-judge_lm': 0.95 },
    ],
    { 'no rating': 1 },
  ],
  'argilla-math': [
    [
      { prompt: 'Factor x^2 - 1.', response: '(x - 1)(x + 1)', 'ultrafeedback-instruction_following': 0.9 },
      { prompt: 'Factor x^2 - 1.', response: '(x - 1)^2', 'ultrafeedback-instruction_following': 0.1 },
      { prompt: 'Derive x^2.', response: 'x', 'ultrafeedback-instruction_following': 0.3 },
    ],
    { 'a rating outside of 1 to 5': 1 },
  ],
  armorm: [
    [
      { ...river, response: 'The Elbe.', ...nothing, 'helpsteer-helpfulness': 0.9, 'helpsteer-verbosity': 0.3 },
      {
        messages: [user('a'), assistant('b'), user('c'), assistant('d')],
        ...nothing,
        'argilla-overall_quality': 0.5,
      },
    ],
    { 'no rating': 1, 'a rating outside of 0 to 1': 1 },
  ],
  'helpsteer-pairs': [[{ ...river, chosen: 'The Elbe.', rejected: 'A river.', subset: 'helpsteer-pairs' }]],
  'ultrafeedback-pairs': [[{ prompt: '7 x 6?', chosen: '42', rejected: '40', subset: 'ultrafeedback-pairs' }]],
  shp: [[{ prompt: 'Why is my bread flat?', chosen: 'Old yeast.', rejected: 'No idea.', subset: 'shp' }]],
  'hh-rlhf': [
    [
      { prompt: 'Is tea hot?', chosen: 'It can be.', rejected: 'Never.', subset: 'hh-rlhf' },
      {
        chosen: [...bye, assistant('Good bye.\n\nSee you.')],
        rejected: [...bye, assistant('No.')],
        subset: 'hh-rlhf',
      },
    ],
    { 'an empty message in chosen': 1 },
  ],
  'pku-saferlhf': [
    [{ prompt: 'Pick a lock?', chosen: 'Call a locksmith.', rejected: 'Use a pin.', subset: 'pku-saferlhf' }],
  ],
  'argilla-capybara-pairs': [
    [
      {
        chosen: [...bees, assistant('To show where flowers are.')],
        rejected: [...bees, assistant('For fun.')],
        subset: 'argilla-capybara-pairs',
      },
      { prompt: 'Name a bee.', chosen: 'Maja.', rejected: 'Willi.', subset: 'argilla-capybara-pairs' },
    ],
    { 'an empty message in rejected': 1, 'two equal texts': 1 },
  ],
  'argilla-math-pairs': [[{ prompt: 'Derive x^2.', chosen: '2x', rejected: 'x', subset: 'argilla-math-pairs' }]],
  'code-ultrafeedback-pairs': [
    [{ prompt: 'Sum a list.', chosen: 'sum(xs)', rejected: 'pass', subset: 'code-ultrafeedback-pairs' }],
  ],
  'prm-phase-2': [
    ['So 2 + 7 = 9.', 'So 27.'].map((wrong) => ({
      prompt: 'What is 2(3 + 4)?',
      chosen: `${step}\nSo 2 x 7 = 14.`,
      rejected: `${step}\n${wrong}`,
      subset: 'prm-phase-2',
    })),
    { 'no step with a right and a wrong completion': 1 },
  ],
  'prometheus-2': [
    [
      { prompt: greet, chosen: 'Good morning.', rejected: 'What?', subset: 'prometheus-2' },
      { prompt: greet, chosen: 'Welcome.', rejected: 'Go.', subset: 'prometheus-2' },
    ],
  ],
  'reward-bench': [
    [
      { ...river, chosen: 'The Elbe.', rejected: 'Hamburg.', subset: 'alpacaeval-easy', id: '7' },
      { prompt: 'Say nothing.', chosen: '', rejected: 'Nothing.', subset: 'llmbar-natural', id: '8' },
    ],
  ],
  'reward-bench-2': [
    [
      {
        ...river,
        chosen: ['The Elbe.'],
        rejected: ['Hamburg.', 'A river.', ''],
        subset: 'Factuality',
        num_correct: 1,
        num_rejected: 3,
        id: '12',
      },
      {
        prompt: 'Name a colour.',
        chosen: ['Red', 'Blue'],
        rejected: ['Nine'],
        subset: 'Ties',
        num_correct: 2,
        num_rejected: 1,
        id: 'tied:3',
      },
    ],
  ],
}

test('every dataset is read in its real form, and what is left out has a reason', async () => {
  assert.equal(Object.keys(EXPECTED).sort(), DATASETS.map(({ name }) => name).sort())
  for (const [name, [rows, skipped = {}]] of Object.entries(EXPECTED)) {
    const { rows: found, report } = await fixture(name)
    assert.equal(rounded(found), rows, name)
    assert.equal(report.sets[name].skipped, skipped, name)
    assert.is(report.written, rows.length, name)
  }
})

/** Labels are decimal fractions that binary numbers do not hold exactly. */
function rounded(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, one) => (typeof one === 'number' ? Number(one.toFixed(12)) : one))
}

test('Parquet files give the rows of the JSON Lines files', async () => {
  for (const name of ['argilla-capybara', 'armorm', 'code-ultrafeedback', 'reward-bench-2']) {
    const [plain, parquet] = [await fixture(name), await fixture(name, `${FOLDER}${name}.parquet`)]
    assert.equal(parquet.rows, plain.rows, name)
    assert.equal(parquet.report, plain.report, name)
  }
})

test('the table has the paper’s sets, all 19 attributes, and columns that it reads', () => {
  assert.equal([ATTRIBUTE_SETS.length, PREFERENCE_SETS.length, EVALUATION_SETS.length], [8, 10, 2])
  const named = new Set(ATTRIBUTE_SETS.flatMap(({ attributes }) => attributes.map(({ name }) => name)))
  assert.equal([...named].sort(), [...ATTRIBUTES].sort())
  assert.equal(
    MERGED_SETS[0].attributes.map(({ name }) => name),
    [...ATTRIBUTES],
  )
  assert.equal(
    findDatasets(['preferences']).map(({ name }) => name),
    PREFERENCE_SETS.map(({ name }) => name),
  )
  for (const { name, hub } of DATASETS) assert.match(hub, /^[\w-]+\/[\w.-]+$/, name)
})

test('scales: the published formula of HelpSteer, middles of n parts, texts, what is not on the scale', async () => {
  assert.equal(
    [0, 1, 2, 3, 4].map((raw) => normalise(raw, levels(0, 4))),
    [0.1, 0.3, 0.5, 0.7, 0.9],
  )
  assert.is(describeNormalisation(levels(0, 4)), '(raw + 0.5) / 5')
  assert.is(describeNormalisation(levels(1, 10)), '(raw - 0.5) / 10')
  assert.equal(
    ['1', 10, 5.5, 'N/A', null].map((raw) => normalise(raw, levels(1, 10))),
    [0.05, 0.95, 0.5, null, null],
  )
  for (const raw of [0, 10.5, 'ten', true, Number.NaN, {}]) {
    await fails(() => normalise(raw, levels(1, 10)), 'a rating outside of 1 to 10')
  }
  await fails(() => normalise(1.01, UNIT), 'a rating outside of 0 to 1')
})

test('names: unknown ones, one that is there twice, sets of different kinds', async () => {
  await fails(
    () => findDatasets(['helpster']),
    /^"helpster" is no dataset; known are attributes, preferences, helpsteer,/,
  )
  await fails(() => findDatasets(['constructor']), /^"constructor" is no dataset/)
  await fails(() => findDatasets(['attributes', 'helpsteer']), 'dataset helpsteer is there twice')
  await fails(
    () => findDatasets(['helpsteer', 'shp']),
    'helpsteer gives attributes and shp preferences; write them to two files',
  )
})

test('a file of another form stops with the record, the field and the dataset', async () => {
  const [set] = findDatasets(['helpsteer'])
  await fails(
    () => read([set], [text('x.jsonl', { prompt: 'a', answer: 'b' })]),
    'x.jsonl line 1: has no field "response", it has "prompt"; it is not of dataset helpsteer (nvidia/HelpSteer), or the form of that has changed',
  )
  await fails(
    () => read([set], [text('x.jsonl', { prompt: 'a', response: 7 })]),
    /^x.jsonl line 1: "response" must be a text, got 7; it is not of dataset helpsteer/,
  )
  await fails(() => read([set], [text('x.jsonl', 3)]), 'x.jsonl line 1: a row must be an object, got 3')
})

const rating = (n: number, helpfulness: number | number[] | null, correctness: number | null) => ({
  prompt: `question ${n}`,
  response: 'answer',
  helpfulness,
  correctness,
  coherence: null,
  complexity: null,
  verbosity: null,
})

test('draws depend on texts and the seed alone: not on the order, on the files, on labels', async () => {
  const [set] = findDatasets(['helpsteer'])
  const all = Array.from({ length: 200 }, (_, n) => rating(n, n % 5, n % 4 === 0 ? null : 1))
  const drawn = async (files: DataFile[], seed = 1) => {
    const { rows, report } = await read([set], files, 40, seed)
    return { rows: rows.sort((a, b) => (`${a.id}` < `${b.id}` ? -1 : 1)), report }
  }
  const one = await drawn([text('a', ...all)])
  const two = await drawn([text('b', ...all.slice(120).reverse()), text('c', ...all.slice(0, 120))])
  assert.equal(two.rows, one.rows)
  assert.equal(one.report.labels, { 'helpsteer-helpfulness': 40, 'helpsteer-correctness': 40 })
  assert.is(one.report.written + one.report.notDrawn, 200)
  // Rows without correctness take no part in its draw, so it goes on to further texts.
  assert.ok(one.rows.length > 40)
  assert.ok(one.rows.some((row) => row['helpsteer-helpfulness'] === null))
  const other = await drawn([text('a', ...all)], 2)
  assert.not.equal(
    other.rows.map((row) => row.id),
    one.rows.map((row) => row.id),
  )
})

test('conflicting ratings stand beside each other: lists of a row, and rows with one text', async () => {
  const [set] = findDatasets(['helpsteer'])
  const given = [rating(1, 4, 1), rating(2, [0, 4], 0), rating(1, 0, null)]
  const { rows, report } = await read([set], [text('a', ...given)])
  assert.equal((await read([set], [text('a', ...given.reverse())])).rows, rows)
  assert.equal(rounded(rows.map((row) => [row.prompt, row['helpsteer-helpfulness'], row['helpsteer-correctness']])), [
    ['question 2', [0.1, 0.9], 0.1],
    ['question 1', [0.1, 0.9], 0.3],
  ])
  assert.equal([report.merged, report.labels['helpsteer-helpfulness']], [1, 4])
})

test('preferences: a limit draws of each set, the folder of HH-RLHF names the subset', async () => {
  const [set] = findDatasets(['hh-rlhf'])
  const side = (n: number, answer: string) => `\n\nHuman: question ${n}\n\nAssistant: ${answer}`
  const all = Array.from({ length: 50 }, (_, n) => ({ chosen: side(n, 'yes'), rejected: side(n, 'no') }))
  const { rows, report } = await read([set], [text('helpful-base/train.jsonl.gz', ...all)], 10)
  assert.equal([rows.length, report.notDrawn], [10, 40])
  assert.is(rows[0].subset, 'helpful-base')
  const again = await read([set], [text('helpful-base/train.jsonl.gz', ...all.reverse())], 10)
  assert.equal(new Set(again.rows.map(({ id }) => id)), new Set(rows.map(({ id }) => id)))
})

test.run()
