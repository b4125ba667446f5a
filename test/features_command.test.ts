// pinball features on ratings of several people, on pairs, on rows that are not valid, and in wrong use.
import { spawn } from 'node:child_process'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openFile } from '../src/files/disk.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { close, tolerance } from './assert.ts'
import { each, finish, lines, openWorkplace, root, WASM, type Workplace } from './command.ts'
import { fit, MODEL, make, manifest, read } from './feature_runs.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

test('ratings of several people are fitted as rows that are repeated', async () => {
  const draw = random(8)
  const rows = Array.from({ length: 80 }, (_, n) => ({
    input_ids: [...draw.integers(12, 0, 96)],
    good: n % 4 === 0 ? draw.next() : Array.from({ length: n % 4 }, () => draw.next()),
    fine: n % 3 === 0 ? [null, draw.next()] : draw.next(),
    trust: n % 5 === 0 ? 2 : 1,
  }))
  await place.file('several.jsonl', lines(...rows))
  const args = ['--labels', 'good,fine', '--weights', 'trust']
  const report = await make(place, '--input', 'several.jsonl', '--out', 'several.safetensors', ...args)
  const list = (value: number | (number | null)[]) => (Array.isArray(value) ? value : [value])
  const repeated = rows.flatMap(({ good, fine, ...row }) => {
    const count = Math.max(list(good).length, list(fine).length, 1)
    return Array.from({ length: count }, (_, t) => ({
      ...row,
      good: list(good)[t] ?? null,
      fine: list(fine)[t] ?? null,
    }))
  })
  assert.equal([report.rows, report.labels], [80, repeated.length])
  await place.file('repeated.jsonl', lines(...repeated))
  await make(place, '--input', 'repeated.jsonl', '--out', 'repeated.safetensors', ...args)
  const [several, copied] = [await read(place, 'several.safetensors'), await read(place, 'repeated.safetensors')]
  const L = repeated.length
  assert.equal(several.shapes, {
    label_rows: ['I64', L],
    embeddings: ['F32', 80, 32],
    labels: ['F32', L, 2],
    label_weights: ['F32', L],
  })
  assert.is('label_rows' in copied.shapes, false)
  close(several.floats.labels, copied.floats.labels, 0, 'labels')
  assert.equal(several.floats.label_weights, copied.floats.label_weights)
  const rating = ['--unit', 'rating']
  const [own, wanted] = [
    await fit(place, 'several.safetensors', ...rating),
    await fit(place, 'repeated.safetensors', ...rating),
  ]
  assert.is(own.length, 6)
  for (const [k, objective] of own.entries()) close([objective], [wanted[k]], 2e-4 * wanted[k], `level ${k}`)
})

test('pairs: both responses, the state of the prompt once, ids of prompts and subsets', async () => {
  const texts = [
    ['How are you?', 'Fine, thank you.', 'Go away.', 'kind'],
    ['What is a cat?', 'A small animal that purrs.', 'No.', 'facts'],
    ['How are you?', 'Well.', 'Why do you ask? It is none of your business at all.', 'kind'],
  ]
  const rows = texts.map(([prompt, chosen, rejected, subset], id) => ({
    prompt,
    chosen,
    rejected,
    subset,
    id,
    source: 'x',
  }))
  const nano = ['features', ...WASM, '--json', '--input']
  await place.file('pairs.jsonl', lines(...rows))
  const { code, err } = await place.pinball([...nano, 'pairs.jsonl', '--out', 'pairs.safetensors'])
  assert.equal([code, err], [0, 'pinball: note: fields that pairs do not have are left out: "source"\n'])
  const sides = texts.flatMap(([prompt, chosen, rejected]) =>
    [chosen, rejected].map((response) => ({ prompt, response })),
  )
  await place.file('sides.jsonl', lines(...sides))
  assert.is((await place.pinball([...nano, 'sides.jsonl', '--gate', '--out', 'sides.safetensors'])).code, 0)
  const [file, single] = [await read(place, 'pairs.safetensors'), await read(place, 'sides.safetensors')]
  const width = file.shapes.embeddings[3]
  assert.equal(file.shapes, {
    prompt_ids: ['I64', 3],
    subset_ids: ['I64', 3],
    embeddings: ['F32', 3, 2, width],
    prompt_embeddings: ['F32', 3, width],
  })
  assert.equal([file.metadata.subsets, file.whole.subset_ids], ['["kind","facts"]', [0, 1, 0]])
  const expected = single.floats.embeddings
  // 24 layers' worth of sums over at most 1024 terms.
  const limit = tolerance(24 * 1024, expected)
  close(file.floats.embeddings, expected, limit, 'embeddings')
  const prompts = single.floats.prompt_embeddings
  const chosen = [0, 2, 4].flatMap((row) => [...prompts.subarray(row * Number(width), (row + 1) * Number(width))])
  close(file.floats.prompt_embeddings, chosen, limit, 'prompts')
  const source = await openFile(at('pairs.safetensors'))
  const opened = await openPairs([source])
  assert.equal([[...opened.groups], opened.subsets, opened.sidesDiffer], [[0, 1, 0], ['kind', 'facts', 'kind'], false])
  await source.close()
  const user = (content: string) => ({ role: 'user', content })
  const answer = (content: string) => ({ role: 'assistant', content })
  const said = texts.map(([prompt, good, bad, subset], i) => ({
    subset,
    id: i,
    ...(i === 0 && { prompt, chosen: [user(prompt), answer(good)], rejected: [user(prompt), answer(bad)] }),
    ...(i === 1 && { prompt: [user(prompt)], chosen: good, rejected: bad }),
    ...(i === 2 && { prompt: [user(prompt)], chosen: [answer(good)], rejected: { prompt, response: bad } }),
  }))
  await place.file('said.jsonl', lines(...said))
  await place.pinball([...nano, 'said.jsonl', '--out', 'said.safetensors'])
  assert.ok((await readFile(at('said.safetensors'))).equals(await readFile(at('pairs.safetensors'))))
})

