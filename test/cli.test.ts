// The command as a user runs it: what it prints and writes, and how it ends.
import { spawn } from 'node:child_process'
import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { REVIEWS } from '../src/data/reviews.ts'
import { openFile } from '../src/files/disk.ts'
import { openSafetensors, readTensor, readTensorF32 } from '../src/files/safetensors.ts'
import { table } from '../src/report/draw.ts'
import { close, tolerance } from './assert.ts'
import { featureFile, finish, lines, openWorkplace, qrm, root, WASM, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

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
  const { code, out, err } = await place.pinball(['score', '--model', qrm, ...WASM, '--json', '-'], lines(...rows))
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
  const { code, out, err } = await place.pinball([...pair, '--json'])
  assert.equal([code, err], [0, ''])
  const own: Scored = JSON.parse(out)
  assert.is(own.model, 'models/nano')
  assert.is(own.results.length, 2)
  const rows = await place.file(
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
  const read: Scored = JSON.parse((await place.pinball(['score', '--input', rows, ...WASM, '--json'])).out)
  assert.equal(read.results, own.results)
  const table = await place.pinball(pair)
  assert.is(table.code, 0)
  assert.match(table.out, /^models\/nano on .*: 2 rows, \d+ attributes at 19 levels, lambda [\d.]+\n/)
  assert.match(table.out, /\n {2}1 .*[▁▂▃▄▅▆▇█].* A delight\.\n {2}2 .*[▁▂▃▄▅▆▇█].* - dull -\n/)
  const one = await place.pinball(['score', '--prompt', prompt, '--response', 'A delight.', ...WASM])
  assert.match(one.out, /\nattribute +weight +expected/)
})

test('score: lambda changes the utility alone', async () => {
  const args = ['score', '--prompt', 'a', '--response', 'b', ...WASM, '--json']
  const [mild, harsh]: Scored[] = await Promise.all(
    ['0', '4'].map(async (lambda) => JSON.parse((await place.pinball([...args, '--lambda', lambda])).out)),
  )
  assert.is(mild.results[0].utility, -1)
  const { quantiles } = harsh.results[0]
  const utility = -quantiles.reduce((sum, q) => sum + Math.exp(-4 * q), 0) / quantiles.length
  close([harsh.results[0].utility], [utility], 1e-12 * Math.abs(utility), 'utility')
  assert.equal({ ...mild.results[0], utility: 0 }, { ...harsh.results[0], utility: 0 })
})

test('score: tables show crossing quantiles as they are drawn, JSON as they are', async () => {
  const args = ['score', '--model', qrm, ...WASM]
  let crossed = 0
  for (const seed of [1, 2, 3, 4]) {
    const row = lines({ input_ids: [...random(seed).integers(12, 0, 96)], gate_position: 3 })
    const { attributes: raw } = (JSON.parse((await place.pinball([...args, '--json', '-'], row)).out) as Scored)
      .results[0]
    const { out } = await place.pinball([...args, '-'], row)
    const shown = out.slice(out.indexOf('attribute ')).split('\n').slice(1, -1)
    assert.is(shown.length, 19)
    for (const line of shown) {
      const [name, , , low, high] = line.split(/ +/)
      const { quantiles } = raw[name]
      if (quantiles[0] > quantiles[18]) crossed++
      close([Number(low)], [Math.min(...quantiles)], 1e-3 * Math.abs(Number(low)), `${name}, lowest`)
      close([Number(high)], [Math.max(...quantiles)], 1e-3 * Math.abs(Number(high)), `${name}, highest`)
    }
  }
  assert.ok(crossed > 0, 'no row crosses, so nothing was tested')
})

test('score: pipes are read as they come', async () => {
  if (process.platform === 'win32') return console.log('  not tested: Windows has no named pipes in folders')
  await place.file('pipe.jsonl', lines({ input_ids: [1, 2], gate_position: 0 }))
  const command = `"${process.execPath}" "${join(root, 'dist/pinball.js')}" score --model "${qrm}" ${WASM.join(' ')} --json`
  const shell = (script: string) => finish(spawn('sh', ['-c', script], { cwd: place.folder }))
  const plain = JSON.parse((await shell(`${command} --input pipe.jsonl`)).out).results
  for (const script of [
    `cat pipe.jsonl | ${command} --input /dev/stdin`,
    `mkfifo pipe && (cat pipe.jsonl > pipe & ${command} --input pipe)`,
  ]) {
    const { code, out, err } = await shell(script)
    assert.equal([code, err], [0, ''], script)
    assert.equal(JSON.parse(out).results, plain)
  }
  // The writer never ends: the error must end the command all the same.
  const { code, err } = await shell(
    `mkfifo open && ((echo '[1]'; exec sleep 600) > open & ${command} --input open; code=$?; kill $!; exit $code)`,
  )
  assert.equal([code, err], [1, 'pinball: open element 1: a row must be an object, got 1\n'])
})

