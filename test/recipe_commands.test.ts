// The commands of the recipe after the features, one on top of the other: fit, debias, gate, calibrate, eval, assemble, score.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openSafetensors, readTensorF32 } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { close } from './assert.ts'
import { lines, openWorkplace, root, tensor, WASM, type Workplace } from './command.ts'
import { qrmFiles, randomTokens } from './qrm.ts'
import { random } from './random.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
  await writeFeatures()
})
test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)
const D = 24
const [ROWS, PAIRS] = [400, 300]
const NAMES = ['helpful', 'verbosity', 'kind']

/** Runs a command with --json and gives its document. */
// biome-ignore lint/suspicious/noExplicitAny: documents of ten commands, whose fields are what is tested
async function run(...args: string[]): Promise<any> {
  const { code, out, err } = await place.pinball([...args, '--json'])
  assert.is(code, 0, err)
  return JSON.parse(out)
}

/** Ratings that are linear in the features and noisy; chosen responses are those with more of the first attribute. */
async function writeFeatures(): Promise<void> {
  const draw = random(12)
  const w = draw.normal(3 * D, { deviation: 0.2 })
  const rate = (x: Float32Array, m: number) => x.reduce((sum, value, d) => sum + value * w[m * D + d], 0)
  for (const [name, rows] of [
    ['ratings', ROWS],
    ['held_out', ROWS / 2],
  ] as const) {
    const x = draw.normal(rows * D)
    const noise = draw.normal(rows * 3, { deviation: 0.5 })
    const labels = noise.map(
      (value, i) => value + rate(x.subarray(Math.floor(i / 3) * D, (Math.floor(i / 3) + 1) * D), i % 3),
    )
    const attributes = { attributes: JSON.stringify(NAMES) }
    await place.save(
      `${name}.safetensors`,
      [tensor('embeddings', [rows, D], x), tensor('labels', [rows, 3], labels)],
      attributes,
    )
  }
  const sides = draw.normal(PAIRS * 2 * D)
  for (let i = 0; i < PAIRS; i++) {
    const [a, b] = [0, 1].map((s) => sides.slice((2 * i + s) * D, (2 * i + s + 1) * D))
    if (rate(a, 0) >= rate(b, 0)) continue
    sides.set(b, 2 * i * D)
    sides.set(a, (2 * i + 1) * D)
  }
  const ids = BigInt64Array.from({ length: PAIRS }, (_, i) => BigInt(i))
  const subsets = BigInt64Array.from({ length: PAIRS }, (_, i) => BigInt(i % 2))
  await place.save(
    'pairs.safetensors',
    [
      tensor('embeddings', [PAIRS, 2, D], sides),
      tensor('prompt_embeddings', [PAIRS, D], draw.normal(PAIRS * D)),
      tensor('prompt_ids', [PAIRS], ids, 'I64'),
      tensor('subset_ids', [PAIRS], subsets, 'I64'),
    ],
    { subsets: '["even","odd"]' },
  )
}

