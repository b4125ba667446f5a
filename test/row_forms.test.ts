// The one reader of rows: forms of responses and of pairs, messages as Hugging Face writes them, long-form ratings, CSV, NaN.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { joinRatings } from '../src/data/long_ratings.ts'
import { type FileRecord, readRecords, recordsOf, streamRecords } from '../src/files/records.ts'
import { memorySource } from '../src/files/source.ts'
import { readFeatureRows } from '../src/reward/feature_files/rows.ts'
import { readRow } from '../src/reward/row_forms.ts'
import { checkMessages } from '../src/reward/rows.ts'
import { parseParts, partOf, splitKey, splitRecords } from '../src/reward/split.ts'
import { plainMessages } from '../src/text/messages.ts'
import { encodePreferenceRow } from '../src/train/preference_rows.ts'
import { fails } from './assert.ts'

const said = (role: string, content: unknown, more = {}) => ({ role, content, ...more })
const TURNS = [said('user', 'Hi?'), said('assistant', 'Hello!')]
const bytes = (text: string) => new TextEncoder().encode(text)

async function all(records: AsyncIterable<FileRecord>): Promise<unknown[]> {
  const found: unknown[] = []
  for await (const { value } of records) found.push(value)
  return found
}

test('responses in the words of TRL and OpenRLHF are the same row, and what else there is goes along', () => {
  const plain = { prompt: 'Hi?', response: 'Hello!' }
  const more = { id: 'a', source: 's', label: true, helpful: [1, null] }
  for (const own of [plain, { prompt: 'Hi?', completion: 'Hello!' }, { input: 'Hi?', output: 'Hello!' }]) {
    assert.equal(readRow({ ...own, ...more, messages: null }), {
      sides: [plain],
      isPair: false,
      rest: { ...more, ...('input' in own || 'completion' in own ? { messages: null } : { messages: null }) },
    })
  }
  for (const own of [
    { messages: TURNS },
    { prompt: [TURNS[0]], completion: [TURNS[1]] },
    { prompt: [TURNS[0]], response: 'Hello!' },
    { prompt: 'Hi?', completion: [TURNS[1]] },
    { completion: TURNS },
  ])
    assert.equal(readRow(own).sides, [{ messages: TURNS }], JSON.stringify(own))
  assert.equal(readRow({ messages: TURNS, prompt: 'Hi?', prompt_id: 'x' }), {
    sides: [{ messages: TURNS }],
    isPair: false,
    rest: { prompt: 'Hi?', prompt_id: 'x' },
  })
  // Two things to score: the model refuses them by name.
  assert.equal(readRow({ input_ids: [1], prompt: 'x' }).sides, [{ input_ids: [1], prompt: 'x' }])
  assert.equal(readRow({ input_ids: [1], attention_mask: [1] }).sides, [{ input_ids: [1], attention_mask: [1] }])
})

test('pairs without a prompt: conversations, dialogues as texts, and texts that begin alike', async () => {
  const sides = (row: Record<string, unknown>) => readRow(row).sides
  const no = [TURNS[0], said('assistant', 'No.')]
  const expected = [{ messages: TURNS }, { messages: no }]
  assert.equal(sides({ chosen: TURNS, rejected: no, margin: 1.5 }), expected)
  const hh = { chosen: '\n\nHuman: Hi?\n\nAssistant: Hello!', rejected: '\n\nHuman: Hi?\n\nAssistant: No.' }
  assert.equal(sides(hh), expected)
  assert.equal(sides({ chosen: 'Grass is mostly green.', rejected: 'Grass is mostly grey.' }), [
    { prompt: 'Grass is mostly', response: ' green.' },
    { prompt: 'Grass is mostly', response: ' grey.' },
  ])
  assert.equal(sides({ chosen: 'One two', rejected: 'One two three' }), [
    { prompt: 'One two', response: '' },
    { prompt: 'One two', response: ' three' },
  ])
  assert.equal(sides({ chosen_input_ids: [1, 2], rejected_input_ids: [1, 3] }), [
    { input_ids: [1, 2] },
    { input_ids: [1, 3] },
  ])
  assert.equal(readRow({ chosen: TURNS, rejected: no, margin: 1.5, id: 3 }).rest, { margin: 1.5, id: 3 })
  await fails(() => sides({ chosen: 'a', rejected: 'b' }), 'chosen is a text, so the row needs a "prompt", got nothing')
  // Nothing is dropped without a word.
  const { ignored } = await readFeatureRows(recordsOf([{ chosen: TURNS, rejected: no, margin: 1.5, score_chosen: 2 }]))
  assert.equal(ignored, ['margin', 'score_chosen'])
})

