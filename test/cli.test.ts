// The command as a user runs it: outputs, files, exit codes, and every kind of broken model, row and usage.
import { type ChildProcess, spawn } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openFile } from '../src/files/disk.ts'
import {
  encodeSafetensors,
  openSafetensors,
  readTensor,
  readTensorF32,
  type TensorData,
} from '../src/files/safetensors.ts'
import { close, tolerance } from './assert.ts'
import { random } from './random.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const command = join(root, 'dist/pinball.js')
const qrm = join(root, 'test/fixtures/qrm/debiased')
let folder = ''

interface Ended {
  code: number | null
  out: string
  err: string
}

function launch(args: readonly string[], stdin = ''): ChildProcess {
  const child = spawn(process.execPath, [command, ...args], { cwd: folder, stdio: 'pipe' })
  child.stdin?.on('error', () => {}) // it may end without reading
  child.stdin?.end(stdin)
  return child
}

function pinball(args: readonly string[], stdin?: string): Promise<Ended> {
  const child = launch(args, stdin)
  const ended: Ended = { code: null, out: '', err: '' }
  child.stdout?.on('data', (bytes) => {
    ended.out += bytes
  })
  child.stderr?.on('data', (bytes) => {
    ended.err += bytes
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...ended, code }))
  })
}

const WASM = ['--device', 'wasm', '--threads', '1']

/** Runs a command that must fail with this message on one line, nothing on standard output, and this exit code. */
async function refused(args: readonly string[], message: string | RegExp, code = 1, stdin?: string): Promise<void> {
  const ended = await pinball(args, stdin)
  if (typeof message === 'string') assert.is(ended.err, `pinball: ${message}\n`)
  else assert.match(ended.err, message)
  assert.match(ended.err, /^pinball: [^\n]+\n$/)
  assert.is(ended.out, '')
  assert.is(ended.code, code)
}

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(folder, name), text)
  return name
}

