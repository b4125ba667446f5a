// pinball fit when it is interrupted or killed: what it keeps, and that --resume ends with the same bits.
import { copyFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { partialName } from '../src/cli/fit_partial.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { openWorkplace, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

const tensor = (name: string, shape: readonly number[], data: ArrayBufferView, dtype: TensorData['dtype'] = 'F32') => ({
  name,
  dtype,
  shape,
  data,
})

async function save(name: string, tensors: TensorData[], metadata: Record<string, string> = {}): Promise<void> {
  await writeFile(at(name), Buffer.concat(encodeSafetensors(tensors, metadata)))
}

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

test('an interrupt saves the finished levels; --resume gives the same file, bit for bit', async () => {
  let resumed = 0
  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const child = place.launch([...LONG, ...(resumed > 0 ? ['--resume'] : [])])
    let err = ''
    child.stderr?.on('data', (bytes) => (err += bytes))
    setTimeout(() => child.kill(signal), 0.35 * totalMs)
    const code = await new Promise((resolve) => child.on('close', resolve))
    assert.is(code, expected, err)
    assert.match(
      err,
      /^pinball: fit: interrupted; \d+ of 298 levels are kept in long-h\.safetensors\.partial; the same command with --resume goes on from there\n$/,
    )
    assert.equal(await leftovers(), [KEPT])
    const count = Number(/(\d+) of 298/.exec(err)![1])
    assert.ok(count > resumed, `${count} levels after ${resumed}`)
    resumed = count
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
  let kept = 0
  for (let round = 0; round < 3; round++) {
    const child = place.launch([...LONG, '--resume', '--threads', '2'])
    const ended = new Promise((resolve) => child.on('close', resolve))
    // Once before anything can be kept, then after the first time that it is.
    const killed = (async () => {
      if (round === 0) await sleep(300)
      else {
        const before = await lastKept()
        while (child.exitCode === null && (await lastKept()) === before) await sleep(10)
        await sleep(0.25 * totalMs * draw.next())
      }
      child.kill('SIGKILL')
    })()
    const code = await ended
    await killed
    if (code === 0) break
    if ((await lastKept()) > 0) kept++
  }
  if (kept === 0) console.log('  not tested: the fit was too fast to keep levels before it was done')
  const { code, err } = await place.pinball([...LONG, '--resume'])
  assert.is(code, 0)
  assert.match(err, kept > 0 ? /^$/ : /^pinball: note: long-h.safetensors.partial is not there, so the fit begins with/)
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
