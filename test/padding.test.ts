// Padding: which token it is, what is left of a row without it, and the rewards that transformers gives such rows.
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { memoryFiles } from '../src/files/source.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { type Padding, paddingOf } from '../src/reward/padding.ts'
import { encodeRow, type RowRules } from '../src/reward/rows.ts'
import type { Tokenizer } from '../src/text/tokenizer.ts'
import { encodePreferenceRow } from '../src/train/preference_rows.ts'
import { fails } from './assert.ts'

const FOLDER = new URL('fixtures/lora/reward/model/', import.meta.url)

interface Case {
  readonly pad: number | null
  readonly rows: readonly (readonly number[])[]
  readonly scores: readonly number[]
}

test('rewards of padded rows are those of transformers', async () => {
  const cases: Case[] = JSON.parse(readFileSync(new URL('fixtures/padding.json', import.meta.url), 'utf8'))
  const config = JSON.parse(await readFile(new URL('config.json', FOLDER), 'utf8'))
  const weights = await readFile(new URL('model.safetensors', FOLDER))
  const device = await openDevice('wasm', { threads: 1 })
  let tried = 0
  for (const { pad, rows, scores } of cases) {
    const text = JSON.stringify({ ...config, pad_token_id: pad })
    const files = memoryFiles('m', { 'config.json': new TextEncoder().encode(text), 'model.safetensors': weights })
    const model = await loadRewardModel(device, files)
    const found = await model.score(rows.map((row) => ({ input_ids: row })))
    for (const [i, { score }] of found.entries()) {
      // Sums in f32 in another order: a few of its steps at scores of about 1.
      assert.ok(Math.abs(score - scores[i]) < 2e-5, `pad ${pad}, ${rows[i]}: ${score} and ${scores[i]}`)
      tried++
    }
    await model.destroy()
  }
  await device.destroy()
  assert.is(tried, 16)
})

const tokenizer = (pad: number | null, more: Partial<Tokenizer> = {}): Tokenizer => ({
  name: 't',
  bos: 1,
  eos: 2,
  pad,
  specialTokens: { pad_token: '<p>' },
  chatTemplate: null,
  size: 10,
  encode: () => new Uint32Array(),
  decode: () => '',
  ...more,
})

test('a token is padding by config.json, or by the tokenizer where it is nothing else', () => {
  const config = (pad: number | null) => ({ pad, bos: 1, eos: [2] })
  const dedicated = { dedicated: true, begins: false }
  assert.is(paddingOf(config(null), null, []), null)
  assert.equal(paddingOf(config(5), null, []), { id: 5, pools: true, ...dedicated })
  assert.equal(paddingOf(config(5), tokenizer(6), []), { id: 5, pools: true, ...dedicated })
  assert.equal(paddingOf(config(null), tokenizer(6), []), { id: 6, pools: false, ...dedicated })
  assert.is(paddingOf(config(null), tokenizer(2), []), null)
  assert.equal(paddingOf(config(2), null, []), { id: 2, pools: true, dedicated: false, begins: false })
  assert.equal(paddingOf(config(5), null, [5, 6]), { id: 5, pools: true, dedicated: false, begins: false })
  assert.equal(paddingOf(config(1), null, []), { id: 1, pools: true, dedicated: false, begins: true })
  const template = tokenizer(5, { chatTemplate: "{{ '<p>' }}" })
  assert.equal(paddingOf(config(5), template, []), { id: 5, pools: true, dedicated: false, begins: false })
})

const rules = (padding: Padding | null): RowRules => ({
  name: 'm',
  tokenizer: null,
  bos: 'template',
  gatePattern: [7, 8],
  vocab: 10,
  maxPosition: 12,
  padding,
})
const OWN: Padding = { id: 5, pools: true, dedicated: true, begins: false }

test('gate positions follow the tokens that are left', async () => {
  const encode = (row: unknown, padding: Padding | null = OWN) => {
    const { input_ids: ids, gate_position: at } = encodeRow(row, rules(padding))
    return [[...ids], at]
  }
  assert.equal(encode({ input_ids: [5, 5, 7, 8, 1, 5] }), [[7, 8, 1], 0])
  assert.equal(encode({ input_ids: [5, 1, 7, 5, 8], gate_position: 4 }), [[1, 7, 8], 2])
  assert.equal(encode({ input_ids: [5, 1, 7, 8] }, null), [[5, 1, 7, 8], 2])
  const text = { ...OWN, dedicated: false }
  assert.equal(encode({ input_ids: [5, 1, 5, 7, 8, 5, 5] }, text), [[1, 5, 7, 8], 2])
  assert.equal(encode({ input_ids: [5, 1, 5] }, { ...text, begins: true }), [[5, 1], undefined])
  await fails(() => encode({ input_ids: [5, 5] }), /^input_ids is nothing but padding \(token 5\)/)
  await fails(() => encode({ input_ids: [5, 1], gate_position: 0 }), 'gate_position 0 is padding (token 5)')
  await fails(
    () => encode({ input_ids: [5, 5, 1] }, { ...text, begins: true }),
    'input_ids begins with 2 tokens 5, which is BOS and padding both; leave out what is padding',
  )
})

test('pairs of training lose their padding as scored rows do', () => {
  const own = { name: 'm', tokenizer: null, bos: 'template', vocab: 10, maxLength: 12, padding: OWN } as const
  const row = encodePreferenceRow({ chosen_ids: [1, 2, 5, 5], rejected_ids: [5, 1, 3] }, own)
  assert.equal(
    [[...row.chosen], [...row.rejected]],
    [
      [1, 2],
      [1, 3],
    ],
  )
})

test.run()
