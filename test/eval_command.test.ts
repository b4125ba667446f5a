// pinball eval on rows: what it reports beside the accuracies, which fields it reads, and which options go together.
import { copyFile, link, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wilson } from '../src/evaluate/intervals.ts'
import { close } from './assert.ts'
import { lines, openWorkplace, qrm, root, tensor, WASM, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
})
test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

/** Runs pinball eval with --json and gives its document, and what it wrote to standard error. */
async function evaluate(suite: string, ...args: string[]) {
  const { code, out, err } = await place.pinball(['eval', '--suite', suite, ...args, '--json', ...WASM])
  assert.is(code, 0, err)
  // biome-ignore lint/suspicious/noExplicitAny: a document of several suites, whose fields are what is tested
  return { found: JSON.parse(out) as any, err }
}

const SIDES = { prompt: 'Say hello.', chosen: 'Hello there!', rejected: 'No.' }

test('sections and score of RewardBench come with intervals and rows', async () => {
  const subsets = ['alpacaeval-easy', 'alpacaeval-easy', 'llmbar-natural', 'donotanswer', 'math-prm', 'shp']
  const all = await place.file('all.jsonl', lines(...subsets.map((subset, id) => ({ ...SIDES, subset, id }))))
  const { found } = await evaluate('rewardbench', '--data', all, '--prior-sets', '--out', 'board.json')
  assert.equal(found.section_rows, { Chat: 2, 'Chat Hard': 1, Safety: 1, Reasoning: 1 })
  // The same pair everywhere, so that sections, prior sets and score are 0 or 1 together.
  const right = found.score
  assert.ok(right === 0 || right === 1)
  assert.equal(found.section_intervals.Chat, wilson(2 * right, 2))
  // Weights 1, 1, 1, 1 of sections with 2, 1, 1, 1 rows and 1/2 of the prior set with one.
  const rows = 4.5 ** 2 / (1 / 2 + 3 + 0.25)
  close(found.score_interval, wilson(right * rows, rows), 1e-12, 'score')
  const text = await place.pinball(['eval', '--suite', 'rewardbench', '--data', all, ...WASM])
  assert.match(text.out, /section +accuracy +95 % +rows\nChat +[\d.]+ +[\d.]+ - [\d.]+ +2\n/)
  const { found: some } = await evaluate(
    'rewardbench',
    '--data',
    await place.file('some.jsonl', lines({ ...SIDES, subset: 'shp' })),
  )
  assert.equal([some.score, some.score_interval, some.section_rows.Chat], [0, null, 0])
})

test('the same evaluation writes the same bytes', async () => {
  const data = await place.file('pairs.jsonl', lines({ ...SIDES, id: 'a' }, { ...SIDES, prompt: 'Hi.' }))
  const written: string[] = []
  for (const out of ['one.json', 'two.json']) {
    const { found } = await evaluate('pairs', '--data', data, '--out', out)
    assert.type(found.ms, 'number')
    written.push(await readFile(at(out), 'utf8'))
  }
  assert.is(written[0], written[1])
  assert.is(JSON.parse(written[0]).rows, 2)
})

test('equal texts tie, whatever rows they are computed with', async () => {
  const numbers = random(1)
  const words = ['film', 'dull', 'green', 'and', 'was', 'not', 'a', 'seven', 'maybe', 'delight']
  const pairs = Array.from({ length: 300 }, (_, i) => {
    const length = 1 + numbers.integers(1, 0, 40)[0]
    const text = Array.from(numbers.integers(length, 0, words.length), (word) => words[word]).join(' ')
    return { prompt: `Q${i}?`, chosen: text, rejected: text }
  })
  const data = await place.file('ties.jsonl', lines(...pairs))
  for (const options of [[], ['--no-share']]) {
    const { found } = await evaluate('pairs', '--data', data, ...options)
    assert.equal([found.rows, found.ties, found.accuracy], [300, 300, 0], options.join())
  }
})

