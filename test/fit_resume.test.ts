// pinball fit when it is interrupted, killed or its work damaged: the same command ends with the same bits, and the user's files survive.
import { link, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WORK_FILE } from '../src/files/work.ts'
import { finish, openWorkplace, tensor, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

const save: Workplace['save'] = (...file) => place.save(...file)

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
const KEPT = 'long-h.safetensors.partial'
let uninterrupted: Uint8Array

/** What was said beside how far it is, which is said every few seconds: on a slow machine, more often. */
const notes = (err: string): string => err.replace(/^pinball: .*; \d+ of \d+ levels(, .* left)?\n/gm, '')

test('a long fit keeps its levels while it works and leaves nothing beside its file', async () => {
  const draw = random(7)
  const [rows, columns] = [2000, 110]
  const x = draw.normal(rows * columns)
  const y = draw
    .normal(rows * 2)
    .map((noise, i) => noise + x[(i >> 1) * columns] - 2 * x[(i >> 1) * columns + 5 + (i % 2)])
  await save('long.safetensors', [tensor('embeddings', [rows, columns], x), tensor('labels', [rows, 2], y)])
  const { code, err } = await place.pinball(LONG)
  assert.equal([code, notes(err)], [0, ''])
  uninterrupted = await readFile(at('long-h.safetensors'))
  assert.equal(await leftovers(), ['long-h.safetensors'])
  await rm(at('long-h.safetensors'))
})

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** When levels were kept last; 0 for never. */
async function lastKept(): Promise<number> {
  const parts = (await readdir(at(KEPT)).catch(() => [])).filter((name) => name.startsWith('levels-'))
  const times = await Promise.all(parts.map(async (name) => (await stat(join(at(KEPT), name))).mtimeMs))
  return Math.max(0, ...times)
}

async function leftovers(): Promise<string[]> {
  return (await readdir(place.folder)).filter((name) => name.includes('long-h')).sort()
}

/**
 * Starts a fit and waits until it has kept levels that were not kept before. It keeps them every two seconds: it is made to stand still
 * for as long between short times of work, so that it has kept some before it is done, however fast the machine is.
 */
async function launchKept(args: readonly string[]) {
  const before = await lastKept()
  const child = place.launch(args)
  const ended = finish(child)
  const begun = async () => (await readdir(at(KEPT)).catch((): string[] => [])).includes(WORK_FILE)
  while (child.exitCode === null && !(await begun())) await sleep(5)
  while (child.exitCode === null && (await lastKept()) <= before) {
    child.kill('SIGSTOP')
    await sleep(2100)
    child.kill('SIGCONT')
    await sleep(250)
  }
  return { child, ended }
}

test('an interrupt keeps the finished levels; the same command gives the same file, bit for bit', async () => {
  for (const [signal, expected] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    const { child, ended } = await launchKept(LONG)
    child.kill(signal)
    const { code, err } = await ended
    assert.is(code, expected, err)
    const kept = 'levels are kept in long-h\\.safetensors\\.partial; the same command goes on from there'
    assert.match(notes(err), new RegExp(`^pinball: fit: interrupted; \\d+ of 298 ${kept}\n$`))
    assert.equal(await leftovers(), [KEPT])
  }
  await saveKept()
  // --resume is what older versions needed.
  const { code, out, err } = await place.pinball([...LONG, '--resume', '--json'])
  assert.equal([code, notes(err)], [0, ''])
  assert.is(JSON.parse(out).fits.length, 298)
  assert.equal(await leftovers(), ['long-h.safetensors'])
  assert.ok(Buffer.compare(await readFile(at('long-h.safetensors')), uninterrupted) === 0, 'the files differ')
  await rm(at('long-h.safetensors'))
})

/** The files of an interrupted fit. */
const kept = new Map<string, Buffer>()

async function saveKept(): Promise<void> {
  for (const name of await readdir(at(KEPT))) kept.set(name, await readFile(join(at(KEPT), name)))
}

async function restoreKept(): Promise<void> {
  await rm(at(KEPT), { recursive: true, force: true })
  await mkdir(at(KEPT))
  for (const [name, bytes] of kept) await writeFile(join(at(KEPT), name), bytes)
}

const TWO = [...LONG, '--threads', '2']

/** Kills a fit some time after it has kept levels; gives whether it was still at work, and not already tidying up. */
async function kill(wait: number): Promise<boolean> {
  const { child, ended } = await launchKept(TWO)
  await sleep(wait)
  child.kill('SIGKILL')
  await ended
  return child.signalCode === 'SIGKILL' && !(await leftovers()).includes('long-h.safetensors')
}

test('a fit that is killed at any moment goes on, and ends with the same file', async () => {
  const draw = random(Date.now() & 0xffff)
  // Once wherever it is, which may be before anything is kept; then some time after it was, sooner where it was done by then.
  const early = place.launch(TWO)
  const ended = finish(early)
  await sleep(500 * draw.next())
  early.kill('SIGKILL')
  await ended
  await rm(at('long-h.safetensors'), { force: true })
  let wait = 500 * draw.next()
  for (let tries = 0; !(await kill(wait)); tries++) {
    if (tries === 8) throw new Error('the fit was always done before it was killed')
    await rm(at('long-h.safetensors'))
    await rm(at(KEPT), { recursive: true, force: true })
    wait /= 3
  }
  assert.ok((await lastKept()) > 0, 'levels were kept')
  const { code, err } = await place.pinball(LONG)
  assert.equal([code, notes(err)], [0, ''])
  assert.equal(await leftovers(), ['long-h.safetensors'])
  assert.ok(Buffer.compare(await readFile(at('long-h.safetensors')), uninterrupted) === 0, 'the files differ')
  await rm(at('long-h.safetensors'))
})

test('a damaged part is named on standard error and made again: the same file', async () => {
  await restoreKept()
  const part = [...kept.keys()].find((name) => name.startsWith('levels-'))!
  const bytes = Buffer.from(kept.get(part)!)
  bytes[bytes.length >> 1] ^= 16
  await writeFile(join(at(KEPT), part), bytes)
  const { code, err } = await place.pinball(LONG)
  const line = `${KEPT}/${part} is damaged; it is set aside as ${part}.damaged and made again`
  assert.equal([code, notes(err)], [0, `pinball: note: ${line}\n`])
  assert.ok(Buffer.compare(await readFile(at('long-h.safetensors')), uninterrupted) === 0, 'the files differ')
  assert.equal(await leftovers(), ['long-h.safetensors'])
  await rm(at('long-h.safetensors'))
})

test('other settings are named; --restart begins anew', async () => {
  await restoreKept()
  const base = LONG.slice(0, 5)
  const differences: [string[], RegExp][] = [
    [
      [...base, '--levels', '3', '--intercept'],
      /with --levels \[0\.00\d+,.*, now it is \[0\.25,0\.5,0\.75\]; use the same, or give --restart or another --out/,
    ],
    [[...base, '--levels', '149'], /with --intercept true, now it is false/],
    [[...LONG, '--alpha', '0.01'], /with --alpha 0\.003, now it is 0\.01/],
    [[...LONG, '--tolerance', '1e-5'], /with --tolerance 0\.0001, now it is 0\.00001/],
    [
      [...LONG, '--labels', 'objective_1'],
      /with --labels \["objective_0","objective_1"\], now it is \["objective_1"\]/,
    ],
  ]
  for (const [args, message] of differences) {
    await place.refused(args, new RegExp(`^pinball: ${KEPT}/${WORK_FILE}: was begun ${message.source}`))
  }
  const changed = await readFile(at('long.safetensors'))
  const original = Buffer.from(changed)
  changed[changed.length - 2000 * 8 - 3] ^= 1 // in the last row of the features
  await writeFile(at('long.safetensors'), changed)
  await place.refused(LONG, /was begun with features with the SHA-256 "[0-9a-f]{64}", now it is "/)
  await writeFile(at('long.safetensors'), original)
  assert.equal((await readdir(at(KEPT))).sort(), [...kept.keys()].sort(), 'nothing is lost')
  const { code, err } = await place.pinball([...base, '--levels', '2', '--restart'])
  assert.equal([code, notes(err)], [0, ''])
  assert.equal(await leftovers(), ['long-h.safetensors'])
  await rm(at('long-h.safetensors'))
})

test('inputs are not overwritten, and what Pinball did not make is not removed', async () => {
  const original = await readFile(at('long.safetensors'))
  const unchanged = async (name: string) =>
    assert.ok(Buffer.compare(await readFile(at(name)), original) === 0, `${name} has changed`)
  await writeFile(at('q.partial'), original)
  await link(at('long.safetensors'), at('same'))
  await mkdir(at('f.partial'))
  await writeFile(at('f.partial/x.safetensors'), original)
  for (const command of ['fit', 'ridge']) {
    const few = command === 'fit' ? ['--levels', '1'] : []
    const reads = /^pinball: --out: must not be what --features reads, got .*; choose another name\n$/
    const run = (features: string, out: string) => [command, '--features', features, '--out', out, ...few]
    await place.refused(run('long.safetensors', './long.safetensors'), reads, 2)
    await place.refused(run('long.safetensors', 'same'), reads, 2)
    if (command === 'ridge') continue
    await place.refused(run('q.partial', 'q'), reads, 2)
    await place.refused(run('f.partial', 'f'), reads, 2)
    await place.refused(run('f.partial/x.safetensors', 'f'), reads, 2)
    // The user's own file and folder where the work would be kept.
    await place.refused(
      run('long.safetensors', 'q'),
      /^pinball: q\.partial: must be a directory, it is a file; move it away/,
    )
    await place.refused(
      run('long.safetensors', 'f'),
      /^pinball: f\.partial: must be missing, empty or hold work of "fit", it has "x\.safetensors"; move it away/,
    )
    await place.refused([...run('long.safetensors', 'f'), '--restart'], /^pinball: f\.partial: must be missing, empty/)
  }
  for (const name of ['long.safetensors', 'same', 'q.partial', 'f.partial/x.safetensors']) await unchanged(name)
  assert.equal(await readdir(at('f.partial')), ['x.safetensors'])
})

test.run()
