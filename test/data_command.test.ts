// pinball data as a user runs it: the list, rows of files and of the hub, what is left out, interruptions.
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DATASETS } from '../src/data/table.ts'
import { finish, lines, openWorkplace, root, type Workplace } from './command.ts'
import { type HubServer, sha256, startHub } from './hub_server.ts'

let place: Workplace
let hub: HubServer
const FIXTURES = join(root, 'test/fixtures/datasets')

test.before(async () => {
  place = await openWorkplace()
  hub = await startHub()
  process.env.HF_ENDPOINT = hub.url
  process.env.PINBALL_CACHE = join(place.folder, 'cache')
  delete process.env.HF_HUB_OFFLINE
})

test.before.each(async () => {
  await rm(join(place.folder, 'cache'), { recursive: true, force: true })
  hub.files.clear()
  hub.large.clear()
  hub.faults.clear()
  hub.log.length = 0
})

test.after(async () => {
  await hub.close()
  await place.remove()
})

const rowsOf = async (name: string) =>
  `${name.endsWith('.gz') ? gunzipSync(await readFile(join(place.folder, name))) : await readFile(join(place.folder, name))}`
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

test('list: all datasets with scales and what is assumed', async () => {
  const { code, out, err } = await place.pinball(['data', 'list'])
  assert.equal([code, err], [0, ''])
  for (const { name, hub } of DATASETS) assert.ok(out.includes(name) && out.includes(hub), name)
  assert.match(out, /helpsteer-verbosity +helpsteer +0 to 4 +\(raw \+ 0\.5\) \/ 5\n/)
  assert.match(out, /Assumed, as it is not published:\n {2}ultrafeedback: /)
  const { datasets } = JSON.parse((await place.pinball(['data', 'list', '--json'])).out)
  assert.is(datasets.length, DATASETS.length)
  assert.equal(datasets[2].attributes, [
    { name: 'beavertails-is_safe', column: 'is_safe', scale: 'false or true', normalisation: 'true is 1, false is 0' },
  ])
})

test('rows of files: plain and gzip are the same rows; skipped rows are named', async () => {
  const data = join(FIXTURES, 'helpsteer.jsonl')
  const run = (out: string, ...more: string[]) =>
    place.pinball(['data', 'rows', '--dataset', 'helpsteer', '--data', data, '--out', out, ...more])
  const { code, out, err } = await run('a.jsonl')
  assert.equal([code, err], [0, ''])
  assert.match(out, /helpsteer +3 +2 +1 an empty response\n/)
  assert.match(out, /helpsteer-verbosity +1\n/)
  assert.match(out, /\na.jsonl: 2 rows \(\d\.\d s\)\n$/)
  const json = JSON.parse((await run('a.jsonl.gz', '--json', '--limit', '1')).out)
  const { limit, seed, written, notDrawn, sets } = json
  assert.equal([limit, seed, written, notDrawn], [1, 1, 2, 0])
  assert.equal(sets, { helpsteer: { records: 3, rows: 2, skipped: { 'an empty response': 1 } } })
  const [plain, drawn] = [await rowsOf('a.jsonl'), await rowsOf('a.jsonl.gz')]
  assert.equal(
    drawn.map(({ id }) => id),
    plain.map(({ id }) => id),
  )
  assert.equal(Object.keys(plain[0]).slice(0, 2), ['prompt', 'response'])
  assert.is((await readdir(place.folder)).filter((name) => name.endsWith('.tmp')).length, 0)
})

test('rows of the hub: a broken connection, a second run without a request for files', async () => {
  const text = await readFile(join(FIXTURES, 'helpsteer.jsonl'))
  hub.files.set('train.jsonl.gz', gzipSync(text))
  hub.files.set('validation.jsonl.gz', gzipSync('{}'))
  hub.large.add('train.jsonl.gz')
  hub.faults.set('/storage/train.jsonl.gz', [{ cutAfter: 100 }])
  const args = ['data', 'rows', '--dataset', 'helpsteer', '--json', '--out']
  const { code, out, err } = await place.pinball([...args, 'hub.jsonl'])
  assert.equal([code, err], [0, ''])
  const { commits, written } = JSON.parse(out)
  assert.equal([commits, written], [{ helpsteer: hub.commit }, 2])
  assert.is(hub.log.filter((line) => line.includes('/storage/')).length, 2)
  hub.log.length = 0
  await place.pinball([...args, 'again.jsonl'])
  assert.equal(
    hub.log.filter((line) => !line.includes('/api/')),
    [],
  )
  assert.equal(await rowsOf('again.jsonl'), await rowsOf('hub.jsonl'))
})

