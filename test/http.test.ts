// Files over HTTP from a local server: ranges, dropped and stalled connections, passing and final refusals, changed files.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { httpFiles, httpSource } from '../src/files/http.ts'
import { blobFiles, readText } from '../src/files/source.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { fails } from './assert.ts'
import { startServer } from './browser/server.ts'
import { root } from './command.ts'
import { type Fault, type HubServer, startHub } from './hub_server.ts'
import { random } from './random.ts'

const QUICK = { backoffMs: 1, stallMs: 300, name: 'f' }
const data = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7) % 251)
let hub: HubServer

test.before.each(async () => {
  hub = await startHub()
  hub.files.set('a.bin', data)
})
test.after.each(() => hub.close())

const url = () => `${hub.url}/files/a.bin`
const fault = (...faults: Fault[]) => hub.faults.set('/files/a.bin', faults)

test('reads any ranges, and only those', async () => {
  const draw = random(4)
  const source = await httpSource(url(), QUICK)
  assert.equal([source.name, source.byteLength], ['f', 5000])
  for (let round = 0; round < 20; round++) {
    const [at, end] = draw.integers(2, 0, 5001).sort((a, b) => a - b)
    assert.equal(await source.read(at, end - at), data.slice(at, end))
  }
  assert.equal(
    hub.log.filter((line) => !/ bytes=/.test(line)),
    [],
  )
  await fails(() => source.read(4000, 1001), 'f: bytes 4000 to 5001 are not inside its 5000')
  hub.files.set('a.bin', new Uint8Array(0))
  assert.is((await httpSource(url(), QUICK)).byteLength, 0)
})

test('connections that drop or stall are taken up where they ended', async () => {
  const source = await httpSource(url(), QUICK)
  hub.log.length = 0
  fault({ cutAfter: 1000 }, { hangUp: true }, { cutAfter: 500 }, { stallAfter: 700 })
  assert.equal(await source.read(100, 4000), data.slice(100, 4100))
  const begins = hub.log.map((line) => Number(/bytes=(\d+)-/.exec(line)?.[1]))
  assert.equal(begins, [100, 1100, 1100, 1600, 2300])
})

test('a connection that drops often is borne as long as bytes come', async () => {
  const source = await httpSource(url(), { ...QUICK, retries: 2 })
  fault(...Array.from({ length: 8 }, () => ({ cutAfter: 100 })))
  assert.equal(await source.read(0, 1000), data.slice(0, 1000))
})

test('passing refusals are repeated, with the pause that the server asks for', async () => {
  fault({ status: 503 }, { status: 429, headers: { 'Retry-After': '0' } }, { status: 500 })
  const source = await httpSource(url(), QUICK)
  fault({ status: 408 }, { status: 502 })
  assert.equal(await source.read(0, 10), data.slice(0, 10))
  const start = performance.now()
  fault({ status: 429, headers: { 'Retry-After': '1' } })
  await source.read(0, 1)
  assert.ok(performance.now() - start > 950)
})

test('what does not pass is said: refusals, dead servers, connections that drop again and again', async () => {
  const few = { ...QUICK, retries: 2 }
  const many = (one: Fault) => Array.from({ length: 9 }, () => one)
  fault({ status: 404 })
  await fails(() => httpSource(url(), few), 'f: not found on the server (404); check the name and revision')
  for (const status of [401, 403]) {
    fault({ status })
    await fails(() => httpSource(url(), few), new RegExp(`^f: the server refuses access \\(${status}\\); a private or`))
  }
  fault({ status: 400 })
  await fails(() => httpSource(url(), few), 'f: the server answers 400')
  fault(...many({ status: 503 }))
  await fails(() => httpSource(url(), few), 'f: the server answers 503, 3 times; check the connection or try later')
  fault(...many({ hangUp: true }))
  await fails(() => httpSource(url(), few), /^f: the server cannot be reached \(.+\), 3 times; check the connection/)
  fault()
  const source = await httpSource(url(), few)
  fault({ cutAfter: 10 }, ...many({ cutAfter: 0 }))
  await fails(() => source.read(0, 100), 'f: the connection drops at byte 10 again and again; try later')
  await fails(
    () => httpSource('http://127.0.0.1:1/a?token=secret', { backoffMs: 1, retries: 0 }),
    /^http:\/\/127.0.0.1:1\/a: the server cannot be reached/,
  )
})

