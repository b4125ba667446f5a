// The Hugging Face hub, spoken by a local server: listings, the cache, resumed downloads, checksums, tokens, hostile answers.
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type HubRepo, hubSource, listHub, matchHub } from '../src/files/hub.ts'
import { type HubCacheOptions, openHub } from '../src/files/hub_cache.ts'
import { fails } from './assert.ts'
import { blobSha1, type Fault, type HubServer, sha256, startHub } from './hub_server.ts'

const REPO: HubRepo = { type: 'dataset', name: 'acme/set' }
const large = Uint8Array.from({ length: 40_000 }, (_, i) => (i * 13) % 253)
const small = new TextEncoder().encode('{"a": 1}\n')
const PLACE = 'data/train 0.bin'
const STORED = `/storage/${encodeURI(PLACE)}`

let hub: HubServer
let cache: string
let options: HubCacheOptions

test.before.each(async () => {
  hub = await startHub()
  for (const [path, bytes] of [
    [PLACE, large],
    ['data/train-1.jsonl', small],
    ['data/deep/x.jsonl', small],
    ['README.md', small],
  ] as const) {
    hub.files.set(path, bytes)
  }
  hub.large.add(PLACE)
  cache = await mkdtemp(join(tmpdir(), 'pinball-hub-'))
  options = { endpoint: hub.url, cache, backoffMs: 1, stallMs: 300, retries: 2, offline: false }
})
test.after.each(async () => {
  await hub.close()
  await rm(cache, { recursive: true })
})

const blobs = () => readdir(join(cache, 'hub/datasets/acme/set/blobs'))
const fault = (path: string, ...faults: Fault[]) => hub.faults.set(path, faults)

async function fetched(pattern: string, more: HubCacheOptions = {}): Promise<Uint8Array> {
  const { files } = await openHub(REPO, pattern, { ...options, ...more })
  const source = await files[0].open()
  const bytes = await source.read(0, source.byteLength)
  await source.close()
  return bytes
}

test('lists all pages, finds files by patterns, says what there is where none fits', async () => {
  const listing = await listHub(REPO, options)
  assert.equal(
    listing.files.map(({ path }) => path),
    ['README.md', 'data/deep/x.jsonl', PLACE, 'data/train-1.jsonl'],
  )
  assert.equal(
    listing.files.find(({ path }) => path === PLACE),
    { path: PLACE, size: 40_000, oid: blobSha1(large), sha256: sha256(large) },
  )
  const found = (pattern: string) => matchHub(REPO, listing, pattern).map(({ path }) => path)
  assert.equal(found('data/train*'), [PLACE, 'data/train-1.jsonl'])
  assert.equal(found('data/*.jsonl'), ['data/train-1.jsonl'])
  assert.equal(found('**.jsonl'), ['data/deep/x.jsonl', 'data/train-1.jsonl'])
  await fails(
    () => found('data/test-*'),
    'hub dataset acme/set: has no file "data/test-*", it has "README.md", "data/deep/x.jsonl", "data/train 0.bin", "data/train-1.jsonl"',
  )
})

test('fetches small and large files once, checked, with progress; then without a network', async () => {
  const seen: string[] = []
  const onProgress = (path: string, bytes: number, total: number) => seen.push(`${path} ${bytes} ${total}`)
  assert.equal(await fetched('data/train 0.bin', { onProgress }), large)
  assert.equal([seen[0], seen[seen.length - 1]], [`${PLACE} 0 40000`, `${PLACE} 40000 40000`])
  assert.equal(await fetched('data/train-1.jsonl'), small)
  assert.equal((await blobs()).sort(), [sha256(large), blobSha1(small)].sort())
  hub.log.length = 0
  assert.equal(await fetched('README.md'), small)
  assert.equal(
    hub.log.filter((line) => /resolve|storage/.test(line)),
    [],
    'equal content is there already',
  )
  await hub.close()
  assert.equal(await fetched('data/train 0.bin'), large)
  assert.equal(await fetched('data/train 0.bin', { offline: true }), large)
  hub = await startHub()
})

test('offline: what is not there is said', async () => {
  await fails(
    () => fetched('data/*', { offline: true }),
    `hub dataset acme/set: is not in the cache ${cache}, and HF_HUB_OFFLINE forbids to fetch it`,
  )
  await fetched('README.md')
  await fails(
    () => fetched('data/train 0.bin', { offline: true }),
    'hub dataset acme/set/data/train 0.bin: is not in the cache, and HF_HUB_OFFLINE forbids to fetch it',
  )
})

test('dropped and stalled connections go on where they ended, in one try and in the next', async () => {
  fault(STORED, { cutAfter: 10_000 }, { stallAfter: 5_000 }, { status: 503 }, { hangUp: true })
  assert.equal(await fetched('data/train 0.bin'), large)
  await rm(cache, { recursive: true })
  fault(STORED, { cutAfter: 12_000 }, { hangUp: true }, { hangUp: true }, { hangUp: true })
  await fails(
    () => fetched('data/train 0.bin'),
    /^hub dataset acme\/set\/data\/train 0.bin: the server cannot be reached/,
  )
  assert.match((await blobs()).join(), /^[0-9a-f]{64}\.[\w-]+\.\d+\.[0-9a-f]{12}\.partial$/)
  hub.log.length = 0
  assert.equal(await fetched('data/train 0.bin'), large)
  assert.equal(
    hub.log.filter((line) => line.includes('storage')),
    [`GET ${STORED} bytes=12000-39999`],
  )
  assert.equal(await blobs(), [sha256(large)])
})

