// pinball gate and bradley-terry: what they write, that an interrupt or a kill changes no bit of it, and what they refuse.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { openDirectory, openFile } from '../src/files/disk.ts'
import type { TensorData } from '../src/files/safetensors.ts'
import { readCheckpoint } from '../src/reward/checkpoint.ts'
import { encodeCheckpoint } from '../src/reward/encode.ts'
import { loadHeads } from '../src/reward/heads.ts'
import { readHeadsFile } from '../src/reward/heads_file.ts'
import { openPairs, type PairFile } from '../src/reward/pair_file.ts'
import { splitPairs } from '../src/train/pair_batches.ts'
import { trainBradleyTerry, trainGate } from '../src/train/recipes.ts'
import { fails } from './assert.ts'
import { each, finish, openWorkplace, tensor, type Workplace } from './command.ts'
import { random } from './random.ts'

const [PAIRS, COLUMNS] = [3000, 40]
const MODEL = 'f'.repeat(64)

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
  await place.save('pairs.safetensors', pairTensors(PAIRS), { fingerprint: MODEL })
  await place.save('heads.safetensors', ...heads())
  await place.save('point.safetensors', [tensor('regression_layer.weight', [2, COLUMNS], unit([0, 1]))], {
    attributes: '["a","b"]',
    point: 'true',
    fingerprint: MODEL,
  })
})

/** Folders that must be refused. */
test.before(async () => {
  for (const name of ['empty', 'full', 'mine']) await mkdir(at(name))
  await writeFile(at('full', 'notes.txt'), 'mine')
  for (const name of ['pairs.safetensors', 'heads.safetensors']) await copyFile(at(name), at('mine', name))
  await place.save('other.safetensors', pairTensors(10, 2))
})

test.after(() => place.remove())

const at = (...names: string[]) => join(place.folder, ...names)

/** Pairs of which the chosen response is better in attribute 0 or 1, by the sign of the prompt's first column. */
function pairTensors(N: number, seed = 1): TensorData[] {
  const draw = random(seed)
  const embeddings = draw.normal(N * 2 * COLUMNS)
  const prompts = draw.normal(N * COLUMNS)
  for (let i = 0; i < N; i++) embeddings[2 * i * COLUMNS + (prompts[i * COLUMNS] > 0 ? 0 : 1)] += 2
  return [
    tensor('embeddings', [N, 2, COLUMNS], embeddings),
    tensor('prompt_embeddings', [N, COLUMNS], prompts),
    tensor(
      'prompt_ids',
      [N],
      BigInt64Array.from({ length: N }, (_, i) => BigInt(i >> 1)),
      'I64',
    ),
  ]
}

/** Rows of the unit matrix. */
function unit(rows: readonly number[]): Float32Array {
  const weight = new Float32Array(rows.length * COLUMNS)
  for (const [i, row] of rows.entries()) weight[i * COLUMNS + row] = 1
  return weight
}

/** Heads at three levels whose mean for attribute m is column m. */
function heads(): [TensorData[], Record<string, string>] {
  const weight = unit([0, 0, 0, 1, 1, 1])
  const metadata = { attributes: '["a","b"]', levels: '[0.25,0.5,0.75]', fingerprint: MODEL }
  return [[tensor('regression_layer.weight', [6, COLUMNS], weight)], metadata]
}

const gate = (out: string, ...more: string[]) => [
  ...['gate', '--features', 'pairs.safetensors', '--heads', 'heads.safetensors', '--out', out, '--device', 'wasm'],
  ...['--hidden', '32', '--batch', '64', '--temperature', '1', '--lr', '0.003', ...more],
]

async function contents(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for (const name of (await readdir(at(folder))).sort()) {
    files[name] = (await readFile(at(folder, name))).toString('base64')
  }
  return files
}

/** The share of pairs whose chosen response the model in a folder scores higher. */
async function accuracyOf(folder: string, device: Device, pairs: PairFile, rows: Uint32Array): Promise<number> {
  const model = await loadHeads(device, await openDirectory(at(folder)))
  const both = device.tensor([2 * rows.length, COLUMNS], { data: await pairs.readSides(rows) })
  const prompts = pairs.hasPrompts ? await pairs.readPrompts(rows) : null
  const twice = new Float32Array(2 * rows.length * COLUMNS)
  for (let i = 0; prompts && i < 2 * rows.length; i++) {
    twice.set(prompts.subarray((i >> 1) * COLUMNS, ((i >> 1) + 1) * COLUMNS), i * COLUMNS)
  }
  const prompt = device.tensor([2 * rows.length, COLUMNS], { data: twice })
  try {
    const scores = await model.score(both, model.needsPrompt ? prompt : null)
    return rows.filter((_, i) => scores[2 * i].score > scores[2 * i + 1].score).length / rows.length
  } finally {
    for (const thing of [both, prompt, model]) thing.destroy()
  }
}