const lines = (...rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

test.before(async () => {
  await import('../build.ts')
  folder = await mkdtemp(join(tmpdir(), 'pinball-cli-'))
})

test.after(async () => {
  await rm(folder, { recursive: true })
})

// Scores

interface Scored {
  model: string
  device: string
  levels: number[]
  attributes: string[]
  results: {
    score: number
    expectation: number
    utility: number
    quantiles: number[]
    attributes: Record<string, { expectation: number; quantiles: number[] }>
    gate: Record<string, number>
    tokens: number
  }[]
}

test('score: a directory without tokenizer scores token ids as the reference does', async () => {
  const source = await openFile(join(qrm, 'expected.safetensors'))
  const { tensors } = await openSafetensors(source)
  const words = async (name: string) => Array.from(new Int32Array((await readTensor(tensors.get(name)!)).buffer))
  const gates = await words('gate_position')
  const rows: unknown[] = []
  for (const [i, position] of gates.entries()) {
    rows.push({ input_ids: await words(`tokens_${i}`), gate_position: position })
  }
  const { code, out, err } = await pinball(['score', '--model', qrm, ...WASM, '--json', '-'], lines(...rows))
  assert.equal([code, err], [0, ''])
  const scored: Scored = JSON.parse(out)
  assert.equal(Object.keys(scored), ['model', 'device', 'levels', 'attributes', 'results'])
  assert.is(scored.device, 'wasm')
  assert.is(scored.levels.length, 19)
  assert.is(scored.attributes.length, 19)
  const fields = ['score', 'expectation', 'utility', 'quantiles', 'attributes', 'gate', 'tokens']
  for (const result of scored.results) assert.equal(Object.keys(result), fields)
  const expected = {
    quantiles: await readTensorF32(tensors.get('quantiles')!),
    score: await readTensorF32(tensors.get('score')!),
  }
  const limit = 1e-4 * Math.max(...expected.quantiles.map(Math.abs))
  close(
    scored.results.flatMap((result) => result.quantiles),
    expected.quantiles,
    limit,
    'quantiles',
  )
  close(
    scored.results.map((result) => result.score),
    expected.score,
    limit,
    'score',
  )
  const first = scored.results[0]
  assert.equal(Object.keys(first.gate), scored.attributes)
  assert.equal(Object.keys(first.attributes), scored.attributes)
  const utilities = scored.results.map(({ quantiles }) => -quantiles.reduce((sum, q) => sum + Math.exp(-q), 0) / 19)
  close(
    scored.results.map((result) => result.utility),
    utilities,
    tolerance(19, utilities),
    'utility',
  )
  await source.close()
})

test('score: the embedded model, text and conversations, one row or many', async () => {
  const prompt = 'How was the film?'
  const pair = ['score', '--prompt', prompt, '--response', 'A delight.', '--response', '- dull -', ...WASM]
  const { code, out, err } = await pinball([...pair, '--json'])
  assert.equal([code, err], [0, ''])
  const own: Scored = JSON.parse(out)
  assert.is(own.model, 'models/nano')
  assert.is(own.results.length, 2)
  const rows = await file(
    'rows.jsonl',
    lines(
      { prompt, response: 'A delight.' },
      {
        messages: [
          { role: 'user', content: prompt },
          { role: 'assistant', content: '- dull -' },
        ],
      },
    ),
  )
  const read: Scored = JSON.parse((await pinball(['score', '--input', rows, ...WASM, '--json'])).out)
  assert.equal(read.results, own.results)
  const table = await pinball(pair)
  assert.is(table.code, 0)
  assert.match(table.out, /^models\/nano on .*: 2 rows, \d+ attributes at 19 levels, lambda 1\n/)
  assert.match(table.out, /\n {2}1 .*[▁▂▃▄▅▆▇█].* A delight\.\n {2}2 .*[▁▂▃▄▅▆▇█].* - dull -\n/)
  const one = await pinball(['score', '--prompt', prompt, '--response', 'A delight.', ...WASM])
  assert.match(one.out, /\nattribute +weight +expected/)
})

test('score: lambda changes the utility alone', async () => {
  const args = ['score', '--prompt', 'a', '--response', 'b', ...WASM, '--json']
  const [mild, harsh]: Scored[] = await Promise.all(
    ['0', '4'].map(async (lambda) => JSON.parse((await pinball([...args, '--lambda', lambda])).out)),
  )
  assert.is(mild.results[0].utility, -1)
  const { quantiles } = harsh.results[0]
  const utility = -quantiles.reduce((sum, q) => sum + Math.exp(-4 * q), 0) / quantiles.length
  close([harsh.results[0].utility], [utility], 1e-12 * Math.abs(utility), 'utility')
  assert.equal({ ...mild.results[0], utility: 0 }, { ...harsh.results[0], utility: 0 })
})

// Features and fits

test('features and fit: files that follow the contract', async () => {
  const draw = random(1)
  const rows = Array.from({ length: 40 }, (_, n) => ({
    input_ids: [...draw.integers(5 + (n % 7), 0, 97)],
    gate_position: 2,
    kind: n % 3 === 0 ? null : draw.next(),
    dull: draw.next() - 0.5,
    year: 2000 + n,
  }))
  const input = await file('ratings.jsonl', lines(...rows))
  const args = [
    'features',
    '--model',
    qrm,
    '--input',
    input,
    '--out',
    'f.safetensors',
    '--labels',
    'dull,kind',
    '--gate',
  ]
  const made = await pinball([...args, ...WASM])
  assert.is(made.err, 'pinball: note: fields that --labels does not name are left out: "year"\n')
  assert.match(made.out, /^f\.safetensors: features of 40 rows, 32 columns, 2 labels \(/)
  assert.is(made.code, 0)
  const features = await openSafetensors(await openFile(join(folder, 'f.safetensors')))
  assert.equal([...features.tensors.keys()].sort(), ['embeddings', 'labels', 'prompt_embeddings'])
  assert.equal(features.tensors.get('embeddings')!.shape, [40, 32])
  assert.equal(features.tensors.get('prompt_embeddings')!.shape, [40, 32])
  const labels = rows.flatMap(({ dull, kind }) => [dull, kind ?? Number.NaN])
  close(await readTensorF32(features.tensors.get('labels')!), new Float32Array(labels), 0, 'labels')
  assert.is(features.metadata.attributes, '["dull","kind"]')
  assert.match(features.metadata.fingerprint, /^[0-9a-f]{64}$/)

  const fit = ['fit', '--features', 'f.safetensors', '--out', 'h.safetensors', '--levels', '0.1,0.5,0.9', '--intercept']
  const fitted = await pinball([...fit, '--alpha', '0.01', '--json'])
  assert.equal([fitted.code, fitted.err], [0, ''])
  const report = JSON.parse(fitted.out)
  assert.equal(Object.keys(report), ['rows', 'columns', 'alpha', 'fits', 'ms'])
  assert.equal([report.rows, report.columns, report.alpha, report.fits.length], [40, 32, 0.01, 6])
  const fields = ['attribute', 'level', 'objective', 'dual', 'gap', 'status', 'nonzeros', 'iterations', 'ms', 'method']
  assert.equal(Object.keys(report.fits[0]), fields)
  assert.equal(
    report.fits.map(({ attribute, level }: { attribute: string; level: number }) => [attribute, level]),
    ['dull', 'kind'].flatMap((name) => [0.1, 0.5, 0.9].map((level) => [name, level])),
  )
  const heads = await openSafetensors(await openFile(join(folder, 'h.safetensors')))
  assert.equal(heads.tensors.get('regression_layer.weight')!.shape, [6, 32])
  assert.equal(heads.tensors.get('regression_layer.bias')!.shape, [6])
  assert.equal(heads.metadata.levels, '[0.1,0.5,0.9]')
  assert.is(heads.metadata.attributes, '["dull","kind"]')
  const table = await pinball(fit)
  assert.match(table.out, /\ndull +0\.1 .*\n[^]*h\.safetensors: 6 heads over 32 columns from 40 rows\n$/)
  await heads.tensors.get('regression_layer.bias')!.source.close()
  await features.tensors.get('labels')!.source.close()
})

test('fit: a tolerance that cannot be met ends with 3 and a file', async () => {
  await writeFeatures('hard.safetensors', 200, 20)
  const ended = await pinball([
    'fit',
    '--features',
    'hard.safetensors',
    '--out',
    'hard-h.safetensors',
    '--levels',
    '3',
    '--tolerance',
    '1e-300',
  ])
  const { tensors } = await openSafetensors(await openFile(join(folder, 'hard-h.safetensors')))
  assert.equal(tensors.get('regression_layer.weight')!.shape, [3, 20])
  await tensors.get('regression_layer.weight')!.source.close()
  if (ended.code === 0) return // solved as far as float32 can tell
  assert.is(ended.code, 3)
  assert.match(ended.err, /^pinball: fit: \d of 3 levels missed the tolerance 1e-300; /)
})

async function writeFeatures(name: string, rows: number, columns: number, changes: (data: Data) => void = () => {}) {
  const draw = random(2)
  const data: Data = { embeddings: draw.normal(rows * columns), labels: draw.uniform(rows), metadata: {} }
  changes(data)
  const tensors: TensorData[] = [{ name: 'embeddings', dtype: 'F32', shape: [rows, columns], data: data.embeddings }]
  if (data.labels) tensors.push({ name: 'labels', dtype: 'F32', shape: [data.labels.length, 1], data: data.labels })
  await writeFile(join(folder, name), Buffer.concat(encodeSafetensors(tensors, data.metadata)))
  return name
}

interface Data {
  embeddings: Float32Array
  labels?: Float32Array
  metadata: Record<string, string>
}

const brokenFeatures: [string, (data: Data) => void, string][] = [
  [
    'no labels',
    (data) => delete data.labels,
    'has no tensor "labels"; make the file with "pinball features --labels ..."',
  ],
  [
    'other rows',
    (data) => (data.labels = new Float32Array(3)),
    'labels must be [4, M], as embeddings has 4 rows, got [3,1]',
  ],
  [
    'all missing',
    (data) => data.labels?.fill(Number.NaN),
    'labels of "objective_0" are all missing; leave it out of --labels',
  ],
  [
    'infinite label',
    (data) => data.labels?.fill(Infinity, 2, 3),
    'labels of "objective_0" must be finite, row 2 has Infinity',
  ],
  ['NaN features', (data) => data.embeddings.fill(Number.NaN, 5, 6), 'embeddings must be finite, row 2 has NaN'],
  [
    'names',
    (data) => (data.metadata.attributes = '["a","b"]'),
    'attributes in the metadata must be a list of 1 names, got ["a","b"]',
  ],
]
for (const [name, changes, message] of brokenFeatures) {
  test(`fit refuses ${name}`, async () => {
    const features = await writeFeatures('broken.safetensors', 4, 2, changes)
    await refused(['fit', '--features', features, '--out', 'x.safetensors'], `${features}: ${message}`)
  })
}

test('outputs that cannot be written are found before the work', async () => {
  const features = await writeFeatures('good.safetensors', 4, 2)
  const out = 'nowhere/x.safetensors'
  const message = `${out}: cannot be written: no such directory: nowhere`
  await refused(['fit', '--features', features, '--out', out], message)
  await refused(['features', '--input', 'missing.jsonl', '--out', out], message)
})

// Broken rows

const USER = { role: 'user', content: 'a' }
const brokenRows: [string, string, RegExp][] = [
  ['an empty file', '', /^pinball: bad.jsonl: has no rows; give one JSON object a line\n/],
  [
    'a bad last line',
    `${lines({ input_ids: [1, 2], gate_position: 0 }).repeat(6)}{"input_ids":`,
    /bad.jsonl line 7: not valid JSON/,
  ],
  ['a blank line', '{"input_ids":[1],"gate_position":0}\n\n{}', /bad.jsonl line 2: is blank/],
  ['a list', '[1]', /bad.jsonl line 1: a row must be an object, got \[1\]/],
  ['an empty row', '{}', /bad.jsonl line 1: /],
  ['no tokens', '{"input_ids":[],"gate_position":0}', /line 1: input_ids must have at least one token/],
  ['a token out of range', '{"input_ids":[96,97],"gate_position":0}', /line 1: input_ids\[1\] must be .* 96.*, got 97/],
  ['a negative token', '{"input_ids":[-1],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got -1/],
  ['a token in part', '{"input_ids":[1.5],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got 1.5/],
  ['a token of text', '{"input_ids":["1"],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got "1"/],
  ['a gate position past the end', '{"input_ids":[1],"gate_position":1}', /line 1: gate_position must be .*, got 1/],
  ['a negative gate position', '{"input_ids":[1],"gate_position":-1}', /line 1: gate_position must be .*, got -1/],
  ['no gate position', '{"input_ids":[1,2,3]}', /line 1: .*gate/],
  ['an unknown field', '{"input_ids":[1],"gate_position":0,"note":"x"}', /line 1: unknown field "note"/],
  ['an unknown number', '{"input_ids":[1],"gate_position":0,"rating":5}', /line 1: unknown field "rating"/],
  ['two kinds', '{"input_ids":[1],"gate_position":0,"prompt":"x"}', /line 1: unknown field "prompt"/],
  ['a field twice', '{"input_ids":[1],"gate_position":0,"input_ids":[2]}', /line 1: "input_ids" is there twice/],
  ['text without a tokenizer', '{"prompt":"a","response":"b"}', /line 1: .*no tokenizer/],
  [
    'too many tokens',
    JSON.stringify({ input_ids: Array(1025).fill(1), gate_position: 0 }),
    /line 1: .* 1025 tokens.* 1024/,
  ],
]
for (const [name, text, message] of brokenRows) {
  test(`score refuses ${name}`, async () => {
    await refused(['score', '--model', qrm, ...WASM, '--input', await file('bad.jsonl', text)], message)
  })
}

const brokenText: [string, unknown, RegExp][] = [
  ['nothing said', { prompt: '', response: '' }, /standard input line 1: prompt and response must not both be empty/],
  ['a prompt alone', { prompt: 'a' }, /standard input line 1: .*"response"/],
  ['a number', { prompt: 'a', response: 5 }, /standard input line 1: response must be a text, got 5/],
  ['no messages', { messages: [] }, /standard input line 1: messages must be .* at least one message/],
  [
    'a message without role',
    { messages: [{ content: 'a' }] },
    /standard input line 1: messages\[0\]\.role must be a text/,
  ],
  ['an unknown field of a message', { messages: [{ ...USER, name: 'x' }] }, /messages\[0\]: unknown field "name"/],
  [
    'a last message by the user',
    { messages: [USER] },
    /standard input line 1: messages must end with role "assistant"/,
  ],
  ['a lone surrogate', { prompt: '\ud800', response: 'b' }, /standard input line 1: .*lone surrogate/],
]
for (const [name, row, message] of brokenText) {
  test(`score refuses ${name}`, async () => refused(['score', ...WASM, '-'], message, 1, JSON.stringify(row)))
}

const ROW = { input_ids: [1, 2], gate_position: 0 }
const brokenLabels: [string, string, RegExp][] = [
  ['text', lines({ ...ROW, good: 1 }, { ...ROW, good: 'x' }), /line 2: label "good" must be a number or null, got "x"/],
  ['truth', lines({ ...ROW, good: true }), /line 1: label "good" must be a number or null, got true/],
  [
    'infinity',
    '{"input_ids":[1],"gate_position":0,"good":1e999}',
    /line 1: label "good" must be a finite float32 number, got Inf/,
  ],
  ['NaN', '{"input_ids":[1],"gate_position":0,"good":NaN}', /line 1: not valid JSON/],
  ['a name nobody has', lines({ ...ROW, fine: 1 }), /--labels: no row has a field "good"/],
  ['an unlisted text', lines({ ...ROW, good: 1, who: 'x' }), /line 1: unknown field "who"/],
]
for (const [name, text, message] of brokenLabels) {
  test(`features refuses ${name} as a label`, async () => {
    const input = await file('bad.jsonl', text)
    await refused(
      ['features', '--model', qrm, ...WASM, '--input', input, '--out', 'x.safetensors', '--labels', 'good'],
      message,
    )
    assert.is((await readdir(folder)).includes('x.safetensors'), false)
  })
}

// Broken model directories

type Tensors = Map<string, TensorData>
interface Broken {
  config?: (json: Record<string, unknown>) => void
  manifest?: unknown
  tensors?: (tensors: Tensors) => void
  bytes?: (file: Uint8Array) => Uint8Array
}

async function breakModel({ config, manifest, tensors, bytes }: Broken): Promise<string> {
  const target = join(folder, 'model')
  await rm(target, { recursive: true, force: true })
  await cp(qrm, target, { recursive: true })
  if (config) {
    const json = JSON.parse(await readFile(join(qrm, 'config.json'), 'utf8'))
    config(json)
    await writeFile(join(target, 'config.json'), JSON.stringify(json))
  }
  if (manifest) await writeFile(join(target, 'pinball.json'), JSON.stringify(manifest))
  const weights = join(target, 'model.safetensors')
  if (tensors) {
    const source = await openFile(join(qrm, 'model.safetensors'))
    const changed: Tensors = new Map()
    for (const [name, info] of (await openSafetensors(source)).tensors) {
      changed.set(name, { name, dtype: info.dtype, shape: info.shape, data: await readTensor(info) })
    }
    await source.close()
    tensors(changed)
    await writeFile(weights, Buffer.concat(encodeSafetensors([...changed.values()])))
  }
  if (bytes) await writeFile(weights, bytes(await readFile(weights)))
  return target
}

function reshape(tensors: Tensors, name: string, shape: number[]): void {
  const { dtype, data } = tensors.get(name)!
  const size = shape.reduce((a, b) => a * b, 1) * (dtype === 'F32' ? 4 : 2)
  tensors.set(name, { name, dtype, shape, data: new Uint8Array(data.buffer, data.byteOffset).slice(0, size) })
}

function poison(tensors: Tensors, name: string): void {
  const data = new Uint8Array((tensors.get(name)!.data as Uint8Array).slice())
  data.fill(0xff, 4, 8) // a NaN in float32, and two in half precision
  tensors.set(name, { ...tensors.get(name)!, data })
}

function longHeader(file: Uint8Array): Uint8Array {
  const changed = new Uint8Array(file)
  new DataView(changed.buffer).setBigUint64(0, 99_000_000n, true)
  return changed
}

const brokenModels: [string, Broken, RegExp][] = [
  [
    'a truncated header',
    { bytes: (file) => file.slice(0, 100) },
    /model\.safetensors: header of \d+ bytes exceeds the file \(100 bytes\)/,
  ],
  ['an oversized header', { bytes: longHeader }, /model\.safetensors: header of 99000000 bytes exceeds the file/],
  [
    'an empty file',
    { bytes: () => new Uint8Array(0) },
    /model\.safetensors: not a safetensors file, it has only 0 bytes/,
  ],
  ['truncated tensors', { bytes: (file) => file.slice(0, -1) }, /model\.safetensors: tensor ".*": ends at byte/],
  ['a missing layer', { tensors: (all) => all.delete('model.norm.weight') }, /missing.*model\.norm\.weight/],
  ['a missing head', { tensors: (all) => all.delete('regression_layer.weight') }, /missing.*regression_layer\.weight/],
  ['a missing gate', { tensors: (all) => all.delete('gating.logit_scale') }, /missing.*gating\.logit_scale/],
  [
    'an unexpected tensor',
    { tensors: (all) => all.set('extra', { ...all.get('gating.logit_scale')!, name: 'extra' }) },
    /unexpected.*"extra"/,
  ],
  [
    'a mis-shaped layer',
    { tensors: (all) => reshape(all, 'model.norm.weight', [31]) },
    /model\.norm\.weight.*\[32\].*\[31\]/,
  ],
  [
    'a mis-shaped head',
    { tensors: (all) => reshape(all, 'regression_layer.weight', [360, 32]) },
    /regression_layer\.weight.*\[361, 32\].*\[360, 32\]/,
  ],
  ['NaN in a layer', { tensors: (all) => poison(all, 'model.layers.0.mlp.up_proj.weight') }, /up_proj\.weight.*NaN/],
  ['NaN in the embedding', { tensors: (all) => poison(all, 'model.embed_tokens.weight') }, /embed_tokens\.weight.*NaN/],
  ['NaN in a head', { tensors: (all) => poison(all, 'regression_layer.weight') }, /regression_layer\.weight.*NaN/],
  ['NaN in the gate', { tensors: (all) => poison(all, 'gating.layers.2.running_var') }, /running_var.*NaN/],
  [
    'impossible head counts',
    { config: (json) => (json.num_key_value_heads = 3) },
    /config\.json: num_attention_heads 4 must be a multiple of num_key_value_heads 3/,
  ],
  [
    'no heads',
    { config: (json) => (json.num_attention_heads = 0) },
    /config\.json: num_attention_heads must be a whole number of at least 1, got 0/,
  ],
  [
    'biases',
    { config: (json) => (json.attention_bias = true) },
    /config\.json: attention_bias must be false, got true/,
  ],
  ['MLP biases', { config: (json) => (json.mlp_bias = true) }, /config\.json: mlp_bias must be false, got true/],
  ['another architecture', { config: (json) => (json.model_type = 'gemma2') }, /config\.json: must be a Llama model/],
  ['an odd vocabulary', { config: (json) => (json.vocab_size = 98) }, /embed_tokens\.weight.*\[98, 32\].*\[97, 32\]/],
  ['no objectives', { config: (json) => delete json.num_objectives }, /config\.json: num_objectives is missing/],
  ['an unknown manifest key', { manifest: { level: [0.5] } }, /pinball\.json: unknown key "level"/],
  ['levels that fall', { manifest: { levels: [0.5, 0.4] } }, /pinball\.json: levels/],
]
for (const [name, broken, message] of brokenModels) {
  test(`score refuses a model with ${name}`, async () => {
    await refused(['score', '--model', await breakModel(broken), ...WASM, '-'], message, 1, JSON.stringify(ROW))
  })
}

test('score refuses directories that are none', async () => {
  const rows = await file('row.jsonl', lines(ROW))
  await refused(['score', '--model', 'nowhere', '--input', rows], 'nowhere: no such directory')
  await refused(
    ['score', '--model', rows, '--input', rows],
    `${rows}: is not a directory; a model is a directory with config.json`,
  )
  await refused(['score', '--model', '.', '--input', rows, ...WASM], /^pinball: \.\/config\.json: is missing/)
  await refused(['score', '--input', 'none.jsonl'], 'none.jsonl: no such file')
  await refused(['score', '--input', '.'], '.: is a directory, a file is needed')
})

// Usage

const FILES = ['--input', 'a.jsonl', '--out', 'b.safetensors']
const FIT = ['fit', '--features', 'a', '--out', 'b']
const usage: [string, string[], RegExp][] = [
  ['no command', [], /a command is needed; see pinball --help/],
  ['an unknown command', ['scores'], /unknown command 'scores' \(Did you mean score\?\)/],
  ['an unknown option', ['score', '--jsn'], /unknown option '--jsn' \(Did you mean --json\?\)/],
  ['nothing to score', ['score'], /nothing to score/],
  ['a prompt alone', ['score', '--prompt', 'a'], /--prompt needs --response/],
  ['a response alone', ['score', '--response', 'a'], /--response needs --prompt/],
  ['two inputs', ['score', '--prompt', 'a', '--response', 'b', '--input', 'c'], /exclude each other/],
  ['standard input and a file', ['score', '--input', 'c', '-'], /exclude each other/],
  ['an argument', ['score', 'rows.jsonl'], /unexpected argument "rows.jsonl"; use --input FILE/],
  ['a missing value', ['score', '--input'], /option '--input <file>' argument missing/],
  ['lambda no number', ['score', '--lambda', 'two', '-'], /'two' is invalid\. Must be a number of at least 0\./],
  ['a negative lambda', ['score', '--lambda', '-1', '-'], /'-1' is invalid/],
  [
    'an unknown device',
    ['score', '--device', 'cuda', '-'],
    /'cuda' is invalid\. Allowed choices are auto, webgpu, webgpu:software, wasm\./,
  ],
  ['no threads', ['score', '--threads', '0', '-'], /'0' is invalid\. Must be a whole number from 1 to 64\./],
  ['features without output', ['features', '--input', 'a'], /required option '--out <file>' not specified/],
  ['features without input', ['features', '--out', 'a'], /required option '--input <file>' not specified/],
  ['an empty label', ['features', ...FILES, '--labels', 'a,,b'], /none empty/],
  ['a label twice', ['features', ...FILES, '--labels', 'a,b,a'], /"a" is there twice/],
  ['a label that is no label', ['features', ...FILES, '--labels', 'a,prompt'], /"prompt" is what is scored/],
  ['fit without features', ['fit', '--out', 'a'], /required option '--features <file>' not specified/],
  ['no levels', [...FIT, '--levels', '0'], /Must be a number of levels, or levels between 0 and 1/],
  ['a level of one', [...FIT, '--levels', '0.5,1'], /levels between 0 and 1/],
  ['a half level', [...FIT, '--levels', '1.5'], /levels between 0 and 1/],
  ['levels that fall', [...FIT, '--levels', '0.5,0.4'], /Levels must increase/],
  ['a level twice', [...FIT, '--levels', '0.5,0.5'], /Levels must increase/],
  ['words for levels', [...FIT, '--levels', 'many'], /levels between 0 and 1/],
  ['a negative alpha', [...FIT, '--alpha', '-0.1'], /'-0.1' is invalid\. Must be a number of at least 0\./],
  ['a tolerance of one', [...FIT, '--tolerance', '1'], /Must be a number between 0 and 1\./],
  ['an argument of devices', ['devices', 'all'], /too many arguments for 'devices'/],
  ['a start prompt alone', ['start', '--prompt', 'a'], /--prompt needs --response/],
]
for (const [name, args, message] of usage) {
  test(`wrong usage: ${name}`, () => refused(args, message, 2))
}

test('help of every command has examples; the version is that of the package', async () => {
  for (const name of ['score', 'features', 'fit', 'devices', 'start']) {
    const { code, out, err } = await pinball([name, '--help'])
    assert.equal([code, err], [0, ''])
    assert.match(out, new RegExp(`^Usage: pinball ${name} [^]*\\n {2}\\$ .*pinball ${name}`))
  }
  const help = await pinball(['--help'])
  assert.match(help.out, /Commands:[^]*Exit codes:[^]*Examples:/)
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  assert.is((await pinball(['--version'])).out, `${version}\n`)
})

test('--debug adds the stack', async () => {
  const { code, err, out } = await pinball(['score', '--input', 'none.jsonl', '--debug'])
  assert.equal([code, out], [1, ''])
  assert.match(err, /^pinball: none\.jsonl: no such file\nError: none\.jsonl: no such file\n {4}at /)
})

// Devices, start, and the ends that users make

test('devices: wasm is always there, the others say why not', async () => {
  const { code, out, err } = await pinball(['devices', '--json'])
  assert.equal([code, err], [0, ''])
  const { auto, devices } = JSON.parse(out)
  assert.equal(
    devices.map(({ device }: { device: string }) => device),
    ['webgpu', 'webgpu:software', 'wasm'],
  )
  for (const { device, available, description, limits } of devices) {
    assert.ok(description.length > 0, device)
    if (available && device !== 'wasm') assert.ok(limits.maxStorageBufferBindingSize > 0)
  }
  assert.ok(devices[2].available)
  assert.is(auto, devices[0].available ? 'webgpu' : 'wasm')
  assert.match((await pinball(['devices'])).out, /\nwasm( \(auto\))?: WebAssembly SIMD/)
})

test('start: built-in prompts, and what risk aversion changes', async () => {
  const { code, out, err } = await pinball(['start', ...WASM])
  assert.equal([code, err], [0, ''])
  assert.ok((out.match(/^\d\. .+\?|^\d\. .+\.$/gm)?.length ?? 0) >= 4)
  assert.match(out, /\nE /)
  assert.match(out, /What risk aversion changes:\n {2}1\. /)
  const own = await pinball([
    'start',
    '--prompt',
    'How are you?',
    '--response',
    'Fine.',
    '--response',
    'Go away.',
    ...WASM,
  ])
  assert.match(own.out, /\n1\. How are you\?\n[^]*Fine\.\n[^]*Go away\.\n/)
})

test('a reader that goes away ends the command quietly', async () => {
  const rows = await file('many.jsonl', lines(ROW).repeat(2000))
  const child = launch(['score', '--model', qrm, '--input', rows, '--json', ...WASM])
  let err = ''
  child.stderr?.on('data', (bytes) => {
    err += bytes
  })
  child.stdout?.once('data', () => child.stdout?.destroy())
  const code = await new Promise((resolve) => child.on('close', resolve))
  assert.equal([code, err], [0, ''])
})

test('an interrupt ends with 130 and leaves no file', async () => {
  const draw = random(3)
  const rows = Array.from({ length: 3000 }, () => ({ input_ids: [...draw.integers(1000, 0, 97)] }))
  const input = await file('long.jsonl', lines(...rows))
  const child = launch(['features', '--model', qrm, '--input', input, '--out', 'long.safetensors', ...WASM])
  await new Promise((resolve) => setTimeout(resolve, 1500))
  child.kill('SIGINT')
  const code = await new Promise((resolve) => child.on('close', resolve))
  assert.is(code, 130)
  assert.equal(
    (await readdir(folder)).filter((name) => name.includes('long.safetensors')),
    [],
  )
})

test.run()