test('a file that changes on the server is noticed by its ETag and its length', async () => {
  const source = await httpSource(url(), QUICK)
  hub.files.set(
    'a.bin',
    data.map((byte) => byte ^ 1),
  )
  const changed = 'f: the file has changed on the server while it was read; start again'
  await fails(() => source.read(0, 10), changed)
  hub.etags = false
  const plain = await httpSource(url(), QUICK)
  hub.files.set('a.bin', data.slice(1))
  await fails(() => plain.read(0, 10), changed)
  hub.files.set('a.bin', data.slice(0, 50))
  await fails(() => plain.read(100, 10), changed)
})

test('a server without ranges has the file read whole, up to a limit', async () => {
  hub.ranges = false
  fault({}, { cutAfter: 1000 })
  const source = await httpSource(url(), QUICK)
  assert.equal(await source.read(10, 4990), data.slice(10))
  await fails(
    () => httpSource(url(), { ...QUICK, wholeLimitBytes: 4999 }),
    /^f: has 5000 bytes, more than the 4999 that are read whole, and the server gives no byte ranges; download/,
  )
})

test('a folder on a server is a model directory; what is not there is absent', async () => {
  hub.files.set('model/config.json', new TextEncoder().encode('{}'))
  const asked: string[] = []
  const get: typeof fetch = (input, init) => {
    asked.push(`${input}`)
    return fetch(input, init)
  }
  const files = httpFiles(`${hub.url}/files/model/?token=secret`, { backoffMs: 1, fetch: get })
  assert.is(files.name, `${hub.url}/files/model`)
  const source = await files.open('config.json')
  assert.equal(await source?.read(0, 2), new TextEncoder().encode('{}'))
  assert.is(asked[0], `${hub.url}/files/model/config.json?token=secret`)
  assert.is(source?.name, `${hub.url}/files/model/config.json`)
  assert.is(await files.open('tokenizer.json'), null)
  hub.faults.set('/files/model/config.json', [{ status: 403 }])
  await fails(() => files.open('config.json'), /refuses access \(403\)/)
})

test('a model is loaded from a server and from chosen files, and they are the same model', async () => {
  const server = await startServer(root, new Map(), false)
  const device = await openDevice('wasm', { threads: 1 })
  try {
    const folder = join(root, 'test/fixtures/qrm/debiased')
    const chosen = await Promise.all(
      (await readdir(folder)).map(async (name) => new File([await readFile(join(folder, name))], name)),
    )
    const found: string[] = []
    for (const files of [httpFiles(`${server.origin}/test/fixtures/qrm/debiased`), blobFiles('chosen', chosen)]) {
      const model = await loadRewardModel(device, files)
      const [{ score }] = await model.score([{ input_ids: [1, 2, 3], gate_position: 0 }])
      found.push(`${score} ${await model.fingerprint()}`)
      await model.destroy()
    }
    assert.is(found[0], found[1])
  } finally {
    await device.destroy()
    await server.close()
  }
})

test('of a chosen folder the files on top are taken, each name once', async () => {
  const file = (path: string) =>
    Object.defineProperty(new File([path], path.split('/').pop()!), 'webkitRelativePath', { value: path })
  const files = blobFiles('chosen', ['m/original/config.json', 'm/config.json', 'm/a'].map(file))
  assert.equal(await files.list!(), ['a', 'config.json'])
  assert.is(await readText(files, 'config.json'), 'm/config.json')
  assert.is(await files.open('b'), null)
  await fails(() => blobFiles('chosen', [file('m/a'), file('n/a')]), 'chosen: two files are called "a"')
})

test.run()