test('pairs whose prompts differ keep the states of both', async () => {
  const side = (first: number, ...rest: number[]) => ({ input_ids: [first, 5, 6, ...rest], gate_position: 1 })
  await place.file(
    'apart.jsonl',
    lines({ chosen: side(1, 2, 3), rejected: side(1, 9) }, { chosen: side(1, 4), rejected: side(2, 4) }),
  )
  await make(place, '--input', 'apart.jsonl', '--out', 'apart.safetensors', '--dtype', 'bf16')
  const file = await read(place, 'apart.safetensors')
  assert.equal(file.shapes.prompt_embeddings, ['BF16', 2, 2, 32])
  const states = file.floats.prompt_embeddings
  const at = (i: number) => [...states.subarray(i * 32, (i + 1) * 32)]
  assert.equal(at(0), at(1))
  assert.equal(at(0), at(2))
  assert.not.equal(at(2), at(3))
  const [one, other] = file.whole.prompt_ids
  assert.ok(one === other && Number.isSafeInteger(one))
})

test('rows that are not valid are named and left out where that is wanted', async () => {
  const row = { input_ids: [1, 2, 3], gate_position: 0 }
  const rows = [
    { ...row, good: 1, id: 'a' },
    { ...row, good: 'x' },
    { input_ids: [97], gate_position: 0, good: 1, id: 'c' },
    { input_ids: Array(6).fill(1), gate_position: 0, good: [] },
    { ...row, good: [2, 3] },
  ]
  await place.file('mixed.jsonl', lines(...rows))
  const args = ['--input', 'mixed.jsonl', '--labels', 'good', '--max-length', '5', '--out', 'left.safetensors']
  await place.refused([...MODEL, ...args], 'mixed.jsonl line 2: label "good" must be a number or null, got "x"')
  const { rows: count, labels, skipped, err } = await make(place, ...args, '--skip-invalid')
  assert.equal([count, labels, skipped], [2, 3, 3])
  const reasons: [string, string | number, string][] = [
    ['line 2', 2, 'label "good" must be a number or null, got "x"'],
    ['line 3', 'c', 'input_ids[0] must be a whole number from 0 to 96 (vocab_size), got 97'],
    ['line 4', 4, 'the row has 6 tokens, --max-length allows 5'],
  ]
  assert.is(err, reasons.map(([line, , why]) => `pinball: note: mixed.jsonl ${line} is left out: ${why}\n`).join(''))
  const about = await manifest(place, 'left.json')
  assert.equal([about.rows, about.skipped], [['a', 5], 3])
  assert.equal(
    about.skipped_rows,
    reasons.map(([, id, reason]) => ({ id, reason })),
  )
  await place.file('none.jsonl', lines(rows[2]))
  const none = ['--input', 'none.jsonl', '--out', 'none.safetensors', '--skip-invalid']
  await place.refused(
    [...MODEL, ...none],
    /^pinball: none.jsonl: has no row that is valid; the first: input_ids\[0\] must/,
  )
})