const STATE = /^state-\d{6}\.part$/
const FILES = ['config.json', 'fitted.safetensors', 'log.jsonl', 'model.safetensors', 'pinball.json', 'training.json']

let whole: Record<string, string>

test('gate writes a directory of heads, a log, and says how well it does', async () => {
  const { code, out, err } = await place.pinball(gate('whole', '--json'))
  assert.equal([code, err], [0, ''])
  const document = JSON.parse(out)
  assert.equal(Object.keys(document), [
    ...['pairs', 'training', 'validation', 'parameters', 'steps', 'epochs', 'accuracy', 'ms', 'rows_per_second'],
  ])
  assert.is(document.pairs, PAIRS)
  assert.is(document.training + document.validation, PAIRS)
  assert.is(document.parameters, 32 * COLUMNS + 2 * 32 * 32 + 3 * 2 * 32 + 2 * 32 + 2)
  assert.equal(
    document.epochs.map(({ epoch }: { epoch: number }) => epoch),
    [1, 2, 3],
  )
  // The mean of the two attributes is right for about 0.76 of the pairs, the better one for 0.92.
  assert.is(document.accuracy, document.epochs[2].validation_accuracy)
  assert.ok(document.accuracy > 0.85, `accuracy ${document.accuracy}`)
  assert.ok(document.rows_per_second > 0)
  whole = await contents('whole')
  assert.equal(Object.keys(whole), FILES)
  const log = (await readFile(at('whole', 'log.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const epochs = log.filter((entry) => 'validation_loss' in entry).map(({ step, ...epoch }) => epoch)
  assert.equal(epochs, document.epochs)
  assert.is(log.filter((entry) => 'lr' in entry).at(-1).step, document.steps)
  const { layout, manifest, regression } = await readCheckpoint(await openDirectory(at('whole')))
  assert.equal([layout, manifest.attributes, manifest.levels], ['qrm', ['a', 'b'], [0.25, 0.5, 0.75]])
  assert.equal(regression.weight, unit([0, 0, 0, 1, 1, 1]))
})

test('the library gives the same files as the command', async () => {
  const open = (name: string) => openFile(at(name))
  const source = await open('heads.safetensors')
  const file = await open('pairs.safetensors')
  const pairs = await openPairs([file])
  const device = await openDevice('wasm', { threads: 1 })
  try {
    const options = { hidden: 32, batch: 64, temperature: 1, lr: 0.003 }
    const { checkpoint, epochs } = await trainGate(device, pairs, await readHeadsFile(source), options)
    for await (const { file, chunks } of encodeCheckpoint(checkpoint)) {
      assert.is(Buffer.concat(chunks).toString('base64'), whole[file], file)
    }
    // What scores rows elsewhere, in its own words, is as right as the training says on the pairs held out.
    const { validation } = splitPairs(pairs, 0.1, 0)
    assert.is(await accuracyOf('whole', device, pairs, validation), epochs[2].validation_accuracy)
    const stop = AbortSignal.abort(new Error('enough'))
    await fails(() => trainBradleyTerry(device, pairs, { signal: stop }), 'enough')
  } finally {
    await device.destroy()
    await file.close()
    await source.close()
  }
})

test('the same command on a finished directory does nothing; other settings are refused, --restart begins anew', async () => {
  const { code, out, err } = await place.pinball(gate('whole', '--json'))
  assert.is(code, 0)
  assert.is(err, 'pinball: gate: whole holds this training, finished; --restart begins it anew\n')
  assert.is(JSON.parse(out).rows_per_second, null)
  assert.equal(await contents('whole'), whole)
  const told = 'whole/training\\.json: holds a training with'
  for (const [more, change] of [
    [['--lr', '0.001'], '--lr 0\\.003, now it is 0\\.001'],
    [['--hidden', '8'], '--hidden 32, now it is 8'],
    [['--heads', 'other.safetensors'], 'heads with the SHA-256 "[0-9a-f]{64}", now it is "[0-9a-f]{64}"'],
    [['--features', 'more.safetensors'], 'features with the SHA-256 \\["[0-9a-f]{64}"\\], now it is'],
  ] as const) {
    const [tensors, metadata] = heads()
    await place.save('other.safetensors', tensors, { ...metadata, attributes: '["c","d"]' })
    await place.save('more.safetensors', pairTensors(100, 2))
    await place.refused(gate('whole', ...more), new RegExp(`${told} ${change}`))
  }
  assert.equal(await contents('whole'), whole)
  const again = await place.pinball(gate('whole', '--restart', '--threads', '1'))
  assert.equal([again.code, again.err], [0, ''])
  assert.equal(await contents('whole'), whole)
})

const LONG = ['--epochs', '12', '--save-every', '25']
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

const states = async (folder: string): Promise<string[]> =>
  (await readdir(at(folder)).catch((): string[] => [])).filter((name) => STATE.test(name)).sort()

/** Waits until a training has saved a state after some steps, the second of those that are there. */
async function saved(folder: string, child: ReturnType<Workplace['launch']>): Promise<void> {
  while (child.exitCode === null && (await states(folder)).length < 2) await sleep(5)
}

test('a training that is killed at any moment goes on, and ends with the same files, the log included', async () => {
  const start = performance.now()
  const { code, err } = await place.pinball(gate('long', ...LONG))
  assert.equal([code, err], [0, ''])
  const ms = performance.now() - start
  const expected = await contents('long')
  const draw = random(Date.now() & 0xffff)
  let cuts = 0
  for (let round = 0; round < 2; round++) {
    await rm(at('killed'), { recursive: true, force: true })
    for (let run = 0; run < 5; run++) {
      const child = place.launch(gate('killed', ...LONG))
      const ended = new Promise((resolve) => child.on('close', resolve))
      // Once when there is something to go on from, then at any moment.
      if (run === 0) await saved('killed', child)
      else await sleep(ms * (0.1 + 0.5 * draw.next()))
      child.kill('SIGKILL')
      await ended
      if ((await states('killed')).length > 0) cuts++
    }
    const last = await place.pinball(gate('killed', ...LONG))
    assert.is(last.code, 0, last.err)
    assert.equal(Object.keys(await contents('killed')), FILES)
    assert.equal(await contents('killed'), expected)
  }
  assert.ok(cuts > 0, 'no kill left a state')
})

test('SIGINT and SIGTERM save the step it is at, exit with 130 and 143, and the same command goes on', async () => {
  const expected = await contents('long')
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const child = place.launch(gate(signal, ...LONG))
    const ended = finish(child)
    await saved(signal, child)
    child.kill(signal)
    const stopped = await ended
    assert.is(stopped.code, code, stopped.err)
    const told = `^pinball: gate: interrupted; step \\d+ is saved in ${signal}; the same command goes on from there\n$`
    assert.match(stopped.err, new RegExp(told))
    await place.refused(
      gate(signal, ...LONG, '--seed', '9'),
      /\/pinball-work\.json: was begun with --seed 0, now it is 9; /,
    )
    const { code: done, err } = await place.pinball(gate(signal, ...LONG))
    assert.equal([done, err], [0, ''])
    assert.equal(await contents(signal), expected)
  }
})

test('a damaged state is named, and the command goes on from the one before', async () => {
  const child = place.launch(gate('damaged', ...LONG))
  const ended = finish(child)
  await saved('damaged', child)
  child.kill('SIGKILL')
  await ended
  const [before, last] = (await states('damaged')).slice(-2)
  const bytes = await readFile(at('damaged', last))
  bytes[bytes.length >> 1] ^= 1
  await writeFile(at('damaged', last), bytes)
  const { code, err } = await place.pinball(gate('damaged', ...LONG))
  const step = Number(/\d+/.exec(before))
  const named = `damaged/${last} is damaged; it is set aside as ${last}.damaged and made again`
  assert.equal([code, err], [0, `pinball: ${named}\npinball: gate: goes on from step ${step}\n`])
  assert.equal(await contents('damaged'), await contents('long'))
})

test('point heads get a gate of ArmoRM, several files and folders are read as one', async () => {
  const [first, second] = [pairTensors(300, 3), pairTensors(200, 4)]
  await place.save('one.safetensors', first, { fingerprint: MODEL })
  await place.save('two.safetensors', second, { fingerprint: MODEL })
  const args = [
    'gate',
    '--heads',
    'point.safetensors',
    '--device',
    'wasm',
    '--hidden',
    '8',
    '--layers',
    '1',
    '--batch',
    '50',
  ]
  const { code, out, err } = await place.pinball([
    ...[...args, '--features', 'one.safetensors', 'two.safetensors', '--out', 'armo', '--json', '--validation', '0'],
  ])
  assert.equal([code, err], [0, ''])
  const document = JSON.parse(out)
  assert.equal([document.pairs, document.validation, document.epochs[0].validation_loss], [500, 0, null])
  assert.is(document.parameters, 8 * COLUMNS + 8 + 2 * 8 + 2)
  const config = JSON.parse(await readFile(at('armo', 'config.json'), 'utf8'))
  assert.is(config.num_objectives, 2)
  assert.is((await readCheckpoint(await openDirectory(at('armo')))).layout, 'armorm')
  await place.refused(
    [...args, '--features', 'one.safetensors', '--out', 'x', '--norm', 'batch'],
    '--norm: must be none for point heads, as models of ArmoRM have it, got batch',
    2,
  )
})

test('bradley-terry trains a linear head', async () => {
  const args = [
    'bradley-terry',
    '--features',
    'pairs.safetensors',
    '--out',
    'bt',
    '--device',
    'wasm',
    '--lr',
    '0.01',
    '--batch',
    '128',
  ]
  const { code, out, err } = await place.pinball([...args, '--json'])
  assert.equal([code, err], [0, ''])
  const document = JSON.parse(out)
  assert.is(document.parameters, COLUMNS)
  assert.ok(document.accuracy > 0.7, `accuracy ${document.accuracy}`)
  const file = await openFile(at('pairs.safetensors'))
  const pairs = await openPairs([file])
  const device = await openDevice('wasm', { threads: 1 })
  const { validation } = splitPairs(pairs, 0.1, 0)
  assert.is(await accuracyOf('bt', device, pairs, validation), document.accuracy)
  await device.destroy()
  await file.close()
  const text = await place.pinball([...args, '--restart'])
  assert.equal([text.code, text.err], [0, ''])
  assert.match(text.out, /^epoch +loss +accuracy +validation loss +validation accuracy\n {4}1 /)
  assert.match(text.out, /bt: 40 parameters, \d+ steps on \d+ pairs, \d+ for validation\n$/)
})

each(
  'refused:',
  [
    ['no such heads', ['--heads', 'none.safetensors'], /none\.safetensors: no such file/],
    ['a folder without features', ['--features', 'empty'], /empty: has no file of features/],
    [
      'an --out with other files',
      ['--out', 'full'],
      /full: must be missing, empty or hold work of "gate", it has "notes\.txt"; move it away or choose another --out/,
    ],
    [
      'an --out that is a file',
      ['--out', 'other.safetensors'],
      /other\.safetensors: must be a directory, it is a file/,
    ],
    [
      'an --out that is the heads',
      ['--out', 'heads.safetensors'],
      /--out: must not be what --heads reads, got heads\.safetensors; choose another name/,
    ],
    [
      'an --out that has the features',
      ['--out', 'mine', '--features', 'mine'],
      /--out: must not be what --features reads, got mine; choose another name/,
    ],
    [
      'an --out that has the heads',
      ['--out', 'mine', '--heads', 'mine/heads.safetensors'],
      /--out: must not be what --heads reads, got mine \(--heads has mine\/heads\.safetensors\); choose another name/,
    ],
    ['an --out in no folder', ['--out', 'none/x'], /none\/x: cannot be made: no such directory: none/],
    ['ratings', ['--features', 'heads.safetensors'], /heads\.safetensors: has no tensor "embeddings"/],
    ['a batch of 1', ['--batch', '1'], /--batch.*Must be a whole number from 2/],
    ['all for validation', ['--validation', '1'], /--validation.*Must be a number from 0 to below 1/],
    ['no time to save', ['--save-every', '0s'], /--save-every.*Must be a number of steps, or of seconds as 60s/],
  ] as [string, string[], RegExp][],
  async ([, more, message]) => {
    const usage = /Must be|must not be/.test(message.source)
    await place.refused(gate('refused', ...more), message, usage ? 2 : 1)
  },
)

test.run()