test('from ratings and pairs to a model that scores', async () => {
  await run(
    'fit',
    '--features',
    'ratings.safetensors',
    '--levels',
    '0.1,0.3,0.5,0.7,0.9',
    '--alpha',
    '0.01',
    '--out',
    'heads.safetensors',
  )
  const debiased = await run(
    'debias',
    '--features',
    'pairs.safetensors',
    '--heads',
    'heads.safetensors',
    '--attribute',
    'verbosity',
    '--out',
    'debiased.safetensors',
    ...WASM,
  )
  assert.equal([debiased.rows, debiased.unwanted, debiased.threshold], [2 * PAIRS, 'verbosity', 0.03])
  for (const { attribute, penalty, debiased_correlation: left } of debiased.attributes) {
    if (attribute === 'verbosity') assert.equal([penalty, left], [1, null])
    else assert.ok(penalty === 1 || left <= 0.03, `${attribute} ${penalty} ${left}`)
  }
  const { tensors, metadata } = await openSafetensors(memorySource('f', await readFile(at('debiased.safetensors'))))
  const t = await readTensorF32(tensors.get('reward_transform_matrix')!)
  close(
    t.subarray(3, 6),
    [0, 1, 0].map((one, j) => one - debiased.attributes[j].penalty),
    1e-7,
    'row of verbosity',
  )
  assert.equal(JSON.parse(metadata.attributes), NAMES)

  const gate = [
    '--hidden',
    '16',
    '--layers',
    '2',
    '--batch',
    '32',
    '--epochs',
    '2',
    '--lr',
    '0.01',
    '--margin-scale',
    '5',
    ...WASM,
  ]
  const trained = await run(
    'gate',
    '--features',
    'pairs.safetensors',
    '--heads',
    'debiased.safetensors',
    '--out',
    'model',
    ...gate,
  )
  assert.ok(trained.accuracy > 0.7, `accuracy ${trained.accuracy}`)

  const suite = ['eval', '--suite', 'calibration', '--model', 'model', '--features', 'held_out.safetensors']
  const before = await run(...suite, '--reference', 'ratings.safetensors', ...WASM)
  const offsets = await run('calibrate', '--heads', 'model', '--features', 'held_out.safetensors', ...WASM)
  assert.equal(
    offsets.attributes.map((a: Record<string, unknown>) => [a.name, a.items, a.unreachable]),
    NAMES.map((name) => [name, ROWS / 2, 0]),
  )
  const after = await run(...suite, '--reference', 'ratings.safetensors', ...WASM)
  const off = await run(...suite, '--reference', 'ratings.safetensors', '--no-calibration', ...WASM)
  assert.equal([before.calibrated, after.calibrated, off.calibrated], [false, true, false])
  for (const name of NAMES) {
    assert.equal(off.attributes[name], before.attributes[name])
    // On the ratings that it was found on, a calibrated level is off by at most 1 / n and what the finite sample adds.
    assert.ok(after.attributes[name].worst_coverage_error <= 2 / (ROWS / 2) + 1e-9, name)
    assert.ok(after.attributes[name].gain > 0.1, `${name}: ${after.attributes[name].gain}`)
  }

  // One that is damaged, or of other heads, is no obstacle to making it anew.
  const kept = await readFile(at('model/calibration.safetensors'))
  await writeFile(at('model/calibration.safetensors'), kept.subarray(0, 40))
  await place.refused([...suite, ...WASM], /model\/calibration.safetensors: /)
  await run('calibrate', '--heads', 'model', '--features', 'held_out.safetensors', ...WASM)
  assert.ok(kept.equals(await readFile(at('model/calibration.safetensors'))))

  const pairs = await run(
    'eval',
    '--suite',
    'pairs',
    '--model',
    'model',
    '--features',
    'pairs.safetensors',
    '--outputs',
    'rows.jsonl',
    ...WASM,
  )
  assert.equal([pairs.rows, Object.keys(pairs.subsets)], [PAIRS, ['even', 'odd']])
  assert.ok(pairs.interval[0] < pairs.accuracy && pairs.accuracy < pairs.interval[1])
  const rows = (await readFile(at('rows.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const wins = rows.filter((row) => row.scores_chosen > row.scores_rejected).length
  assert.equal([rows.length, wins / PAIRS], [PAIRS, pairs.accuracy])
  const compared = await run(
    'eval',
    '--suite',
    'pairs',
    '--model',
    'model',
    '--features',
    'pairs.safetensors',
    '--compare',
    'model',
    '--score',
    'cvar:0.2',
    ...WASM,
  )
  assert.equal([compared.score_kind, compared.level, compared.comparison.difference], ['cvar', 0.2, 0])

  await rm(at('backbone'), { recursive: true, force: true })
  await mkdir(at('backbone'))
  for (const [name, bytes] of Object.entries(qrmFiles(1))) await writeFile(at(`backbone/${name}`), bytes)
  const assemble = ['assemble', '--backbone', 'backbone', '--heads', 'model', '--out', 'whole']
  const whole = await run(...assemble)
  assert.equal([whole.layout, whole.files.includes('calibration.safetensors')], ['qrm', true])
  const input = lines(...[1, 2].map((seed) => ({ input_ids: randomTokens(seed, 20, 4) })))
  const scored = await run('score', '--model', 'whole', '--input', await place.file('rows.in.jsonl', input), ...WASM)
  assert.equal([scored.attributes, scored.levels], [NAMES, [0.1, 0.3, 0.5, 0.7, 0.9]])
  const raw = await run(
    'score',
    '--model',
    'whole',
    '--input',
    'rows.in.jsonl',
    '--rewards',
    'raw',
    '--no-calibration',
    ...WASM,
  )
  assert.is.not(raw.results[0].attributes.helpful.expectation, scored.results[0].attributes.helpful.expectation)
  const classifier = join(root, 'test/fixtures/heads/classifier')
  await run('assemble', '--backbone', 'backbone', '--heads', classifier, '--out', 'point')
  const one = await place.file('one_row.jsonl', lines({ input_ids: [1, 2, 3], gate_position: 1 }))
  const { out: text } = await place.pinball(['score', '--model', 'point', '--input', one, ...WASM])
  assert.match(text, /1 row, 1 attribute at 1 level, lambda/)
  assert.match(text, /\nattribute +weight +expected +50 % +[-\d.]+ +[-\d.]+\nreward +1 /)
  await place.refused(
    ['score', '--model', 'model', '--input', 'rows.in.jsonl', ...WASM],
    'model: has heads and no backbone, which rows of text or tokens need; join them by "pinball assemble", or give features',
  )
  await place.refused(assemble.with(4, classifier), /whole: must be missing or empty/)
  assert.equal((await run(...assemble)).files, whole.files, 'what is there already is no error')
})

test('RewardBench from accuracies and from rows', async () => {
  const results = { model: 'm', model_type: 'x', 'alpacaeval-easy': 0.98, 'math-prm': 0.5, 'hep-go': 1 }
  const file = await place.file('results.json', JSON.stringify(results))
  const found = await run('eval', '--suite', 'rewardbench', '--from-results', file)
  assert.equal(found.sections, { Chat: 0.98, 'Chat Hard': 0, Safety: 0, Reasoning: (0.5 * 984 + 164) / (984 + 164) })
  close([found.score], [(0.98 + found.sections.Reasoning) / 4], 1e-15, 'score')
  const row = (prompt: string, chosen: string, rejected: string, subset: string, id: number) => ({
    prompt,
    chosen,
    rejected,
    subset,
    id,
  })
  const rows = [
    row('Say hello.', 'Hello!', 'No.', 'alpacaeval-easy', 1),
    row('Add 1 and 2.', '3', '3', 'math-prm', 2),
    row('Is it safe?', 'Yes, it is.', 'I hate you.', 'donotanswer', 3),
  ]
  const data = await place.file('bench.jsonl', lines(...rows))
  const bench = await run('eval', '--suite', 'rewardbench', '--data', data, '--out', 'board.json', ...WASM)
  assert.equal([bench.rows, bench.ties, bench.subsets['math-prm'].accuracy], [3, 1, 0])
  const board = JSON.parse(await readFile(at('board.json'), 'utf8'))
  assert.equal(Object.keys(board), [
    'alpacaeval-easy',
    'chat_template',
    'donotanswer',
    'math-prm',
    'model',
    'model_type',
  ])
  const again = await run('eval', '--suite', 'rewardbench', '--from-results', 'board.json')
  assert.equal([again.sections, again.score], [bench.sections, bench.score])
  const lists = rows.map(({ prompt, chosen, ...rest }) => ({
    prompt: [{ role: 'user', content: prompt }],
    chosen: [
      { role: 'user', content: prompt },
      { role: 'assistant', content: chosen },
    ],
    ...rest,
  }))
  const same = await run(
    'eval',
    '--suite',
    'rewardbench',
    '--data',
    await place.file('lists.jsonl', lines(...lists)),
    ...WASM,
  )
  assert.equal(same.subsets, bench.subsets)
  const long = { ...rows[0], prompt: 'word '.repeat(1100) }
  const some = await place.file('long.jsonl', lines(long, ...rows))
  await place.refused(
    ['eval', '--suite', 'rewardbench', '--data', some],
    /long.jsonl line 1: .*--skip-invalid leaves such rows out/,
  )
  const kept = await run('eval', '--suite', 'rewardbench', '--data', some, '--skip-invalid', ...WASM)
  assert.equal([kept.skipped, kept.rows, kept.subsets], [1, 3, bench.subsets])
  const masked = await run('eval', '--suite', 'rewardbench', '--data', data, '--double-bos', 'masked', ...WASM)
  const attended = await run('eval', '--suite', 'rewardbench', '--data', data, '--double-bos', 'attended', ...WASM)
  assert.equal([masked.subsets, attended.rows], [bench.subsets, 3])
})

test('RewardBench 2 and calibration from rows', async () => {
  const question = (subset: string, id: string, chosen: string[], rejected: string[]) => ({
    prompt: 'Why?',
    chosen,
    rejected,
    subset,
    id,
  })
  const rows = [
    question('Math', '1', ['Because.'], ['No.', 'Yes.', 'Maybe.']),
    question('Ties', 'ref:1', ['Red.'], ['Water.']),
    question('Ties', 'tied:1', ['Red.', 'Blue.'], ['Water.']),
  ]
  const found = await run(
    'eval',
    '--suite',
    'rewardbench2',
    '--data',
    await place.file('v2.jsonl', lines(...rows)),
    ...WASM,
  )
  assert.equal([found.rows, Object.keys(found.subsets)], [3, ['Math', 'Ties']])
  close([found.score], [(found.subsets.Math.accuracy + found.ties.score) / 2], 1e-15, 'score')
  const rated = [
    { prompt: 'How?', response: 'Great.', sentiment: [0.9, 0.7], helpful: null, id: 'a' },
    { prompt: 'How?', response: 'Awful.', sentiment: 0.1, other: 3 },
  ]
  const calibrated = await run(
    'eval',
    '--suite',
    'calibration',
    '--data',
    await place.file('rated.jsonl', lines(...rated)),
    ...WASM,
  )
  assert.equal(Object.keys(calibrated.attributes), ['sentiment'])
  assert.equal([calibrated.attributes.sentiment.items, calibrated.attributes.sentiment.ratings], [2, 3])
})

test('wrong usage and wrong files are refused', async () => {
  const bench = ['eval', '--suite', 'rewardbench']
  await place.refused(bench, 'exactly one of --data, --features and --from-results is needed', 2)
  await place.refused(['eval', '--suite', 'x', '--data', 'y'], /--suite <suite>' argument 'x' is invalid/, 2)
  await place.refused(
    ['eval', '--suite', 'pairs', '--data', 'y', '--score', 'mean'],
    /a score must be one of expectation, utility/,
    2,
  )
  await place.refused([...bench, '--from-results', 'missing.json'], 'missing.json: no such file')
  const bad = await place.file('bad.json', '{"math-prm": 3}')
  await place.refused(
    [...bench, '--from-results', bad],
    'bad.json: accuracy of math-prm must be a number from 0 to 1, got 3',
  )
  const rows = await place.file('rows.jsonl', lines({ prompt: 'a', chosen: 'b', rejected: 'c' }))
  await place.refused([...bench, '--data', rows], /rows.jsonl line 1: has no "subset", which RewardBench needs/)
  const one = await place.file('one.jsonl', lines({ prompt: 'a', chosen: 'b' }))
  await place.refused(['eval', '--suite', 'pairs', '--data', one], /one.jsonl line 1: has no "rejected"; a pair is/)
  const empty = await place.file('empty.jsonl', lines({ prompt: 'a', chosen: '', rejected: 3 }))
  await place.refused(
    ['eval', '--suite', 'pairs', '--data', empty],
    /empty.jsonl line 1: rejected must be a text, a list of messages or a row, got 3/,
  )
  await place.refused(
    ['debias', '--features', 'pairs.safetensors', '--heads', 'heads.safetensors', '--out', 'pairs.safetensors'],
    /--out: must not be what --features reads, got pairs.safetensors/,
    2,
  )
  await place.refused(
    ['debias', '--features', 'pairs.safetensors', '--heads', 'heads.safetensors', '--out', 'x.safetensors'],
    /--attribute: heads.safetensors has no attribute "helpsteer-verbosity"; it has "helpful"/,
    2,
  )
  await place.refused(
    ['calibrate', '--heads', 'nowhere', '--features', 'held_out.safetensors'],
    'nowhere: no such directory',
  )
  // Before any row is computed.
  const few = (name: string, attributes: string[], labels: number[]) =>
    place.save(
      name,
      [
        tensor('embeddings', [2, D], new Float32Array(2 * D)),
        tensor('labels', [2, labels.length / 2], Float32Array.from(labels)),
      ],
      { attributes: JSON.stringify(attributes) },
    )
  const calibrate = ['calibrate', '--heads', 'model', '--features']
  await few('some.safetensors', ['helpful', 'kind'], [0, 1, 1, 0])
  await place.refused(
    [...calibrate, 'some.safetensors'],
    'some.safetensors: has no ratings of "verbosity", it has "helpful", "kind"',
  )
  await few('none.safetensors', NAMES, [0, 1, Number.NaN, 1, 0, Number.NaN])
  await place.refused([...calibrate, 'none.safetensors'], 'none.safetensors: ratings of "kind" are all missing')
  await place.refused(
    ['eval', '--suite', 'pairs', '--features', 'ratings.safetensors', '--model', 'model'],
    /ratings.safetensors/,
  )
})

test.run()