test('names that steer a terminal are shown by their escapes', async () => {
  const data = featureFile(4, 2, ({ metadata }) => {
    metadata.model = '\u001b[31m'
  })
  await writeFile(join(place.folder, 'plain.safetensors'), data)
  const out = 'a\u001b[31m.safetensors'
  const fitted = await place.pinball(['fit', '--features', 'plain.safetensors', '--out', out, '--levels', '2'])
  assert.is(fitted.code, 0)
  assert.match(fitted.out, /\na\\u001b\[31m\.safetensors: 2 heads/)
  await cp(qrm, join(place.folder, 'm\u001b[31m'), { recursive: true })
  const row = lines({ input_ids: [1, 2], gate_position: 0 })
  const scored = await place.pinball(['score', '--model', 'm\u001b[31m', ...WASM, '-'], row)
  assert.match(scored.out, /^m\\u001b\[31m on /)
  assert.not.ok((fitted.out + scored.out).includes('\u001b'))
  assert.is(table([['a\u001b\n', 'b\u202e']], []), 'a\\u001b\\u000a  b\\u202e\n')
})

// Features and fits

test('features and fit: files that follow the contract', async () => {
  const draw = random(1)
  const rows = Array.from({ length: 40 }, (_, n) => ({
    input_ids: [...draw.integers(5 + (n % 7), 0, 96)],
    gate_position: 2,
    kind: n % 3 === 0 ? null : draw.next(),
    dull: draw.next() - 0.5,
    year: 2000 + n,
  }))
  const input = await place.file('ratings.jsonl', lines(...rows))
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
  const made = await place.pinball([...args, ...WASM])
  assert.is(made.err, 'pinball: note: fields that --labels does not name are left out: "year"\n')
  assert.match(made.out, /^f\.safetensors: features of 40 rows, 32 columns, 2 labels \(/)
  assert.is(made.code, 0)
  const features = await openSafetensors(await openFile(join(place.folder, 'f.safetensors')))
  assert.equal([...features.tensors.keys()].sort(), ['embeddings', 'labels', 'prompt_embeddings'])
  assert.equal(features.tensors.get('embeddings')!.shape, [40, 32])
  assert.equal(features.tensors.get('prompt_embeddings')!.shape, [40, 32])
  const labels = rows.flatMap(({ dull, kind }) => [dull, kind ?? Number.NaN])
  close(await readTensorF32(features.tensors.get('labels')!), new Float32Array(labels), 0, 'labels')
  assert.is(features.metadata.attributes, '["dull","kind"]')
  assert.match(features.metadata.fingerprint, /^[0-9a-f]{64}$/)

  const fit = ['fit', '--features', 'f.safetensors', '--out', 'h.safetensors', '--levels', '0.1,0.5,0.9', '--intercept']
  const fitted = await place.pinball([...fit, '--alpha', '0.01', '--json'])
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
  const heads = await openSafetensors(await openFile(join(place.folder, 'h.safetensors')))
  assert.equal(heads.tensors.get('regression_layer.weight')!.shape, [6, 32])
  assert.equal(heads.tensors.get('regression_layer.bias')!.shape, [6])
  assert.equal(heads.metadata.levels, '[0.1,0.5,0.9]')
  assert.is(heads.metadata.attributes, '["dull","kind"]')
  const table = await place.pinball(fit)
  assert.match(table.out, /\ndull +0\.1 .*\n[\s\S]*h\.safetensors: 6 heads over 32 columns from 40 rows\n$/)
  await heads.tensors.get('regression_layer.bias')!.source.close()
  await features.tensors.get('labels')!.source.close()
})

test('fit: the exit code says whether every level met the tolerance', async () => {
  await writeFile(join(place.folder, 'hard.safetensors'), featureFile(200, 20))
  const args = ['fit', '--features', 'hard.safetensors', '--out', 'hard-h.safetensors', '--levels', '3', '--json']
  for (const tolerance of ['1e-4', '1e-300']) {
    const { code, out, err } = await place.pinball([...args, '--tolerance', tolerance])
    const fits: { status: string }[] = JSON.parse(out).fits
    const missed = fits.filter(({ status }) => status !== 'optimal').length
    assert.is(code, missed === 0 ? 0 : 3)
    if (missed > 0) assert.match(err, new RegExp(`^pinball: fit: ${missed} of 3 levels missed the tolerance`))
    const source = await openFile(join(place.folder, 'hard-h.safetensors'))
    assert.equal((await openSafetensors(source)).tensors.get('regression_layer.weight')!.shape, [3, 20])
    await source.close()
  }
})

test('help of every command has examples; the version is that of the package', async () => {
  for (const name of ['score', 'features', 'fit', 'devices', 'start']) {
    const { code, out, err } = await place.pinball([name, '--help'])
    assert.equal([code, err], [0, ''])
    assert.match(out, new RegExp(`^Usage: pinball ${name} [\\s\\S]*\\n {2}\\$ .*pinball ${name}`))
  }
  const help = await place.pinball(['--help'])
  assert.match(help.out, /Commands:[\s\S]*Exit codes:[\s\S]*Examples:/)
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  assert.is((await place.pinball(['--version'])).out, `${version}\n`)
})

test('--debug adds the stack', async () => {
  const { code, err, out } = await place.pinball(['score', '--input', 'none.jsonl', '--debug'])
  assert.equal([code, out], [1, ''])
  assert.match(err, /^pinball: none\.jsonl: no such file\nError: none\.jsonl: no such file\n {4}at /)
})

// Devices, start, and the ends that users make

test('devices: wasm is always there, the others say why not', async () => {
  const { code, out, err } = await place.pinball(['devices', '--json'])
  assert.equal([code, err], [0, ''])
  const { auto, choice, devices } = JSON.parse(out)
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
  assert.ok(choice.startsWith(`${auto}: `) && choice.length > auto.length + 2, choice)
  const listed = (await place.pinball(['devices'])).out
  assert.match(listed, /\nwasm( \(auto\))?: WebAssembly SIMD/)
  assert.ok(listed.endsWith(`\nauto takes ${choice}\n`), listed)
})

test('start: built-in prompts, and what risk aversion changes', async () => {
  const { code, out, err } = await place.pinball(['start', '--no-world', ...WASM])
  assert.equal([code, err], [0, ''])
  const groups = out.split(/\n\d\. .+\n(?= +expected +utility )/).slice(1)
  assert.is(groups.length, REVIEWS.length)
  for (const [i, { responses }] of REVIEWS.entries()) {
    const shown = groups[i].split('\n\n')[0].trimEnd().split('\n').slice(1)
    assert.is(shown.length, responses.length)
    for (const mark of [/^E/, /^.U/]) assert.is(shown.filter((line) => mark.test(line)).length, 1)
  }
  const verdicts = / {2}\d\. (response|at lambda) .+\n/.source
  assert.match(out, new RegExp(`\nWhat risk aversion changes:\n(${verdicts}){${REVIEWS.length}}\nDone in .+\n$`))
  const own = await place.pinball([
    'start',
    '--prompt',
    'How are you?',
    '--response',
    'Fine.',
    '--response',
    'Go away.',
    ...WASM,
  ])
  assert.match(own.out, /\n1\. How are you\?\n[\s\S]*Fine\.\n[\s\S]*Go away\.\n/)
})

test('a reader that goes away ends the command quietly', async () => {
  const rows = await place.file('many.jsonl', lines({ input_ids: [1, 2], gate_position: 0 }).repeat(2000))
  const child = place.launch(['score', '--model', qrm, '--input', rows, '--json', ...WASM])
  let err = ''
  child.stderr?.on('data', (bytes) => {
    err += bytes
  })
  child.stdout?.once('data', () => child.stdout?.destroy())
  const code = await new Promise((resolve) => child.on('close', resolve))
  assert.equal([code, err], [0, ''])
})

test('an interrupt ends the command at once and leaves no file but what is finished', async () => {
  const draw = random(3)
  const rows = Array.from({ length: 3000 }, (_, n) => ({ input_ids: [...draw.integers(1000, 0, 96)], n }))
  const interrupt = async (threads: string) => {
    const out = `long_${threads}.safetensors`
    const args = ['features', '--model', qrm, '--input', '-', '--out', out, '--device', 'wasm', '--threads', threads]
    const child = place.launch(args, lines(...rows))
    const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)))
    // The work has begun once its folder is there; it takes seconds.
    while (child.exitCode === null && !(await readdir(place.folder)).includes(`${out}.partial`)) await sleep(10)
    child.kill('SIGINT')
    return ended
  }
  assert.is(await interrupt('2'), 130)
  // One thread computes without a pause and leaves the interrupt to the system; shells report that as 130 as well.
  assert.ok([130, 'SIGINT'].includes((await interrupt('1')) as string))
  const left = (await readdir(place.folder)).filter((name) => name.startsWith('long_'))
  assert.equal(left.sort(), ['long_1.safetensors.partial', 'long_2.safetensors.partial'])
})

test.run()
