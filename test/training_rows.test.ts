// Rows of fine-tuning against TRL, what of a conversation is learned, what is refused or dropped, and packing.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDirectory } from '../src/files/disk.ts'
import { readRecords } from '../src/files/records.ts'
import { memorySource } from '../src/files/source.ts'
import type { Message } from '../src/text/chat.ts'
import { loadTokenizer, type Tokenizer } from '../src/text/tokenizer.ts'
import { packBestFit } from '../src/train/packing.ts'
import { encodePreferenceRow, encodePreferenceRows } from '../src/train/preference_rows.ts'
import { encodeSftRow, encodeSftRows, type SftRules } from '../src/train/sft_rows.ts'
import { fails } from './assert.ts'

interface Recorded {
  readonly sft: (Record<string, unknown> & { input_ids: number[]; labels: number[] })[]
  readonly assistant: Recorded['sft']
  readonly pairs: (Record<string, unknown> & { tokens: number[][] })[]
  readonly packing: { lengths: number[]; capacity: number; bins: number[][] }[]
}

const recorded = JSON.parse(readFileSync(new URL('./fixtures/training_rows.json', import.meta.url), 'utf8')) as Recorded
const nano = (await loadTokenizer(await openDirectory(fileURLToPath(new URL('../models/nano', import.meta.url)))))!
const rules: SftRules = {
  name: 'nano',
  tokenizer: nano,
  bos: 'template',
  vocab: 4096,
  maxLength: 64,
  loss: 'completion',
}
const all: SftRules = { ...rules, loss: 'all' }

/** A row without what was recorded of it. */
const given = ({ input_ids: _, labels: __, ...row }: Record<string, unknown>) => row
const learned = (row: unknown, own: SftRules = rules) => {
  const { tokens, labels } = encodeSftRow(row, own)
  for (const [t, label] of labels.entries()) assert.ok(label === -100 || label === tokens[t])
  return nano.decode(Array.from(labels).filter((label) => label !== -100))
}
const say = (...turns: string[]): Message[] =>
  turns.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }))
const withTemplate = (template: string | null, specialTokens = nano.specialTokens): SftRules => ({
  ...rules,
  tokenizer: { ...nano, chatTemplate: template, specialTokens } as Tokenizer,
})

test('prompts with completions give the tokens and labels of TRL, as do conversations that are learned whole', () => {
  assert.ok(recorded.sft.length === 16)
  for (const row of recorded.sft) {
    const { tokens, labels } = encodeSftRow(given(row), 'messages' in row ? all : rules)
    assert.equal([...tokens], row.input_ids, JSON.stringify(given(row)))
    assert.equal([...labels], row.labels, JSON.stringify(given(row)))
  }
})

test("the assistant's messages are those that a template with marks would name", () => {
  assert.ok(recorded.assistant.length === 4)
  for (const row of recorded.assistant) {
    const { tokens, labels } = encodeSftRow(given(row), rules)
    assert.equal([...tokens], row.input_ids)
    assert.equal([...labels], row.labels, JSON.stringify(given(row)))
  }
})

