// pinball fit when it is interrupted or killed: what it keeps, and that --resume ends with the same bits.
import { copyFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { finishLevels } from '../src/cli/fit_levels.ts'
import {
  type Finished,
  keepFinished,
  nothingFinished,
  partialName,
  readFinished,
  type Settings,
} from '../src/cli/fit_partial.ts'
import { openSafetensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { finish, openWorkplace, tensor, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

const save: Workplace['save'] = (...file) => place.save(...file)

// Every place where a fit can be cut, in this process

async function inProcess(settings: Settings, x: Float32Array, y: Float32Array, cut: number, path: string) {
  const { rows, columns, attributes } = settings
  const features = {
    name: 'x',
    rows,
    columns,
    dtype: 'f32' as const,
    read: async (first: number, count: number) => x.subarray(first * columns, (first + count) * columns),
  }
  const fingerprint = { bytes: 0, features: '', labels: '' }
  const problem = { features, columns: null, attributes: [...attributes], labels: y, metadata: {}, fingerprint }
  const close = async () => {}
  const run = async (finished: Finished, stopAfter: number) => {
    const controller = new AbortController()
    const keeper = keepFinished(path, settings, finished)
    const touch = () => {
      if (finished.fits.length === stopAfter) controller.abort(new Error('cut'))
    }
    const work = {
      problem: { ...problem, close },
      settings,
      finished,
      device: 'wasm' as const,
      signal: controller.signal,
    }
    await finishLevels({ ...work, keeper: { ...keeper, touch } }).catch((error: Error) =>
      assert.is(error.message, 'cut'),
    )
    await keeper.save()
    return finished
  }
  const first = await run(nothingFinished(settings), cut)
  assert.is(first.fits.length, cut)
  const whole = await run(await readFinished(path, settings), -1)
  return { weight: whole.weight, bias: whole.bias, fits: whole.fits.map(({ ms, ...fit }) => fit) }
}

test('a fit that is cut after any level goes on to the same bits', async () => {
  const draw = random(8)
  // The first is for the interior point method, the second for the proximal Newton method.
  for (const [rows, columns, method] of [
    [60, 5, 'interior point'],
    [2000, 110, 'proximal newton'],
  ] as const) {
    const x = draw.normal(rows * columns)
    const y = draw.normal(rows * 2).map((noise, i) => noise + x[(i >> 1) * columns + (i % 2)])
    const levels = [0.1, 0.3, 0.5, 0.9]
    const penalty = { levels, alpha: 0.01, tolerance: 1e-4, nonCrossing: false }
    const shape = { rows, columns, names: null, bytes: 0, features: '', labels: '' }
    for (const intercept of [false, true]) {
      const settings: Settings = { attributes: ['one', 'two'], intercept, ...penalty, ...shape }
      const path = at('cut.partial')
      const expected = await inProcess(settings, x, y, 8, path)
      assert.ok(expected.fits.every((fit) => fit.method === method))
      for (let cut = 1; cut < 8; cut++) assert.equal(await inProcess(settings, x, y, cut, path), expected, `cut ${cut}`)
    }
  }
})

// It takes a few seconds, so that levels are kept while it works.

const LONG = [
  'fit',
  '--features',
  'long.safetensors',
  '--out',
  'long-h.safetensors',
  '--levels',
  '149',
  '--intercept',
  '--threads',
  '1',
]
const KEPT = partialName('long-h.safetensors')
let uninterrupted: Uint8Array
/** How long the whole fit takes here and now. */
let totalMs = 0

test('a long fit keeps its levels while it works and leaves nothing beside its file', async () => {
  const draw = random(7)
  const [rows, columns] = [2000, 110]
  const x = draw.normal(rows * columns)
  const y = draw
    .normal(rows * 2)
    .map((noise, i) => noise + x[(i >> 1) * columns] - 2 * x[(i >> 1) * columns + 5 + (i % 2)])
  await save('long.safetensors', [tensor('embeddings', [rows, columns], x), tensor('labels', [rows, 2], y)])
  const start = performance.now()
  const { code, err } = await place.pinball(LONG)
  totalMs = performance.now() - start
  assert.equal([code, err], [0, ''])
  uninterrupted = await readFile(at('long-h.safetensors'))
  assert.equal(await leftovers(), ['long-h.safetensors'])
  await rm(at('long-h.safetensors'))
})

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** When levels were kept last; 0 for never. */
const lastKept = async () => (await stat(at(KEPT)).catch(() => null))?.mtimeMs ?? 0

async function leftovers(): Promise<string[]> {
  return (await readdir(place.folder)).filter((name) => name.includes('long-h')).sort()
}

/** Interrupts a fit while it works, sooner or later where it was done or had nothing finished; gives what it said. */
async function interrupt(args: readonly string[], signal: NodeJS.Signals): Promise<{ code: unknown; err: string }> {
  let delay = 1000
  for (let tries = 0; tries < 8; tries++) {
    const child = place.launch(args)
    const timer = setTimeout(() => child.kill(signal), delay)
    const { code, err } = await finish(child)
    clearTimeout(timer)
    if (code !== 0 && !err.includes('no level was finished')) return { code, err }
    if (code === 0) await rm(at('long-h.safetensors'))
    delay *= code === 0 ? 0.6 : 1.5
  }
  throw new Error(`${signal} was always too early or too late, at last after ${delay} ms`)
}

test('an interrupt saves the finished levels; --resume gives the same file, bit for bit', async () => {
  for (const [signal, expected] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    const { code, err } = await interrupt(LONG, signal)
    assert.is(code, expected, err)
    const kept = 'levels are kept in long-h\\.safetensors\\.partial; the same command with --resume goes on from there'
    // The second one finds what the first one has left.
    assert.match(err, new RegExp(`pinball: fit: interrupted; \\d+ of 298 ${kept}\n$`))
    assert.is(err.startsWith('pinball: note: long-h.safetensors.partial has levels'), signal === 'SIGINT')
    assert.equal(await leftovers(), [KEPT])
  }
  await copyFile(at(KEPT), at('kept.partial'))
  const { code, out, err } = await place.pinball([...LONG, '--resume', '--json'])
  assert.equal([code, err], [0, ''])
  assert.is(JSON.parse(out).fits.length, 298)
  assert.equal(await leftovers(), ['long-h.safetensors'])
  assert.ok(Buffer.compare(await readFile(at('long-h.safetensors')), uninterrupted) === 0, 'the files differ')
  await rm(at('long-h.safetensors'))
})

test('a fit that is killed at any moment goes on, and ends with the same file', async () => {
  const draw = random(Date.now() & 0xffff)
  for (const early of [true, false]) {
    const child = place.launch([...LONG, '--resume', '--threads', '2'])
    const ended = new Promise((resolve) => child.on('close', resolve))
    // Once before anything can be kept, then some time after it was.
    if (early) await sleep(500 * draw.next())
    else {
      while (child.exitCode === null && (await lastKept()) === 0) await sleep(10)
      await sleep(0.3 * totalMs * draw.next())
    }
    child.kill('SIGKILL')
    await ended
  }
  // A file that is there is whole, and the kept levels go only after it has come.
  if ((await lastKept()) === 0) console.log('  not tested: the fit was done before it was killed')
  else {
    const { code, err } = await place.pinball([...LONG, '--resume'])
    assert.equal([code, err], [0, ''])
  }
  assert.ok(Buffer.compare(await readFile(at('long-h.safetensors')), uninterrupted) === 0, 'the files differ')
  for (const name of await leftovers()) await rm(at(name))
})

test('--resume names what differs; without it an earlier file is reported and lost', async () => {
  const restore = () => copyFile(at('kept.partial'), at(KEPT))
  await restore()
  const base = LONG.slice(0, 5)
  const differences: [string[], RegExp][] = [
    [
      [...base, '--levels', '3', '--intercept'],
      /with --levels \[0\.00\d+,.*, now it is \[0\.25,0\.5,0\.75\]; go on as it was begun, or leave out/,
    ],
    [[...base, '--levels', '149'], /with --intercept true, now it is false/],
    [[...LONG, '--alpha', '0.01'], /with --alpha 0\.003, now it is 0\.01/],
    [[...LONG, '--alpha', 'auto'], /with --alpha 0\.003, now it is "auto"/],
    [[...LONG, '--tolerance', '1e-5'], /with --tolerance 0\.0001, now it is 0\.00001/],
    [
      [...LONG, '--labels', 'objective_1'],
      /with the labels \["objective_0","objective_1"\], now it is \["objective_1"\]/,
    ],
  ]
  for (const [args, message] of differences) {
    await place.refused([...args, '--resume'], new RegExp(`^pinball: ${KEPT}: was begun ${message.source}`))
  }
  const changed = await readFile(at('long.safetensors'))
  const original = Buffer.from(changed)
  changed[changed.length - 2000 * 8 - 3] ^= 1 // in the last row of the features
  await writeFile(at('long.safetensors'), changed)
  await place.refused([...LONG, '--resume'], /was begun with features with the SHA-256 "[0-9a-f]{64}", now it is "/)
  original.copy(changed)
  changed[changed.length - 3] ^= 1 // in the labels
  await writeFile(at('long.safetensors'), changed)
  await place.refused(
    [...LONG, '--resume'],
    /was begun with (features|labels) with the SHA-256 "[0-9a-f]{64}", now it is "/,
  )
  await writeFile(at('long.safetensors'), original)
  const { code, err } = await place.pinball([...base, '--levels', '2'])
  assert.is(code, 0)
  assert.match(
    err,
    /^pinball: note: long-h\.safetensors\.partial has levels of an earlier fit; --resume goes on from them/,
  )
  assert.equal(await leftovers(), ['long-h.safetensors'])
})

test('a damaged file of finished levels is refused', async () => {
  const good = await readFile(at('kept.partial'))
  const { tensors, metadata } = await openSafetensors(memorySource('kept', good))
  const weight = await readTensorF32(tensors.get('weight')!)
  const bias = await readTensorF32(tensors.get('bias')!)
  const parts = {
    weight: tensor('weight', tensors.get('weight')!.shape, weight),
    bias: tensor('bias', [bias.length], bias),
  }
  const fits = JSON.parse(metadata.fits)
  const cases: [Uint8Array | { tensors?: TensorData[]; metadata?: Record<string, string> }, RegExp][] = [
    [good.subarray(0, 100), /: header of \d+ bytes exceeds the file/],
    [Buffer.from('{}'), /: not a safetensors file/],
    [{ metadata: {} }, /: is not what "pinball fit" keeps of a fit; remove the file or leave out --resume/],
    [{ metadata: { ...metadata, pinball: '"0.0.1"' } }, /: was begun by version "0\.0\.1", this is \d/],
    [{ metadata: { ...metadata, settings: '[' } }, /: settings: not valid JSON/],
    [{ metadata: { ...metadata, fits: JSON.stringify(fits.slice(1)) } }, /: its levels are not those of its settings/],
    [
      { metadata: { ...metadata, fits: JSON.stringify(fits.slice(0, -1)) } },
      /: its tensor "weight" does not hold \d+ levels/,
    ],
    [{ metadata: { ...metadata, fits: JSON.stringify([{ ...fits[0], gap: null }]) } }, /: its levels are not those/],
    [{ metadata: { ...metadata, alphas: '[{"alpha":-1,"path":[]}]' } }, /: its alphas are not numbers/],
    [{ tensors: [parts.weight] }, /: its tensor "bias" does not hold \d+ levels/],
    [{ tensors: [{ ...parts.weight, dtype: 'I32' }, parts.bias] }, /: its tensor "weight" does not hold/],
  ]
  for (const [made, message] of cases) {
    if (made instanceof Uint8Array) await writeFile(at(KEPT), made)
    else await save(KEPT, made.tensors ?? [parts.weight, parts.bias], made.metadata ?? metadata)
    await place.refused([...LONG, '--resume'], new RegExp(`^pinball: ${KEPT}${message.source}`))
  }
})

test.run()
