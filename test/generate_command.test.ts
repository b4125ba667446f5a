// pinball generate as a user runs it: documents, streamed and readable texts, the best of several, interrupts, and what it refuses.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { loadCausalModel } from '../src/generate/causal_model.ts'
import type { GeneratedText } from '../src/generate/texts.ts'
import { each, finish, lines, openWorkplace, root, WASM, type Workplace } from './command.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
  await place.file('tokens.jsonl', lines(...TOKENS))
  await place.file('texts.jsonl', lines(...TEXTS))
})
test.after(() => place.remove())

/** 131 tokens, an output layer of its own, no tokenizer. */
const TINY = join(root, 'test/fixtures/lora/untied/model')
const TINY_ADAPTER = join(root, 'test/fixtures/lora/untied/adapter')
const NANO = join(root, 'models/nano')
const NANO_SFT = join(root, 'models/nano-sft')

const TOKENS = [{ input_ids: [5, 6, 7], id: 'a' }, { input_ids: [9] }, { input_ids: [5, 6, 7], label: 'passed over' }]
const TEXTS = [
  { prompt: 'How was the film?', id: 3 },
  { messages: [{ role: 'user', content: 'Tell me about dogs.' }], response: 'passed over' },
]

interface Result {
  id: string | number
  prompt: unknown
  text: string | null
  tokens: number[]
  logprobs: number[]
  finish_reason: string
}

const tiny = (...more: string[]) => ['generate', '--model', TINY, ...WASM, '--max-new-tokens', '8', ...more]
const nano = (...more: string[]) => ['generate', '--adapter', NANO_SFT, ...WASM, '--max-new-tokens', '12', ...more]

async function resultsOf(args: readonly string[], stdin?: string): Promise<Result[]> {
  const { code, out, err } = await place.pinball([...args, '--json'], stdin)
  assert.equal([code, err], [0, ''])
  return (JSON.parse(out) as { results: Result[] }).results
}

const asResult = ({ row, id, prompt, text, tokens, logprobs, finishReason }: GeneratedText): Result => ({
  ...{ id: id ?? row, prompt: prompt as unknown, text },
  ...{ tokens: [...tokens], logprobs: [...logprobs], finish_reason: finishReason },
})

test('the document has every text of every row in order, as the library writes them', async () => {
  const device = await openDevice('wasm', { threads: 1 })
  const options = { samples: 3, seed: 4, temperature: 0.9, topK: 60, topP: 0.95, minP: 0.01, repetitionPenalty: 1.1 }
  const told = ['--samples', '3', '--seed', '4', '--temperature', '0.9', '--top-k', '60', '--top-p', '0.95']
  const more = [...told, '--min-p', '0.01', '--repetition-penalty', '1.1', '--min-new-tokens', '2', '--json']
  for (const adapter of [null, TINY_ADAPTER]) {
    const model = await loadCausalModel(device, await openDirectory(TINY), {
      adapter: adapter === null ? null : await openDirectory(adapter),
    })
    const settings = { ...options, maxNewTokens: 8, minNewTokens: 2 }
    const expected = await model.generate(TOKENS, settings)
    await model.destroy()
    const chosen = adapter ? ['--adapter', adapter] : []
    const { code, out, err } = await place.pinball(tiny('--input', 'tokens.jsonl', ...more, ...chosen))
    assert.equal([code, err], [0, ''])
    const { results, ...rest } = JSON.parse(out)
    assert.equal(rest, { model: TINY, ...(adapter && { adapter }), device: 'wasm' })
    assert.equal(results, expected.map(asResult))
    assert.equal(Object.keys(results[0]), ['id', 'prompt', 'text', 'tokens', 'logprobs', 'finish_reason'])
    assert.equal(
      results.map(({ id, prompt, text }: Result) => [id, prompt, text]),
      ['a', 'a', 'a', 1, 1, 1, 2, 2, 2].map((id) => [id, TOKENS[id === 'a' ? 0 : (id as number)].input_ids, null]),
    )
  }
  await device.destroy()
})

test('rows come from standard input, and neither --batch nor their order changes a text', async () => {
  const usual = await resultsOf(tiny('--input', 'tokens.jsonl', '--samples', '2'))
  const other = await resultsOf(tiny('--samples', '2', '--batch', '1', '-'), lines(TOKENS[1], TOKENS[0], TOKENS[2]))
  const bare = ({ tokens, logprobs }: Result) => ({ tokens, logprobs })
  assert.equal(
    [2, 3, 0, 1, 4, 5].map((i) => bare(other[i])),
    usual.map(bare),
  )
})