test('every form of a row is learned from where the answer begins', () => {
  assert.is(learned({ prompt: 'Hi', response: 'Hello' }), 'Hello<|eot_id|>')
  assert.is(learned({ prompt: say('Hi', 'Hello', 'And?'), response: 'Bye' }), 'Bye<|eot_id|>')
  assert.is(learned({ messages: say('Hi', 'Hello', 'And?', 'Bye') }), 'Hello<|eot_id|>Bye<|eot_id|>')
  assert.is(learned({ messages: say('Hi', '') }), '<|eot_id|>', 'an empty answer keeps its end of turn')
  assert.is(learned({ prompt: 'Hi', response: '' }), '<|eot_id|>')
  assert.is(learned({ prompt: 'Hi', completion: '' }), '<|eot_id|>')
  assert.is(
    learned({ prompt: 'Hi<|eot_id|>', completion: '' }),
    '<|eot_id|>',
    'the end of the prompt is not that of the completion',
  )
  assert.is(
    learned({ chosen: '\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant: Bye', rejected: 'x' }),
    'Hello<|eot_id|>Bye<|eot_id|>',
  )
  assert.is(learned({ chosen: '\n\nHuman: Hi\n\nAssistant:' }), '<|eot_id|>')
  assert.is(learned({ chosen: say('Hi', 'Hello') }), 'Hello<|eot_id|>')
  assert.is(
    learned({ prompt: 'Hi', messages: say('Hi', 'Hello'), chosen: null, id: 7 }),
    'Hello<|eot_id|>',
    'other fields are passed over',
  )
  assert.ok(learned({ prompt: 'Hi', response: 'Hello' }, all).startsWith('<|begin_of_text|><|start_header_id|>user'))
  const { tokens, labels } = encodeSftRow(
    { input_ids: [5, 6, 7], labels: [-100, 9, -100] },
    { ...rules, tokenizer: null },
  )
  assert.equal(
    [[...tokens], [...labels]],
    [
      [5, 6, 7],
      [-100, 9, -100],
    ],
  )
  assert.equal([...encodeSftRow({ input_ids: [5, 6], labels: null }, all).labels], [5, 6])
  assert.equal(
    [...encodeSftRow({ prompt: 'Hi', response: 'Yo' }, { ...rules, bos: 'none' }).tokens].includes(nano.bos!),
    false,
  )
})

test('what a template gives is learned, whether it ends in EOS or not', () => {
  const chatml =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
  assert.is(learned({ messages: say('Hi', 'Hello', 'x', 'y') }, withTemplate(chatml)), 'Hello<|im_end|>\ny<|im_end|>\n')
  assert.is(
    learned({ messages: say('Hi', 'Hello', 'x', 'y') }, { ...rules, bos: 'none' }),
    'Hello<|eot_id|>y<|eot_id|>',
  )
  // Without a generation prompt, what announces the assistant is learned too.
  const bare = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
  assert.match(learned({ messages: say('Hi', 'Hello') }, withTemplate(bare)), /assistant\]Hello$/)
})

test('a token across the border of plain text belongs to what comes after it', () => {
  const plain =
    "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
  const own = withTemplate(plain)
  for (const content of [' hello there', '\n\nhello', ':) yes']) {
    const messages = say('Hi', content, '\n\nmore', 'ok')
    const text = `u:Hi\na:${content}\nu:\n\nmore\na:ok\n`
    const { tokens, labels } = encodeSftRow({ messages }, own)
    assert.is(nano.decode(tokens), text)
    // Every token is learned that begins inside an answer; those before the answer end before it.
    const spans = [
      [7, 8 + content.length],
      [text.length - 3, text.length],
    ]
    for (const [t, label] of labels.entries()) {
      const end = nano.decode(tokens.subarray(0, t + 1)).length
      const begin = nano.decode(tokens.subarray(0, t)).length
      const inside = spans.some(([from, to]) => end > from && end <= to)
      assert.is(label !== -100, inside, `${JSON.stringify(content)}: token ${t} of characters ${begin} to ${end}`)
    }
  }
})

test('a template that renders the beginning in another way is refused', () => {
  const last =
    "{% for m in messages %}{{ '[' + m['role'] + ']' }}{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
  assert.is(learned({ messages: say('Hi', 'Hello') }, withTemplate(last)), 'Hello')
  assert.throws(
    () => encodeSftRow({ messages: say('Hi', 'Hello', 'x', 'y') }, withTemplate(last)),
    /^[^\n]*the chat template renders the first 2 messages in another way than at the beginning of all 4, .*--loss all$/,
  )
  assert.ok(encodeSftRow({ messages: say('Hi', 'Hello', 'x', 'y') }, { ...withTemplate(last), loss: 'all' }))
})

