// Tokenizers of many kinds against Hugging Face's own, the special tokens that transformers resolves, and files that come from anybody.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { memoryFiles } from '../src/files/source.ts'
import { makePipeline, type Pipeline } from '../src/text/encoding/pipeline.ts'
import { loadTokenizer } from '../src/text/tokenizer.ts'
import { fails } from './assert.ts'

interface Kind {
  readonly model: string
  readonly settings: Readonly<Record<string, unknown>>
  /** The ids of "hello" with what the tokenizer puts around it. */
  readonly framed: number[]
  readonly rows: readonly (readonly [text: string, ids: number[], back: string, withoutSpecial: string, part: string])[]
}

interface Policy {
  readonly files: Readonly<Record<string, unknown>>
  readonly bos: number | null
  readonly eos: number | null
  readonly pad: number | null
  readonly tokens: Readonly<Record<string, string>>
  readonly ids: number[]
}

interface Fixture {
  readonly models: Readonly<Record<string, Record<string, unknown>>>
  readonly cases: readonly Kind[]
  readonly policies: readonly Policy[]
}

const fixture: Fixture = JSON.parse(
  gunzipSync(readFileSync(new URL('fixtures/tokenizer_kinds.json.gz', import.meta.url))).toString(),
)
const utf8 = (value: unknown) => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
const POLICY_TEXT = 'a <s>b <p> <new> a'

test('every kind of part gives the ids and the texts of Python, or is refused by its name', () => {
  let [texts, refused] = [0, 0]
  for (const { model, settings, framed, rows } of fixture.cases) {
    const name = JSON.stringify([model, settings.normalizer, settings.pre_tokenizer, settings.decoder])
    let pipeline: Pipeline
    try {
      pipeline = makePipeline({ ...settings, model: fixture.models[model] }, 'tokenizer.json', [])
    } catch (error) {
      assert.match((error as Error).message, /^tokenizer\.json: pre_tokenizer.*not supported/, name)
      refused++
      continue
    }
    for (const [text, ids, back, bare, part] of rows) {
      assert.equal(pipeline.encode(text), ids, `${name} on ${JSON.stringify(text)}`)
      assert.is(pipeline.decode(ids, false), back, name)
      assert.is(pipeline.decode(ids, true), bare, name)
      // Begins and ends amid characters.
      assert.is(pipeline.decode(ids.slice(Math.floor(ids.length / 3), -1), false), part, name)
      texts++
    }
    assert.equal(pipeline.frame(pipeline.encode('hello')), framed, name)
  }
  assert.ok(texts > 2500, String(texts))
  // A set inside a set, a grapheme and a back reference.
  assert.is(refused, 3)
})

test('BOS, EOS and padding are what transformers takes from the files', async () => {
  assert.ok(fixture.policies.length > 10)
  for (const { files, ids, tokens, ...special } of fixture.policies) {
    const bytes = Object.fromEntries(Object.entries(files).map(([file, value]) => [file, utf8(value)]))
    const tokenizer = (await loadTokenizer(memoryFiles('dir', bytes)))!
    const { bos, eos, pad } = tokenizer
    assert.equal({ bos, eos, pad }, special, JSON.stringify(files))
    assert.equal(tokenizer.specialTokens, tokens, JSON.stringify(files))
    assert.equal([...tokenizer.encode(POLICY_TEXT)], ids, JSON.stringify(files))
  }
})

const VOCABULARY = { a: 0, b: 1, ab: 2, ' ': 3 }
const tokenizerOf = (parts: Record<string, unknown>, model: Record<string, unknown> = {}) => ({
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  ...parts,
  model: { type: 'BPE', vocab: VOCABULARY, merges: ['a b'], ...model },
})
const load = (tokenizer: unknown) => loadTokenizer(memoryFiles('dir', { 'tokenizer.json': utf8(tokenizer) }))
const split = (pattern: unknown, more: Record<string, unknown> = {}) => ({
  pre_tokenizer: { type: 'Split', pattern, behavior: 'Isolated', invert: false, ...more },
})