test('EOS of config.json ends a text, which stays in the tokens; several ids of generation_config.json do too', async () => {
  const [{ tokens }] = await resultsOf(tiny('--temperature', '0', '-'), lines(TOKENS[0]))
  const ends = [tokens[4], tokens[2]]
  const length = 1 + Math.min(...ends.map((token) => tokens.indexOf(token)))
  const { mkdir, copyFile, writeFile } = await import('node:fs/promises')
  await mkdir(join(place.folder, 'ended'))
  for (const file of ['config.json', 'model.safetensors'])
    await copyFile(join(TINY, file), join(place.folder, 'ended', file))
  await writeFile(
    join(place.folder, 'ended/generation_config.json'),
    JSON.stringify({ eos_token_id: ends, temperature: 9 }),
  )
  const args = ['generate', '--model', 'ended', ...WASM, '--max-new-tokens', '8', '--temperature', '0', '-']
  const [ended] = await resultsOf(args, lines(TOKENS[0]))
  assert.equal([ended.tokens, ended.finish_reason], [tokens.slice(0, length), 'stop'])
  assert.is(ended.logprobs.length, length)
})

test('the text of one prompt is streamed as it is; those of many are told apart', async () => {
  const [{ text, tokens }] = await resultsOf(nano('--prompt', 'How was the film?'))
  assert.is(tokens.length, 12)
  const streamed = await place.pinball(nano('--prompt', 'How was the film?'))
  assert.equal([streamed.code, streamed.out, streamed.err], [0, `${text}\n`, ''])
  const results = await resultsOf(nano('--input', 'texts.jsonl', '--samples', '2'))
  assert.equal(
    results.map(({ id, prompt }) => [id, prompt]),
    [
      [3, TEXTS[0].prompt],
      [3, TEXTS[0].prompt],
      [1, TEXTS[1].messages],
      [1, TEXTS[1].messages],
    ],
  )
  assert.is(results[0].text, text)
  const { out, err } = await place.pinball(nano('--input', 'texts.jsonl', '--samples', '2'))
  assert.is(err, '')
  const ended = (i: number) => (results[i].finish_reason === 'length' ? ', ended by its length' : '')
  const blocks = results.map((own, i) => {
    const [name, prompt] = i < 2 ? ['3', 'How was the film?'] : ['row 2', 'Tell me about dogs.']
    return `[${name}, sample ${(i % 2) + 1} of 2${ended(i)}] ${prompt}\n${own.text}\n\n`
  })
  assert.is(out, blocks.join(''))
  const bare = await place.pinball(tiny('-'), lines(TOKENS[0]))
  assert.match(bare.out, /^\[a, ended by its length\] \[5 6 7\]\n(\d+ ){7}\d+\n\n$/)
})

test('stop strings end a text before them, plain prompts have no template', async () => {
  const [{ text }] = await resultsOf(nano('--prompt', 'How was the film?'))
  const stop = text!.slice(9, 12)
  const [cut] = await resultsOf(nano('--prompt', 'How was the film?', '--stop', 'no such', '--stop', stop))
  assert.equal([cut.text, cut.finish_reason], [text!.slice(0, text!.indexOf(stop)), 'stop'])
  const [plain] = await resultsOf(nano('--prompt', 'How was the film?', '--plain'))
  assert.is.not(plain.text, text)
})