test('a BOS too many is a BOS, whatever the row begins with', async () => {
  const nano = join(root, 'models/nano')
  await mkdir(at('without_bos'))
  for (const file of [
    'config.json',
    'model.safetensors',
    'calibration.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ]) {
    await symlink(join(nano, file), at(`without_bos/${file}`))
  }
  const manifest = JSON.parse(await readFile(join(nano, 'pinball.json'), 'utf8'))
  await writeFile(at('without_bos/pinball.json'), JSON.stringify({ ...manifest, bos: 'none' }))
  const data = await place.file('bos.jsonl', lines(SIDES))
  const scores = async (...options: string[]) => {
    await evaluate('pairs', '--data', data, '--outputs', 'scores.jsonl', ...options)
    return readFile(at('scores.jsonl'), 'utf8')
  }
  const [one, two] = [await scores(), await scores('--double-bos', 'attended')]
  assert.is(await scores('--model', 'without_bos', '--double-bos', 'attended'), one)
  assert.is.not(two, one)
  assert.is(await scores('--double-bos', 'masked'), one)
  const ids = await place.file('ids.jsonl', lines(SIDES))
  await place.refused(
    ['eval', '--suite', 'pairs', '--model', qrm, '--data', ids, '--double-bos', 'attended'],
    /ids.jsonl line 1: .*has no tokenizer.json/,
  )
})

test('rated rows keep the position of the gate; other fields are passed over and named', async () => {
  const ids = { input_ids: [1, 2, 3, 4, 5, 6], gate_position: 2 }
  const given = await place.file('rated_ids.jsonl', lines({ ...ids, 'helpsteer-coherence': 0.5 }))
  const { found, err } = await evaluate('calibration', '--model', qrm, '--data', given)
  assert.equal([Object.keys(found.attributes), err], [['helpsteer-coherence'], ''])
  const row = { prompt: 'How?', response: 'So.', sentiment: 0.5, source: 'x', other: [1, 2], none: null, id: 1 }
  const more = await evaluate('calibration', '--data', await place.file('more.jsonl', lines(row)))
  assert.is(more.found.attributes.sentiment.ratings, 1)
  assert.match(more.err, /fields that are no attributes of the model: source, other, none\n/)
})

test('a pair may be written in several ways', async () => {
  const user = { role: 'user', content: SIDES.prompt }
  const said = (content: string) => ({ role: 'assistant', content })
  const scores = async (row: Record<string, unknown>) => {
    const data = await place.file('way.jsonl', lines(row))
    await evaluate('pairs', '--data', data, '--outputs', 'way.out.jsonl')
    return readFile(at('way.out.jsonl'), 'utf8')
  }
  const { prompt, chosen, rejected } = SIDES
  const plain = await scores(SIDES)
  for (const before of [prompt, [user], undefined]) {
    const row = { ...(before !== undefined && { prompt: before }), chosen: [user, said(chosen)] }
    assert.is(await scores({ ...row, rejected: { prompt, response: rejected } }), plain)
    if (before === undefined) continue
    assert.is(await scores({ prompt: before, chosen, rejected: [said(rejected)] }), plain)
  }
})

test('num_correct of RewardBench 2 says how many answers are right', async () => {
  const question = { prompt: 'Name a colour.', chosen: ['Red.', 'Blue.'], rejected: ['Water.'], subset: 'Ties' }
  const score = async (...rows: Record<string, unknown>[]) => {
    const data = await place.file('v2.jsonl', lines(...rows))
    return (await evaluate('rewardbench2', '--data', data)).found.ties
  }
  const moved = { ...question, id: 'tied:1', chosen: ['Red.'], rejected: ['Blue.', 'Water.'], num_correct: 2 }
  assert.equal(await score(moved), await score({ ...question, id: 'tied:1', num_correct: 2 }))
  const bad = await place.file('bad.jsonl', lines({ ...question, id: 'tied:1', num_correct: 3 }))
  await place.refused(
    ['eval', '--suite', 'rewardbench2', '--data', bad],
    'bad.jsonl line 1: num_correct must be a whole number from 1 to 2, as there are 3 answers, got 3',
  )
})

test('rows that no benchmark has are refused before they are scored', async () => {
  const question = { prompt: 'Why?', chosen: ['So.'], rejected: ['No.'], subset: 'Math', id: 1 }
  for (const [row, message] of [
    [{ ...question, subset: 'Maths' }, /there is no subset "Maths"; there are Factuality/],
    [{ ...question, subset: 'Ties' }, /the id of a row of Ties must be "ref:ID" or "tied:ID", got "1"/],
  ] as const) {
    const data = await place.file('v2.jsonl', lines(question, row))
    await place.refused(
      ['eval', '--suite', 'rewardbench2', '--model', qrm, '--data', data],
      new RegExp(`^pinball: v2.jsonl line 2: RewardBench 2: ${message.source}`),
    )
  }
  await place.save('pairs.safetensors', [tensor('embeddings', [1, 2, 3], new Float32Array(6))])
  // The heads, which have other columns, would be refused afterwards.
  await place.refused(
    ['eval', '--suite', 'rewardbench', '--model', qrm, '--features', 'pairs.safetensors'],
    /pairs.safetensors: pair 1: has no "subset", which RewardBench needs/,
  )
  await place.refused(['eval', '--suite', 'rewardbench', '--from-results', '.'], '.: is a directory, a file is needed')
})

test('results never overwrite what is read, or each other', async () => {
  const text = lines(...[1, 2, 3].map((i) => ({ prompt: `a${i}`, chosen: 'good', rejected: 'bad' })))
  const results = JSON.stringify({ donotanswer: 0.5 })
  const model = join(place.folder, 'own')
  await mkdir(model)
  for (const file of await readdir(qrm)) await copyFile(join(qrm, file), join(model, file))
  await mkdir(at('shards'))
  for (const name of ['d.jsonl', 'shards/f.safetensors', 'ref.safetensors']) await writeFile(at(name), text)
  await writeFile(at('r.json'), results)
  await symlink(at('d.jsonl'), at('soft'))
  await link(at('d.jsonl'), at('hard'))
  const pairs = ['--suite', 'pairs', '--data', 'd.jsonl']
  const features = ['--suite', 'pairs', '--features', 'shards']
  const calibration = ['--suite', 'calibration', '--features', 'shards', '--reference', 'ref.safetensors']
  const cases: [string[], string][] = [
    [[...pairs, '--out', 'd.jsonl'], '--data'],
    [[...pairs, '--out', 'soft'], '--data'],
    [[...pairs, '--outputs', './hard'], '--data'],
    [[...features, '--outputs', 'shards/f.safetensors'], '--features'],
    [[...calibration, '--out', 'ref.safetensors'], '--reference'],
    [['--suite', 'rewardbench', '--from-results', 'r.json', '--out', 'r.json'], '--from-results'],
    [[...pairs, '--model', 'own', '--out', 'own/config.json'], '--model'],
    [[...pairs, '--compare', 'own', '--outputs', 'own/model.safetensors'], '--compare'],
  ]
  for (const [args, option] of cases)
    await place.refused(
      ['eval', ...args],
      new RegExp(`^pinball: --out(puts)?: must not be what ${option} reads, got `),
      2,
    )
  await place.refused(
    ['eval', ...pairs, '--out', 'y.json', '--outputs', './y.json'],
    '--outputs: must not be what --out writes, got ./y.json (--out has y.json); choose another name',
    2,
  )
  await writeFile(at('hub'), text)
  await place.refused(
    ['eval', ...pairs, '--out', 'hub', '--outputs', 'hub'],
    /^pinball: --outputs: must not be what/,
    2,
  )
  await place.refused(
    ['eval', '--suite', 'pairs', '--data', './hub', '--out', 'hub'],
    /^pinball: --out: must not be/,
    2,
  )
  await symlink(join(root, 'models/nano/CARD.md'), at('card'))
  await place.refused(['eval', ...pairs, '--out', 'card'], /^pinball: --out: must not be what --model reads/, 2)
  for (const name of ['d.jsonl', 'soft', 'hard', 'hub', 'shards/f.safetensors', 'ref.safetensors'])
    assert.is(await readFile(at(name), 'utf8'), text, name)
  assert.is(await readFile(at('r.json'), 'utf8'), results)
  for (const file of await readdir(qrm))
    assert.equal(await readFile(join(model, file)), await readFile(join(qrm, file)))
})

test('options that would do nothing are refused', async () => {
  await place.refused(
    ['eval', '--suite', 'rewardbench', '--from-results', 'x.json', '--outputs', 'y.jsonl'],
    '--outputs goes with --data and --features of pairs and questions only',
    2,
  )
  await place.refused(
    ['eval', '--suite', 'pairs', '--features', 'x', '--double-bos', 'attended'],
    '--double-bos attended goes with --data only',
    2,
  )
})

test.run()