test('rows that cannot be learned are errors that say why', () => {
  for (const [row, message, own] of [
    [
      {},
      'a row needs "messages", "prompt" with "completion" or "response", "chosen", or "input_ids" with "labels", got none',
    ],
    [[], 'a row must be an object, got []'],
    [{ text: 'x' }, /got "text"$/],
    [{ prompt: 'a', completion: 'b', response: 'c' }, /not both$/],
    [{ prompt: 'a', completion: say('b', 'c') }, /two texts or two lists of messages/],
    [{ completion: 'b' }, /two texts or two lists of messages, got nothing and "b"/],
    [{ prompt: 'a', response: 5 }, 'response must be a text, got 5'],
    [{ response: 'a' }, /prompt must be a list of at least one message/],
    [{ messages: say('only the user') }, 'messages must end with role "assistant", got "user"'],
    [{ prompt: say('a'), completion: say('a') }, 'completion must end with role "assistant", got "user"'],
    [{ chosen: 'no turns' }, /chosen must be a text of "Human:" and "Assistant:" turns/],
    [{ chosen: '\n\nHuman: a' }, 'chosen must end with role "assistant", got "user"'],
    [{ messages: [{ role: 'user', content: null }] }, 'messages[0].content must be a text, got null'],
    [{ messages: [{ role: 'user', content: 'a', name: 'b' }] }, 'messages[0]: unknown field "name"'],
    [{ input_ids: [1, 2] }, 'a row with "input_ids" needs "labels" (-100 = not learned), or --loss all'],
    [{ input_ids: [1, 2], labels: [1] }, 'labels must be as many as input_ids, 2, got 1'],
    [
      { input_ids: [1, 2], labels: [1, 4096] },
      'labels[1] must be -100 or a whole number from 0 to 4095 (vocab_size), got 4096',
    ],
    [{ input_ids: [1, 2], labels: [1, -1] }, /^labels\[1\] must be -100/],
    [
      { input_ids: [1, 4096], labels: [1, 2] },
      'input_ids[1] must be a whole number from 0 to 4095 (vocab_size), got 4096',
    ],
    [{ input_ids: [], labels: [] }, /^input_ids must be a list of at least one token id/],
    [{ input_ids: [1, 2], labels: [-100, -100] }, /^nothing can be learned/],
    [{ input_ids: [1, 2], labels: [1, -100] }, /^nothing can be learned/],
    [{ input_ids: [1] }, /^nothing can be learned/, all],
    [
      { prompt: 'a', response: 'b' },
      'nano has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"',
      { ...rules, tokenizer: null },
    ],
    [{ prompt: 'a', response: 'b' }, /has no chat template/, withTemplate(null)],
    [{ prompt: 'a', completion: 'b' }, /plain texts end with eos_token/, withTemplate(nano.chatTemplate, {})],
    [{ prompt: 'a', response: 'b' }, /vocab_size/, { ...rules, vocab: 4000 }],
  ] as [unknown, string | RegExp, SftRules?][]) {
    assert.throws(
      () => encodeSftRow(row, own ?? rules),
      (error: Error) => (typeof message === 'string' ? error.message === message : message.test(error.message)),
      JSON.stringify(row),
    )
  }
})

const records = (...rows: unknown[]) =>
  readRecords(
    memorySource('rows.jsonl', new TextEncoder().encode(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))),
  )

test('rows over the limit are dropped and counted, and an error names the row', async () => {
  const short = { prompt: 'Hi', response: 'Hello' }
  const { length } = encodeSftRow(short, rules).tokens
  const long = { prompt: 'Hi', response: 'Hello and more' }
  const own = { ...rules, maxLength: length }
  const { rows, dropped } = await encodeSftRows(records(short, long, short), own)
  assert.equal([rows.length, dropped], [2, 1])
  await fails(() => encodeSftRows(records(short, { prompt: 'x' }), own), /^rows\.jsonl line 2: a row needs/)
  await fails(
    () => encodeSftRows(records(long, long), own),
    `nothing to train on: all 2 rows have more than ${length} tokens (the first is rows.jsonl line 1)`,
  )
  await fails(() => encodeSftRows(records(), own), /nothing to train on: there are no rows/)
  const pair = { prompt: 'Hi', chosen: 'Hello', rejected: 'Hello' }
  const found = await encodePreferenceRows(
    records(pair, { ...pair, rejected: 'Hello and more' }, { ...pair, chosen: 'Hello and more' }),
    own,
  )
  assert.equal([found.rows.length, found.dropped], [1, 2])
  await fails(
    () => encodePreferenceRows(records(pair, { ...pair, margin: 'x' }), own),
    'rows.jsonl line 2: margin must be a number, got "x"',
  )
})