test('--best-of keeps the best of the samples by the ranking and says how the left tail moves', async () => {
  const samples = await resultsOf(nano('--input', 'texts.jsonl', '--samples', '5'))
  const best = nano('--input', 'texts.jsonl', '--best-of', '5', '--reward', NANO)
  const { code, out, err } = await place.pinball([...best, '--rank', 'quantile:0.05', '--json'])
  assert.equal([code, err], [0, ''])
  const { results, best_of } = JSON.parse(out)
  assert.equal(Object.keys(results[0]).slice(6), [
    ...['sample', 'score', 'expectation', 'utility', 'quantiles', 'scores', 'expectations'],
  ])
  const conversations = samples.map(({ text, finish_reason }, i) => ({
    messages: [
      { role: 'user', content: i < 5 ? TEXTS[0].prompt : TEXTS[1].messages![0].content },
      { role: 'assistant', content: text },
    ],
    ended: finish_reason === 'stop',
  }))
  const scored = await place.pinball(
    ['score', ...WASM, '--json', '-'],
    lines(...conversations.map(({ messages }) => ({ messages }))),
  )
  const scores = JSON.parse(scored.out).results as { quantiles: number[]; expectation: number }[]
  for (const [row, own] of results.entries()) {
    const { sample, scores: points, expectations } = own
    assert.equal([points.length, expectations.length], [5, 5])
    assert.is(sample, points.indexOf(Math.max(...points)))
    assert.is(own.score, points[sample])
    // The level is one of the model's: the lowest quantile.
    assert.is(own.score, Math.min(...own.quantiles))
    assert.equal(own.tokens, samples[5 * row + sample].tokens)
    for (let s = 0; s < 5; s++) {
      if (conversations[5 * row + s].ended) assert.is(expectations[s], scores[5 * row + s].expectation)
    }
  }
  const { tail, ...about } = best_of
  const levels = JSON.parse(await readFile(join(NANO, 'pinball.json'), 'utf8')).levels
  assert.equal(about, { ...{ n: 5, rank: 'quantile', level: 0.05, lambda: 8, reward: NANO }, levels, rows: 2 })
  assert.equal(
    tail.map(({ name }: { name: string }) => name),
    ['q05', 'q10', 'q15', 'q20', 'q25', 'expectation'],
  )
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-9, `${a} and ${b}`)
  close(tail[0].all, mean(results.map(({ scores }: { scores: number[] }) => mean(scores))))
  close(tail[0].chosen, mean(results.map(({ score }: { score: number }) => score)))
  close(tail[0].gain.difference, tail[0].chosen - tail[0].all)
  close(tail[5].by_expectation, mean(results.map((own: { expectations: number[] }) => Math.max(...own.expectations))))
  const shown = await place.pinball([...best, '--rank', 'cvar:0.2', '--lambda', '2'])
  assert.is(shown.err, '')
  assert.match(
    shown.out,
    /^\[3, sample \d of 5(, ended by its length)?, score -?[\d.]+, expectation -?[\d.]+\] How was the film\?\n/,
  )
  assert.match(shown.out, /\nBest of 5 by cvar:0\.2: means over 2 prompts of what .*nano says\n/)
  assert.match(shown.out, /\nq05 +(-?[\d.]+ +){3}-?[\d.]+ \(-?[\d.]+ to -?[\d.]+\) +-?[\d.]+ \(/)
})

test('a reward model can read the tokens', async () => {
  const rows = lines({ input_ids: [45, 4094, 4092, 290, 4093, 265] })
  const args = nano('--best-of', '2', '--reward', NANO)
  await place.refused(
    [...args, '-'],
    /^pinball: .*line 1, sample 0: the prompt is token ids; .*--reward-tokens policy/,
    1,
    rows,
  )
  const { code, out } = await place.pinball([...args, '--reward-tokens', 'policy', '--json', '-'], rows)
  assert.is(code, 0)
  assert.is(JSON.parse(out).best_of.rank, 'expectation')
})