test('what does not have the listed hash is thrown away', async () => {
  const message = /: what the server sent does not have the hash that the hub lists; try again later$/
  for (const path of [PLACE, 'README.md']) {
    hub.wrongHash = path
    await fails(() => fetched(path), message)
    hub.wrongHash = null
  }
  assert.equal(await blobs(), [])
  fault(STORED, { body: large.map((byte) => byte ^ 1) })
  await fails(() => fetched(PLACE), message)
  assert.equal(await fetched(PLACE), large)
  // What a process that is gone has left may be wrong: then once more from the beginning.
  await rm(join(cache, 'hub/datasets/acme/set/blobs', sha256(large)))
  const left = join(cache, 'hub/datasets/acme/set/blobs', `${sha256(large)}.elsewhere.1.abc.partial`)
  await writeFile(left, new Uint8Array(900))
  await utimes(left, new Date(0), new Date(0))
  hub.log.length = 0
  assert.equal(await fetched(PLACE), large)
  const ranges = hub.log.filter((line) => line.includes('storage')).map((line) => /bytes=(\d+)/.exec(line)?.[1])
  assert.equal([ranges, await blobs()], [['900', '0'], [sha256(large)]])
})

test('several at once get the file, and nothing else is left', async () => {
  const all = await Promise.all(Array.from({ length: 5 }, () => fetched(PLACE)))
  for (const bytes of all) assert.equal(bytes, large)
  assert.equal(await blobs(), [sha256(large)])
})

test('a commit is listed once; a new commit of a branch brings its new files', async () => {
  await fetched('README.md')
  hub.commit = 'd'.repeat(40)
  hub.files.set('README.md', large)
  const { commit } = await openHub(REPO, 'README.md', options)
  assert.is(commit, hub.commit)
  assert.equal(await fetched('README.md'), large)
  const fixed = { ...REPO, revision: hub.commit }
  await openHub(fixed, 'README.md', options)
  hub.log.length = 0
  await openHub(fixed, 'README.md', options)
  assert.equal(hub.log, [])
})

test('the token goes to the endpoint and not where files are stored', async () => {
  const storage = await startHub()
  storage.files.set(PLACE, large)
  hub.storage = storage.url
  try {
    assert.equal(await fetched(PLACE, { token: 'secret' }), large)
    assert.ok(hub.tokens.length >= 4 && hub.tokens.every((line) => line.endsWith(' Bearer secret')), `${hub.tokens}`)
    assert.equal(storage.tokens, [])
    assert.is(storage.log.length, 1)
  } finally {
    await storage.close()
  }
})

test('refusals are said with the repository or the file', async () => {
  const info = '/api/datasets/acme/set/revision/main'
  for (const [status, words] of [
    [404, 'not found on the server (404); check the name and revision'],
    [401, 'the server refuses access (401); a private or gated file needs a token that may read it'],
  ] as const) {
    fault(info, { status })
    await fails(() => fetched('README.md'), `hub dataset acme/set: ${words}`)
  }
  fault(info, { status: 429 }, { status: 429, headers: { 'Retry-After': '0' } })
  assert.equal(await fetched('README.md'), small)
  fault(`/datasets/acme/set/resolve/${hub.commit}/data/train-1.jsonl`, { status: 403 })
  hub.files.set('data/train-1.jsonl', large)
  await fails(
    () => fetched('data/train-1.jsonl'),
    /^hub dataset acme\/set\/data\/train-1.jsonl: the server refuses access \(403\)/,
  )
  await fails(() => openHub({ type: 'dataset', name: '../set' }, '*', options), /^hub: a repository is owner\/name/)
  await fails(() => openHub({ ...REPO, revision: '../x' }, '*', options), 'hub: "../x" is not a revision')
})

test('a hostile listing writes nothing, a damaged one in the cache is named', async () => {
  hub.files.set('../../evil', small)
  await fails(
    () => fetched('README.md'),
    /^hub dataset acme\/set: the hub lists a file in a form that is not understood/,
  )
  hub.files.delete('../../evil')
  hub.commit = '../../../evil'
  await fails(() => fetched('README.md'), /^hub dataset acme\/set: the hub must name the commit as "sha"/)
  hub.commit = 'c'.repeat(40)
  await fetched('README.md')
  const ref = join(cache, 'hub/datasets/acme/set/refs/main.json')
  assert.is(JSON.parse(await readFile(ref, 'utf8')).commit, hub.commit)
  await writeFile(ref, '{"commit": 7}')
  await fails(() => fetched('README.md'), /refs\/main.json: is not a listing of a repository; remove it$/)
})

test('without a disk: files by byte ranges', async () => {
  const source = await hubSource(REPO, PLACE, options)
  assert.equal([source.name, source.byteLength], [`hub dataset acme/set/${PLACE}`, 40_000])
  assert.equal(await source.read(30_000, 500), large.slice(30_000, 30_500))
})

test.run()