test('pairs give the tokens of TRL', () => {
  assert.ok(recorded.pairs.length === 3)
  for (const { tokens, ...row } of recorded.pairs) {
    const { chosen, rejected, margin } = encodePreferenceRow(row, rules)
    assert.equal([[...chosen], [...rejected]], tokens, JSON.stringify(row))
    assert.is(margin, 0)
  }
})

test('pairs in all their forms are the same pair', () => {
  const expected = encodePreferenceRow({ chosen: say('Hi', 'Hello'), rejected: say('Hi', 'No') }, rules)
  for (const row of [
    { prompt: 'Hi', chosen: 'Hello', rejected: 'No' },
    { prompt: say('Hi'), chosen: 'Hello', rejected: 'No' },
    { prompt: say('Hi'), chosen: say('Hi', 'Hello'), rejected: say('Hi', 'No') },
    { prompt: 'Hi', chosen: say('Hi', 'Hello').slice(1), rejected: say('Hi', 'No').slice(1) },
    { chosen: '\n\nHuman: Hi\n\nAssistant: Hello', rejected: '\n\nHuman: Hi\n\nAssistant: No' },
    { chosen_input_ids: [...expected.chosen], rejected_input_ids: [...expected.rejected] },
    { chosen_ids: [...expected.chosen], rejected_ids: [...expected.rejected] },
  ])
    assert.equal(encodePreferenceRow({ ...row, margin: null }, rules), expected, JSON.stringify(row))
  assert.is(encodePreferenceRow({ chosen: 'a', rejected: 'b', margin: 1.5 }, rules).margin, 1.5)
  for (const [row, message] of [
    [{ chosen: 'a' }, /^a pair needs "chosen" and "rejected"/],
    [{ prompt: 'a', completion: 'b', label: true }, /got "prompt", "completion", "label"$/],
    [{ chosen: 'a', rejected: say('a', 'b') }, /both be conversations or both be plain texts/],
    [{ chosen: '\n\nHuman: a\n\nAssistant: b', rejected: 'b' }, /both be conversations/],
    [{ chosen: say('a'), rejected: say('a', 'b') }, /^chosen must end with role "assistant"/],
    [{ chosen_input_ids: [1], rejected_input_ids: [-1] }, /^rejected_input_ids\[0\] must be/],
    [{ chosen_input_ids: [1] }, /^a pair needs "chosen_input_ids" and "rejected_input_ids", this one has no "rejected/],
    [{ chosen: 'a', rejected: 'b', margin: Infinity }, /^margin must be a number/],
  ] as const)
    assert.throws(
      () => encodePreferenceRow(row, rules),
      (error: Error) => message.test(error.message),
      JSON.stringify(row),
    )
})

test('bins are those of TRL, and hold every sequence once', () => {
  assert.ok(recorded.packing.length > 5)
  for (const { lengths, capacity, bins } of recorded.packing) {
    const found = packBestFit(lengths, capacity)
    assert.equal(found, bins, JSON.stringify({ lengths, capacity }))
    assert.equal(
      found.flat().sort((a, b) => a - b),
      lengths.map((_, i) => i),
    )
    for (const bin of found) assert.ok(bin.reduce((sum, i) => sum + lengths[i], 0) <= capacity)
  }
  assert.equal(packBestFit([], 5), [])
  assert.equal(packBestFit(Uint32Array.of(2, 3), 5), [[1, 0]])
  assert.throws(() => packBestFit([6], 5), /packing: sequence 0 must have 1 to 5 tokens, got 6/)
  assert.throws(() => packBestFit([0], 5), /sequence 0 must have 1 to 5 tokens, got 0/)
  assert.throws(() => packBestFit([1], 0), /capacity must be at least 1/)
})

test.run()