test('killed while it fetches: the next run goes on, two at once agree', async () => {
  const text = lines(
    ...Array.from({ length: 3000 }, (_, n) => ({ prompt: `question ${n}`, response: `${n * n}`, is_safe: n % 3 > 0 })),
  )
  const bytes = gzipSync(text)
  hub.files.set('round0/30k/train.jsonl.gz', bytes)
  hub.large.add('round0/30k/train.jsonl.gz')
  const stored = '/storage/round0/30k/train.jsonl.gz'
  hub.faults.set(stored, [{ stallAfter: 5000 }])
  const args = ['data', 'rows', '--dataset', 'beavertails', '--limit', '500', '--out']
  const child = place.launch([...args, 'killed.jsonl'])
  const ended = finish(child)
  const blobs = join(place.folder, 'cache/hub/datasets/PKU-Alignment/BeaverTails/blobs')
  for (let size = 0; size < 5000 && child.exitCode === null; ) {
    const [name] = await readdir(blobs).catch(() => [])
    size = name ? (await readFile(join(blobs, name))).length : 0
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  child.kill('SIGKILL')
  await ended
  assert.not.ok((await readdir(place.folder)).includes('killed.jsonl'))
  hub.log.length = 0
  const two = [place.launch([...args, 'one.jsonl']), place.launch([...args, 'two.jsonl'])]
  for (const { code, err } of await Promise.all(two.map(finish))) assert.equal([code, err], [0, ''])
  assert.ok(hub.log.includes(`GET ${stored} bytes=5000-${bytes.length - 1}`), `${hub.log}`)
  assert.equal(await readdir(blobs), [sha256(bytes)])
  const one = await rowsOf('one.jsonl')
  assert.equal([one.length, await rowsOf('two.jsonl')], [500, one])
})

test('an interrupt while rows are written leaves no file', async () => {
  const text = lines(
    ...Array.from({ length: 40_000 }, (_, n) => ({ prompt: `question ${n}`, response: `${n * n}`, is_safe: true })),
  )
  const data = await place.file('many.jsonl', text)
  const child = place.launch(['data', 'rows', '--dataset', 'beavertails', '--data', data, '--out', 'cut.jsonl.gz'])
  const ended = finish(child)
  for (;;) {
    const names = await readdir(place.folder)
    if (names.some((name) => name.startsWith('.cut.jsonl.gz.')) || child.exitCode !== null) break
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  child.kill('SIGINT')
  await ended
  if (child.exitCode === null) await once(child, 'exit')
  const left = (await readdir(place.folder)).filter((name) => name.includes('cut.jsonl'))
  // Either it was interrupted and left nothing, or it was quicker than the signal.
  assert.equal(left, child.exitCode === 130 ? [] : ['cut.jsonl.gz'])
})

test('wrong usage, and files that are not what they should be', async () => {
  const data = join(FIXTURES, 'shp.jsonl')
  await place.refused(
    ['data', 'rows', '--dataset', 'helpster', '--out', 'x'],
    /^pinball: --dataset: "helpster" is no dataset; known are/,
    2,
  )
  await place.refused(['data', 'rows', '--dataset', 'shp'], "required option '--out <file>' not specified", 2)
  await place.refused(
    ['data', 'rows', '--dataset', 'shp,pku-saferlhf', '--data', data, '--out', 'x'],
    '--data: its files are of one dataset, --dataset names 2',
    2,
  )
  await place.refused(['data', 'rows', '--dataset', 'shp', '--limit', '0', '--out', 'x'], /whole number from 1 to/, 2)
  const other = ['data', 'rows', '--dataset', 'helpsteer', '--out', 'x', '--data']
  await place.refused(
    [...other, data],
    /shp\.jsonl line 1: has no field "prompt", it has none; it is not of dataset helpst/,
  )
  await place.refused([...other, 'nowhere.jsonl'], 'nowhere.jsonl: no such file')
  const none = await place.file('none.jsonl', '')
  await place.refused([...other, none], /^pinball: no row of these files can be used; pinball data list says/)
  const cut = gzipSync(await readFile(join(FIXTURES, 'helpsteer.jsonl')))
  await mkdir(join(place.folder, 'sub'), { recursive: true })
  await writeFile(join(place.folder, 'sub/cut.jsonl.gz'), cut.subarray(0, cut.length - 4))
  await place.refused(
    [...other, 'sub/cut.jsonl.gz'],
    /^pinball: sub\/cut.jsonl.gz: not valid gzip, it is damaged or cut/,
  )
  assert.not.ok((await readdir(place.folder)).includes('x'))
  await place.refused(
    ['data', 'rows', '--dataset', 'shp', '--out', 'x'],
    /^pinball: hub dataset RLHFlow\/SHP-standard: has/,
  )
})

test.run()