test('a file that says what it must not is refused with the place', async () => {
  assert.equal([...(await load(tokenizerOf({})))!.encode('abba')], [2, 1, 0])
  for (const [tokenizer, message] of [
    [
      tokenizerOf(split({ Regex: 'a' }, { behavior: 5 })),
      /pre_tokenizer\.behavior must be one of "Removed", .*, got 5$/,
    ],
    [
      tokenizerOf(split({ Regex: '(a' })),
      /pre_tokenizer\.pattern\.Regex: the regular expression "\(a" has a \( without its \)/,
    ],
    [tokenizerOf(split({ Regex: ['a'] })), /pre_tokenizer\.pattern\.Regex must be a text, got \["a"\]$/],
    [tokenizerOf(split('a')), /pre_tokenizer\.pattern must be an object, got "a"$/],
    [
      tokenizerOf({ pre_tokenizer: { type: 'UnicodeScripts' } }),
      /pre_tokenizer\.type: the pre-tokenizer "UnicodeScripts" is not/,
    ],
    [
      tokenizerOf({ normalizer: { type: 'Precompiled' } }),
      /normalizer\.type: the normalizer "Precompiled" is not supported$/,
    ],
    [tokenizerOf({ decoder: { type: 'CTC' } }), /decoder\.type: the decoder "CTC" is not supported$/],
    [tokenizerOf({}, { type: 'Nothing' }), /model\.type: the model "Nothing" is not supported$/],
    [
      tokenizerOf({}, { type: 'Unigram', vocab: [['a']] }),
      /model\.vocab\[0\] must be a token and its score, got \["a"\]$/,
    ],
    [
      tokenizerOf({}, { vocab: { a: -1 } }),
      /model\.vocab: the id of "a" must be a whole number from 0 to \d+, got -1$/,
    ],
    [tokenizerOf({}, { vocab: { a: 0.5 } }), /model\.vocab: the id of "a" must be .*, got 0\.5$/],
    [tokenizerOf({}, { vocab: { a: 3e9 } }), /model\.vocab: the id of "a" must be .*, got 3000000000$/],
    [tokenizerOf({}, { vocab: [] }), /model\.vocab must be an object, got \[\]$/],
    [
      tokenizerOf({}, { merges: ['a x'] }),
      /model\.merges\[0\] has, or makes, a token that is not in the vocabulary: "a x"$/,
    ],
    [tokenizerOf({}, { merges: [['a']] }), /model\.merges\[0\] must be two tokens: \["a"\]$/],
    [tokenizerOf({}, { dropout: 0.1 }), /model\.dropout must be null or 0/],
    [tokenizerOf({ added_tokens: [{ id: 2 ** 31, content: '<x>' }] }), /added_tokens\[0\]\.id must be a whole number/],
    [tokenizerOf({ added_tokens: [{ id: 9, content: 7 }] }), /added_tokens\[0\]\.content must be a text, got 7$/],
  ] as const)
    await fails(() => load(tokenizer), new RegExp(`^dir/tokenizer\\.json: ${message.source}`))
})

test('no regular expression hangs, whatever the text', async () => {
  const text = `${'a'.repeat(5000)}!`
  for (const pattern of ['(a+)+$', '(a|a)*b', '(a*)*(a*)*b', '(?:a?){500}a{500}b', 'a*a*a*a*b', '(?<=a+b)c'])
    await fails(
      async () => (await load(tokenizerOf(split({ Regex: pattern }))))!.encode(text),
      /^dir\/tokenizer\.json: pre_tokenizer\.pattern\.Regex: the regular expression (takes too long|goes too deep) on a text of 5001 characters$/,
    )
  // What is harmless runs, in a time that grows as the text does.
  const harmless = (await load(tokenizerOf(split({ Regex: '(?:a|b)[ab]*| +' }))))!
  assert.is(harmless.encode(`${'ab'.repeat(20000)} ab`).length, 20002)
})

test.run()