test('an interrupt prints what is finished and ends with 130', async () => {
  const many = lines(...Array.from({ length: 400 }, (_, i) => ({ input_ids: [1 + (i % 100), 3] })))
  const args = ['generate', '--model', TINY, ...WASM, '--max-new-tokens', '200', '--batch', '4', '-']
  const child = place.launch(args, many)
  const ended = finish(child)
  // The first text has come: the others are under way.
  await new Promise((resolve) => child.stdout!.once('data', resolve))
  child.kill('SIGINT')
  const { code, out, err } = await ended
  assert.is(code, 130)
  const [, told] = /^pinball: generate: interrupted; (\d+) of 400 texts are finished\n$/.exec(err) ?? []
  assert.ok(Number(told) >= 1 && Number(told) < 400, err)
  assert.is(out.match(/^\[row \d+/gm)!.length, Number(told))
  assert.ok(out.endsWith('\n\n'))
  const stream = place.launch([
    'generate',
    ...WASM,
    '--prompt',
    'Hi',
    '--min-new-tokens',
    '900',
    '--max-new-tokens',
    '900',
  ])
  const streamed = finish(stream)
  await new Promise((resolve) => stream.stdout!.once('data', resolve))
  stream.kill('SIGTERM')
  const part = await streamed
  assert.is(part.code, 143)
  assert.is(part.err, 'pinball: generate: interrupted; 0 of 1 texts are finished\n')
  assert.match(part.out, /\n$/)
})

const bad = (row: unknown) => lines(TOKENS[1], row)

each<readonly [string, string[], string | RegExp, number, string?]>(
  'what is refused:',
  [
    ['nothing', nano(), 'nothing to continue; give --prompt, --input FILE, or -', 2],
    ['two inputs', nano('--prompt', 'x', '-'), '--prompt, --input and - exclude each other', 2],
    ['an argument', nano('x'), /unexpected argument "x"; use --input FILE/, 2],
    ['a temperature', nano('--prompt', 'x', '--temperature', '-1'), /--temperature.*of at least 0/, 2],
    ['top-p', nano('--prompt', 'x', '--top-p', '0'), /--top-p.*above 0 and at most 1/, 2],
    ['tokens', nano('--prompt', 'x', '--min-new-tokens', '13'), '--min-new-tokens must be at most --max-new-tokens', 2],
    ['an empty stop', nano('--prompt', 'x', '--stop', ''), '--stop: must be a text, got ""', 2],
    ['a best without reward', nano('--prompt', 'x', '--best-of', '4'), '--best-of needs --reward', 2],
    ['a rank alone', nano('--prompt', 'x', '--rank', 'cvar'), '--rank needs --best-of', 2],
    ['a reward alone', nano('--prompt', 'x', '--reward', NANO), '--reward needs --best-of', 2],
    [
      'a rank',
      nano('--prompt', 'x', '--best-of', '2', '--reward', NANO, '--rank', 'best'),
      /^pinball: --rank: a score must be one of/,
      2,
    ],
    [
      'samples with a best',
      nano('--prompt', 'x', '--best-of', '2', '--reward', NANO, '--samples', '3'),
      '--samples and --best-of exclude each other',
      2,
    ],
    [
      'a utility that says nothing',
      nano('--prompt', 'x', '--best-of', '2', '--reward', NANO, '--rank', 'utility', '--lambda', '0'),
      '--rank utility needs a --lambda above 0',
      2,
    ],
    ['no reward model', nano('--prompt', 'x', '--best-of', '2', '--reward', 'none'), 'none: no such directory', 1],
    ['no model', ['generate', '--model', 'none', '--prompt', 'x'], 'none: no such directory', 1],
    ['text without a tokenizer', tiny('--prompt', 'x'), /^pinball: --prompt: .* has no tokenizer\.json/, 1],
    [
      'a row',
      tiny('-'),
      /standard input line 2: input_ids\[0\] must be a whole number from 0 to 130/,
      1,
      bad({ input_ids: [131] }),
    ],
    [
      'no form',
      tiny('-'),
      /line 2: a row needs one of "prompt", "messages" and "input_ids", got "text"/,
      1,
      bad({ text: 'x' }),
    ],
    [
      'a conversation that has ended',
      nano('-'),
      /line 1: messages must end with role "user"/,
      1,
      lines({ messages: [{ role: 'assistant', content: 'x' }] }),
    ],
    [
      'a prompt that is too long',
      tiny('-'),
      /line 2: the prompt has 513 tokens, the model takes 512/,
      1,
      bad({ input_ids: new Array(513).fill(1) }),
    ],
    ['no rows', tiny('-'), /standard input: has no rows/, 1, ''],
    [
      'a stop string without a tokenizer',
      tiny('--stop', 'x', '-'),
      /stop strings need a tokenizer/,
      1,
      lines(TOKENS[0]),
    ],
  ],
  async ([, args, message, code, stdin]) => {
    await place.refused(args, message, code, stdin)
  },
)

test('the help has every option, and the list of commands has it', async () => {
  const { code, out } = await place.pinball(['generate', '--help'])
  assert.is(code, 0)
  for (const option of [
    'model',
    'adapter',
    'prompt',
    'input',
    'samples',
    'temperature',
    'max-new-tokens',
    'min-new-tokens',
    'top-k',
    'top-p',
    'min-p',
    'repetition-penalty',
    'stop',
    'seed',
    'json',
    'best-of',
    'rank',
    'reward',
  ])
    assert.ok(out.includes(`--${option}`), option)
  assert.match((await place.pinball(['--help'])).out, /\n {2}generate /)
})

test.run()
