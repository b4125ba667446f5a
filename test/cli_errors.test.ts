// The command with broken models, rows, features and usage: one line on standard error, nothing on standard output.
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openFile } from '../src/files/disk.ts'
import { encodeSafetensors, openSafetensors, readTensor, type TensorData } from '../src/files/safetensors.ts'
import { each, type FeatureData, featureFile, lines, openWorkplace, qrm, WASM, type Workplace } from './command.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const brokenFeatures: [string, (data: FeatureData) => void, string][] = [
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
  [
    'a name that steers the terminal',
    (data) => (data.metadata.attributes = JSON.stringify(['\u001b[31m'])),
    'attributes in the metadata must be a list of 1 names, got ["\\u001b[31m"]',
  ],
]
each('fit refuses features with', brokenFeatures, async ([, changes, message], i) => {
  const features = `broken${i}.safetensors`
  await writeFile(join(place.folder, features), featureFile(4, 2, changes))
  await place.refused(['fit', '--features', features, '--out', 'x.safetensors'], `${features}: ${message}`)
})

test('outputs that cannot be written are found before the work', async () => {
  const features = 'good.safetensors'
  await writeFile(join(place.folder, features), featureFile(4, 2))
  const out = 'nowhere/x.safetensors'
  const message = `${out}: cannot be written: no such directory: nowhere`
  await place.refused(['fit', '--features', features, '--out', out], message)
  await place.refused(['features', '--input', 'missing.jsonl', '--out', out], message)
  const others: [string, string][] = [
    ['made/', 'is a directory'],
    ['x'.repeat(250), 'the name is too long'],
  ]
  if (process.platform === 'linux') others.push(['/proc/x.safetensors', 'no files can be made in /proc'])
  // Root may write where others may not.
  if (process.getuid?.()) {
    await mkdir(join(place.folder, 'locked'), { mode: 0o555 })
    others.push(['locked/x.safetensors', 'permission denied'])
  }
  for (const [path, reason] of others) {
    const args = ['features', '--input', 'missing.jsonl', '--out', path]
    await place.refused(args, `${path}: cannot be written: ${reason}`)
  }
  assert.equal(
    (await readdir(place.folder)).filter((name) => name.endsWith('.tmp')),
    [],
  )
})

// Broken rows