const ROW = { input_ids: [1, 2], gate_position: 0 }
const PAIR = { chosen: ROW, rejected: ROW }
const broken: [string, unknown[], string[], RegExp][] = [
  ['a text in a list', [{ ...ROW, good: [1, 'x'] }], [], /line 1: label "good"\[1\] must be a number or null, got "x"/],
  ['no weight', [{ ...ROW, good: 1 }], ['--weights', 'w'], /line 1: weight "w" must be a finite number .* got nothing/],
  ['a negative weight', [{ ...ROW, good: 1, w: -1 }], ['--weights', 'w'], /line 1: weight "w" must be .* got -1/],
  [
    'weights of other ratings',
    [{ ...ROW, good: [1, 2], w: [1] }],
    ['--weights', 'w'],
    /line 1: weights "w" must be one, or one for each of 2 ratings, got 1/,
  ],
  ['an id that is none', [{ ...ROW, good: 1, id: 1.5 }], [], /line 1: id must be a text .* got 1.5/],
  ['pairs among ratings', [{ ...ROW, good: 1 }, PAIR], [], /line 2: is a pair .* the rows before it are ratings/],
  ['ratings among pairs', [PAIR, ROW], ['none'], /line 2: is no pair .* the rows before it are pairs/],
  ['labels of pairs', [{ ...PAIR, good: 1 }], [], /line 1: is a pair, and pairs have no labels; leave out --labels/],
  [
    'half a pair',
    [{ chosen: ROW }],
    ['none'],
    /line 1: rejected must be a text, a list of messages or a row, got nothing/,
  ],
  [
    'a pair without prompt',
    [{ chosen: 'a', rejected: 'b' }],
    ['none'],
    /line 1: chosen is a text, so the row needs a "prompt"/,
  ],
  [
    'a broken side',
    [{ chosen: ROW, rejected: { input_ids: [97] } }],
    ['none'],
    /line 1: rejected: input_ids\[0\] must be/,
  ],
  ['a subset for some', [PAIR, { ...PAIR, subset: 'a' }], ['none'], /line 1: has no "subset", .* line 2 has one/],
]
each('features refuses', broken, async ([, rows, options, message], i) => {
  const input = await place.file(`broken${i}.jsonl`, lines(...rows))
  const labels = options[0] === 'none' ? [] : ['--labels', 'good', ...options]
  await place.refused([...MODEL, '--input', input, '--out', `broken${i}.safetensors`, ...labels], message)
  assert.is(
    (await readdir(place.folder)).some((name) => name.startsWith(`broken${i}.s`)),
    false,
  )
})

const FILES = ['features', '--input', 'a.jsonl', '--out', 'b.safetensors']
const usage: [string, string[], RegExp][] = [
  ['a shard that is none', [...FILES, '--shard', '2/2'], /--shard: i counts from 0, .* at most 1 of 2 shards, got 2/],
  ['a shard of nobody', [...FILES, '--shard', '2'], /--shard: "2" needs one of JOB_COMPLETION_INDEX/],
  ['weights of nothing', [...FILES, '--weights', 'w'], /--weights: needs --labels/],
  ['an id as label', [...FILES, '--labels', 'id'], /--labels: "id" is what is scored/],
  ['a type of eight bits', [...FILES, '--dtype', 'f8'], /'f8' is invalid\. Allowed choices are f32, bf16/],
]
each('features, wrong usage:', usage, ([, args, message]) => place.refused(args, message, 2))

test('neither the input nor a file of somebody else is written over', async () => {
  await place.file('mine.json', '{"a": 1}\n')
  await place.file('own.jsonl', lines(ROW))
  const args = (input: string, out: string) => [...MODEL, '--input', input, '--out', out]
  await place.refused(
    args('own.jsonl', 'mine.safetensors'),
    /^pinball: mine.json: is where the manifest goes, and is something/,
  )
  await place.refused(args('own.jsonl', 'own.jsonl'), /--out: must not be what --input reads, got own.jsonl/, 2)
  await place.file('hub', lines(ROW))
  await place.refused(args('hub', 'hub'), /--out: must not be what --input reads, got hub/, 2)
  const stdin = await open(at('own.jsonl'))
  const child = spawn(process.execPath, [join(root, 'dist/pinball.js'), ...args('-', 'own.jsonl')], {
    cwd: place.folder,
    stdio: [stdin.fd, 'pipe', 'pipe'],
  })
  assert.match(
    (await finish(child)).err,
    /--out: must not be what --input reads, got own.jsonl \(--input has \/dev\/stdin/,
  )
  await stdin.close()
  await place.refused(args('mine.json', 'mine.safetensors'), /--out: must not be what --input reads, got mine.json/, 2)
  assert.equal(
    [await readFile(at('mine.json'), 'utf8'), await readFile(at('own.jsonl'), 'utf8')],
    ['{"a": 1}\n', lines(ROW)],
  )
})

test.run()
