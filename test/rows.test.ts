// Rows: what is accepted, which words refuse the rest, where the gate reads, and how rows go into batches.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeRow, encodeRows, lastOccurrence, type RowRules } from '../src/reward/rows.ts'
import { fails } from './assert.ts'

const rules: RowRules = {
  name: 'm',
  tokenizer: null,
  bos: 'template',
  gatePattern: [7, 8],
  vocab: 10,
  maxPosition: 6,
}

test('the gate reads at the start of the last occurrence of its pattern', () => {
  for (const [tokens, position] of [
    [[7, 8], 0],
    [[1, 7, 8, 2], 1],
    [[7, 8, 7, 8, 7], 2],
    [[7, 7, 8], 1],
    [[1, 2, 7, 8], 2],
    [[7], undefined],
    [[8, 7], undefined],
  ] as const) {
    assert.is(encodeRow({ input_ids: tokens }, rules).gate_position, position, JSON.stringify(tokens))
  }
  assert.is(lastOccurrence([1, 1, 1, 1], [1, 1]), 2)
  assert.is(lastOccurrence([1], [1, 1]), -1)
})

test('a given position wins, and must be in the row', async () => {
  assert.is(encodeRow({ input_ids: [7, 8, 1], gate_position: 2 }, rules).gate_position, 2)
  for (const position of [3, -1, 0.5, '0', null]) {
    await fails(
      () => encodeRow({ input_ids: [7, 8, 1], gate_position: position }, rules),
      `gate_position must be a whole number from 0 to 2, got ${JSON.stringify(position)}`,
    )
  }
})

test('refuses what is no row, in words that say why', async () => {
  const failing = (row: unknown, message: string) => fails(() => encodeRow(row, rules), message)
  await failing(null, 'a row must be an object, got null')
  await failing([1], 'a row must be an object, got [1]')
  await failing('text', 'a row must be an object, got "text"')
  await failing({}, 'a row needs "prompt" and "response", or "messages", or "input_ids", got none')
  await failing({ prompt: 'a' }, 'a row needs "prompt" and "response", or "messages", or "input_ids", got "prompt"')
  await failing({ text: 'a' }, 'a row needs "prompt" and "response", or "messages", or "input_ids", got "text"')
  await failing(
    { prompt: 'a', response: 'b', extra: 1 },
    'unknown field "extra"; beside "prompt" a row may have "response"',
  )
  await failing(
    { prompt: 'a', response: 'b', input_ids: [1] },
    'unknown field "prompt"; beside "input_ids" a row may have "gate_position"',
  )
  await failing(
    { messages: [], gate_position: 1 },
    'unknown field "gate_position"; beside "messages" a row may have nothing',
  )
  await failing({ prompt: 1, response: 'b' }, 'prompt must be a text, got 1')
  await failing({ prompt: 'a', response: null }, 'response must be a text, got null')
  await failing({ prompt: '', response: '' }, 'prompt and response must not both be empty')
  await failing({ messages: [] }, 'messages must be a list of at least one message, got []')
  await failing({ messages: 'a' }, 'messages must be a list of at least one message, got "a"')
  await failing({ messages: ['a'] }, 'messages[0] must be an object, got "a"')
  await failing({ messages: [{ role: 'user' }] }, 'messages[0].content must be a text, got nothing')
  await failing({ messages: [{ role: 1, content: 'a' }] }, 'messages[0].role must be a text, got 1')
  await failing({ messages: [{ role: 'user', content: 'a', name: 'b' }] }, 'messages[0]: unknown field "name"')
  await failing({ messages: [{ role: 'user', content: 'a' }] }, 'messages must end with role "assistant", got "user"')
  await failing({ input_ids: [] }, 'input_ids must have at least one token, got none')
  await failing({ input_ids: 'abc' }, 'input_ids must be a list of token ids, got "abc"')
  for (const token of [10, -1, 1.5, '1', null]) {
    await failing(
      { input_ids: [1, token] },
      `input_ids[1] must be a whole number from 0 to 9 (vocab_size), got ${JSON.stringify(token)}`,
    )
  }
  await failing(
    { input_ids: [1, 2, 3, 4, 5, 6, 7] },
    'the row has 7 tokens, the model takes 6 (max_position_embeddings)',
  )
  await failing(
    { prompt: 'a', response: '' },
    'm has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"',
  )
})

test('rows in a list are named by number, and need a gate where one is asked for', async () => {
  const rows = [{ input_ids: [7, 8] }, { input_ids: [1] }]
  assert.is(encodeRows(rows, rules).length, 2)
  await fails(
    () => encodeRows(rows, rules, true),
    'row 2: the gate\'s pattern [7,8] does not occur in the row\'s 1 tokens; give "gate_position", or set "gate_pattern" in pinball.json to what the chat template puts before the response',
  )
  await fails(() => encodeRows([rows[0], {}], rules), /^row 2: a row needs/)
})

test.run()