const USER = { role: 'user', content: 'a' }
const brokenRows: [string, string, RegExp][] = [
  ['an empty file', '', /^pinball: rows0.jsonl: has no rows; give one JSON object a line\n/],
  [
    'a bad last line',
    `${lines({ input_ids: [1, 2], gate_position: 0 }).repeat(6)}{"input_ids":`,
    /^pinball: rows\d+.jsonl line 7: not valid JSON/,
  ],
  ['a blank line', '{"input_ids":[1],"gate_position":0}\n\n{}', /^pinball: rows\d+.jsonl line 2: is blank/],
  ['a list', '[1]', /^pinball: rows\d+.jsonl element 1: a row must be an object, got 1/],
  ['an empty row', '{}', /^pinball: rows\d+.jsonl line 1: /],
  ['no tokens', '{"input_ids":[],"gate_position":0}', /line 1: input_ids must have at least one token/],
  ['a token out of range', '{"input_ids":[96,97],"gate_position":0}', /line 1: input_ids\[1\] must be .* 96.*, got 97/],
  ['a negative token', '{"input_ids":[-1],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got -1/],
  ['a token in part', '{"input_ids":[1.5],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got 1.5/],
  ['a token of text', '{"input_ids":["1"],"gate_position":0}', /line 1: input_ids\[0\] must be .*, got "1"/],
  ['a gate position past the end', '{"input_ids":[1],"gate_position":1}', /line 1: gate_position must be .*, got 1/],
  ['a negative gate position', '{"input_ids":[1],"gate_position":-1}', /line 1: gate_position must be .*, got -1/],
  ['no gate position', '{"input_ids":[1,2,3]}', /line 1: .*gate/],
  ['two kinds', '{"input_ids":[1],"gate_position":0,"prompt":"x"}', /line 1: unknown field "prompt"/],
  ['a field twice', '{"input_ids":[1],"gate_position":0,"input_ids":[2]}', /line 1: "input_ids" is there twice/],
  ['text without a tokenizer', '{"prompt":"a","response":"b"}', /line 1: .*no tokenizer/],
  [
    'too many tokens',
    JSON.stringify({ input_ids: Array(1025).fill(1), gate_position: 0 }),
    /line 1: .* 1025 tokens.* 1024/,
  ],
]
each('score refuses', brokenRows, async ([, text, message], i) => {
  const input = await place.file(`rows${i}.jsonl`, text)
  await place.refused(['score', '--model', qrm, ...WASM, '--input', input], message)
})

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
each('score refuses text with', brokenText, async ([, row, message]) => {
  await place.refused(['score', ...WASM, '-'], message, 1, JSON.stringify(row))
})

const ROW = { input_ids: [1, 2], gate_position: 0 }
const brokenLabels: [string, string, RegExp][] = [
  ['text', lines({ ...ROW, good: 1 }, { ...ROW, good: 'x' }), /line 2: label "good" must be a number or null, got "x"/],
  ['an object', lines({ ...ROW, good: {} }), /line 1: label "good" must be a number or null, got {}/],
  [
    'infinity',
    '{"input_ids":[1],"gate_position":0,"good":1e999}',
    /line 1: label "good" must be a finite float32 number, got Inf/,
  ],
  ['Infinity', '{"input_ids":[1],"gate_position":0,"good":Infinity}', /line 1: not valid JSON/],
  ['a name nobody has', lines({ ...ROW, fine: 1 }), /--labels: no row has a field "good"/],
]
each('features refuses labels with', brokenLabels, async ([, text, message], i) => {
  const input = await place.file(`labels${i}.jsonl`, text)
  const args = ['features', '--model', qrm, ...WASM, '--input', input, '--out', 'x.safetensors', '--labels', 'good']
  await place.refused(args, message)
  assert.is((await readdir(place.folder)).includes('x.safetensors'), false)
})

test('features says what it left out only where it succeeds', async () => {
  const input = await place.file('mixed.jsonl', lines({ ...ROW, n: 1 }, { input_ids: [97], gate_position: 0 }))
  const args = ['features', '--model', qrm, ...WASM, '--input', input, '--out', 'x.safetensors']
  await place.refused(args, /line 2: input_ids\[0\] must be/)
})

// Broken model directories

type Tensors = Map<string, TensorData>
interface Broken {
  config?: (json: Record<string, unknown>) => void
  manifest?: unknown
  tensors?: (tensors: Tensors) => void
  bytes?: (file: Uint8Array) => Uint8Array
}

async function breakModel({ config, manifest, tensors, bytes }: Broken, name: string): Promise<string> {
  const target = join(place.folder, name)
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
  ['a missing layer', { tensors: (all) => all.delete('model.norm.weight') }, /model\.norm\.weight is missing/],
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
  [
    'a name that steers the terminal',
    { manifest: { attributes: ['a\nb'] } },
    /pinball\.json: attributes must be names without control characters, got "a\\nb"/,
  ],
]
each('score refuses a model with', brokenModels, async ([, broken, message], i) => {
  const model = await breakModel(broken, `model${i}`)
  await place.refused(['score', '--model', model, ...WASM, '-'], message, 1, JSON.stringify(ROW))
})

test('score refuses directories that are none', async () => {
  const rows = await place.file('row.jsonl', lines(ROW))
  await place.refused(['score', '--model', 'nowhere', '--input', rows], 'nowhere: no such directory')
  await place.refused(
    ['score', '--model', rows, '--input', rows],
    `${rows}: is not a directory; a model is a directory with config.json`,
  )
  await place.refused(['score', '--model', '.', '--input', rows, ...WASM], /^pinball: \.\/config\.json: is missing/)
  await place.refused(['score', '--input', 'none.jsonl'], 'none.jsonl: no such file')
  await place.refused(['score', '--input', '.'], '.: is a directory, a file is needed')
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
  ['features without input', ['features', '--out', 'a'], /required option '--input <files...>' not specified/],
  ['an empty label', ['features', ...FILES, '--labels', 'a,,b'], /none empty/],
  ['a label twice', ['features', ...FILES, '--labels', 'a,b,a'], /"a" is there twice/],
  [
    'a label that steers the terminal',
    ['features', ...FILES, '--labels', 'a,b\u001b[31mc'],
    /"b\\u001b\[31mc" has control/,
  ],
  ['output to a stream', ['fit', '--features', 'a', '--out', '-'], /--out: must be a file name, got "-"/],
  ['output without a name', ['features', '--input', 'a', '--out', ''], /--out: must be a file name, got ""/],
  ['input without a name', ['score', '--input', ''], /--input: must be a file name or -, got ""/],
  ['features without a name', ['fit', '--features', '', '--out', 'a'], /--features: must be a file name, got ""/],
  ['a model without a name', ['score', '--model', '', '-'], /--model: must be a directory, got ""/],
  ['a label that is no label', ['features', ...FILES, '--labels', 'a,prompt'], /"prompt" is what is scored/],
  ['fit without features', ['fit', '--out', 'a'], /required option '--features <files...>' not specified/],
  ['two tables', [...FIT, '--features', 'c.csv'], /--features: only safetensors files go together, got "a"/],
  [
    'names for a table',
    ['fit', '--features', 'a.csv', '--attributes', 'x', '--out', 'b'],
    /--attributes does not go with a/,
  ],
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
each('wrong usage:', usage, ([, args, message]) => place.refused(args, message, 2))

test.run()