test('messages as Hugging Face writes them become plain ones, everywhere', async () => {
  const parts = [
    said(
      'user',
      [
        { type: 'text', text: 'Hi' },
        { type: 'text', text: '?' },
      ],
      { name: null, tool_calls: null },
    ),
    said('assistant', 'Hello!', { name: null }),
  ]
  assert.equal(checkMessages(parts, 'messages'), TURNS)
  assert.equal(plainMessages(TURNS), TURNS)
  assert.equal(readRow({ prompt: parts.slice(0, 1), completion: 'Hello!' }).sides, [{ messages: TURNS }])
  const ids = { chosen: parts, rejected: [parts[0], said('assistant', [{ type: 'image', url: 'x' }])] }
  const rules = { name: 'm', tokenizer: null, bos: 'template', vocab: 9, maxLength: 9 } as const
  await fails(() => encodePreferenceRow(ids, rules), /rejected\[1\]\.content must be a text, got \[\{"type":"image"/)
  await fails(
    () => checkMessages([said('tool', null, { tool_calls: [{}] })], 'messages'),
    'messages[0]: unknown field "tool_calls"',
  )
})

test('labels: true is 1, NaN is missing', async () => {
  const rows = await readFeatureRows(
    recordsOf([
      { prompt: 'a', completion: 'b', label: true, good: Number.NaN },
      { prompt: 'a', completion: 'c', label: false, good: [1, Number.NaN, null] },
    ]),
    { labels: ['label', 'good'] },
  )
  const none = Number.NaN
  assert.equal(
    rows.rows.map(({ labels }) => labels),
    [
      [[1, none]],
      [
        [0, 1],
        [none, none],
        [none, none],
      ],
    ],
  )
})

test('NaN for a value is null in rows of every file, and a part of a text or a word is not', async () => {
  const text = '{"a": NaN, "b": "NaN \\" NaN", "c": [1, NaN]}'
  const expected = [{ a: null, b: 'NaN " NaN', c: [1, null] }]
  assert.equal(await all(readRecords(memorySource('f', bytes(text)))), expected)
  assert.equal(await all(readRecords(memorySource('f', bytes(`[${text}]`)))), expected)
  for (const bad of ['{"a": -NaN}', '{"a": NaNs}', '{NaN: 1}'])
    await fails(() => all(readRecords(memorySource('f', bytes(bad)))), /^f line 1: not valid JSON/)
})

test('a stream may be a JSON list, in pieces', async () => {
  async function* pieces() {
    for (const piece of [' \n', '[{"a"', ': 1}, ', '{"a": 2}]\n']) yield bytes(piece)
  }
  assert.equal(await all(streamRecords(pieces(), 's')), [{ a: 1 }, { a: 2 }])
})

test('CSV rows: quotes, numbers, lists, missing cells, and what is none', async () => {
  const read = (text: string, name = 'f.csv') => all(readRecords(memorySource(name, bytes(text))))
  const text =
    '\ufeffprompt,response,helpful,tags,id\r\n"How, was\nit?","A ""fine"" one",3.5e0,"[1, 2]",07\r\n\r\n12,x,NA,,8\r\n'
  const expected = [
    { prompt: 'How, was\nit?', response: 'A "fine" one', helpful: 3.5, tags: [1, 2], id: '07' },
    { prompt: '12', response: 'x', helpful: null, tags: null, id: '8' },
  ]
  assert.equal(await read(text), expected)
  assert.equal(await read('prompt\tresponse\nA, b\tc', 'f.tsv'), [{ prompt: 'A, b', response: 'c' }])
  await fails(() => read('a,b\n1\n'), 'f.csv line 2: must have 2 cells like the header, got 1')
  await fails(() => read('a,a\n'), 'f.csv: the header must be different names that are not empty, got "a" among 2')
  await fails(() => read('a\n"x'), 'f.csv line 2: a quote is open at the end of the file')
  await fails(() => read('a\n"x"y\n'), 'f.csv line 2: a quote must end its cell, "y" follows it')
  await fails(() => read(''), 'f.csv: is empty; it must begin with a line of column names')
})

test('ratings in long form come together, by rater, with the texts in the rows or in rows of their own', async () => {
  async function* rows(...values: Record<string, unknown>[]) {
    yield* recordsOf(values)
  }
  const inline = rows(
    { item: 1, rater: 'a', rating: 3, prompt: 'p', response: 'x' },
    { item: 2, rater: 'a', rating: 1, prompt: 'p', response: 'y' },
    { item: 1, rater: 'b', rating: null, prompt: 'p', response: 'x' },
  )
  assert.equal(await all(joinRatings([inline])), [
    { prompt: 'p', response: 'x', id: '1', rating: [3, null] },
    { prompt: 'p', response: 'y', id: '2', rating: [1] },
  ])
  const texts = () => rows({ id: 'i', prompt: 'p', response: 'x' }, { id: 'j', prompt: 'p', response: 'y' })
  const long = rows(
    { item: 'j', rater: 1, attribute: 'kind', rating: 4 },
    { item: 'j', rater: 2, attribute: 'dull', rating: 1 },
    { item: 'j', rater: 1, attribute: 'dull', rating: 2 },
    { item: 'j', rater: 1, attribute: 'kind', rating: 5 },
  )
  assert.equal(await all(joinRatings([texts(), long])), [
    { id: 'j', prompt: 'p', response: 'y', kind: [4, null, 5], dull: [2, 1, null] },
  ])
  const wide = rows({ item: 'i', rater: 1, kind: 4, dull: 2 }, { item: 'i', rater: 2, kind: 3, dull: null })
  assert.equal(await all(joinRatings([wide, texts()])), [
    { id: 'i', prompt: 'p', response: 'x', kind: [4, 3], dull: [2, null] },
  ])
  assert.equal((await all(joinRatings([texts(), texts()]))).length, 4, 'other rows go through as they are')
  await fails(
    () => all(joinRatings([rows({ item: 'z', rating: 1 })])),
    'row 1: there is no text of item "z"; give it in its rows, or rows with this "id"',
  )
  await fails(
    () => all(joinRatings([rows({ item: 'z', rating: 'x', prompt: 'p' })])),
    'row 1: rating must be a number or null, got "x"',
  )
})

test('parts by a hash: a text is always in one, shares are about right, pairs go by their prompts', async () => {
  const parts = parseParts('fit:0.6,calibrate:0.2,test:0.2')
  const records = [...recordsOf(Array.from({ length: 3000 }, (_, i) => ({ prompt: 'p', response: `r${i % 2500}` })))]
  const made = splitRecords(records, parts, { seed: 3 })
  assert.equal(made.flat().length, 3000)
  const texts = made.map((some) => new Set(some.map(({ value }) => value.response)))
  assert.is(
    texts.reduce((sum, { size }) => sum + size, 0),
    2500,
  )
  // Three standard deviations of a share of 2,500.
  for (const [i, { size }] of texts.entries()) assert.ok(Math.abs(size / 2500 - parts[i].share) < 0.03, `${size}`)
  const other = splitRecords(records.slice(0, 10), parts, { seed: 3 })
  for (const [i, some] of other.entries()) for (const record of some) assert.ok(made[i].includes(record))
  const key = splitKey({ prompt: 'p', chosen: 'a', rejected: 'b' })
  assert.is(key, splitKey({ prompt: 'p', chosen: 'c', rejected: 'd' }))
  assert.is(key, splitKey({ prompt: 'p', response: 'x' }, 'prompt'))
  assert.is(
    splitKey({ prompt: 'p', response: 'x' }),
    splitKey({ messages: [said('user', 'p'), said('assistant', 'x')] }),
  )
  assert.is(partOf(key, [{ name: 'all', share: 1 }], 0), 0)
  for (const [text, message] of [
    ['a:0.5', 'the shares must add up to 1, got 0.5'],
    ['a:0.5,a:0.5', 'the part "a" is there twice'],
    ['a', 'must be NAME:SHARE with commas, as fit:0.6,calibrate:0.2,test:0.2, got "a"'],
    ['../a:1', 'must be NAME:SHARE with commas, as fit:0.6,calibrate:0.2,test:0.2, got "../a:1"'],
  ] as const)
    await fails(() => parseParts(text), message)
})

test.run()
