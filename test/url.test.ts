// A model directory at an address: few requests, none for what is kept, web pages for missing files, progress, signals, foreign pages.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { httpSource } from '../src/files/http.ts'
import { openUrl, type UrlCache, type UrlProgress } from '../src/files/url.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { fails } from './assert.ts'
import { startServer, type TestServer } from './browser/server.ts'
import { root } from './command.ts'

let server: TestServer

test.before(async () => {
  server = await startServer(root, new Map(), false)
})
test.after(() => server.close())

function memoryCache(): UrlCache & { readonly files: Map<string, Uint8Array | null> } {
  const files = new Map<string, Uint8Array | null>()
  return {
    files,
    get: async (url) => files.get(url),
    put: async (url, file) => void files.set(url, file),
  }
}

const ROW = { prompt: 'How was the film?', response: 'A delight.' }

test('a model takes at most 12 requests, and none when it is kept', async () => {
  const device = await openDevice('wasm', { threads: 1 })
  const cache = memoryCache()
  const progress: UrlProgress[] = []
  const load = (onProgress?: (now: UrlProgress) => void) =>
    loadRewardModel(device, openUrl(`${server.origin}/models/nano/`, { cache, onProgress }))
  server.log.length = 0
  const first = await load((now) => progress.push(now))
  assert.ok(server.log.length <= 12, `${server.log.length} requests: ${server.log.join(' ')}`)
  assert.is(new Set(server.log).size, server.log.length, 'no file is asked for twice')
  const [score] = await first.score([ROW])
  const weights = progress.filter(({ file }) => file === 'model.safetensors')
  const { bytes, total, cached } = weights.at(-1)!
  assert.equal([bytes, cached], [total, false])
  assert.ok(bytes > 5e6 && weights.every(({ bytes: now }, i) => i === 0 || now > weights[i - 1]!.bytes))

  server.log.length = 0
  const second = await load((now) => progress.push(now))
  assert.equal(server.log, [])
  assert.is(progress.at(-1)!.cached, true)
  assert.equal(await second.score([ROW]), [score])
  const again = openUrl(`${server.origin}/models/nano`, { cache, refresh: true })
  assert.ok(await again.open('config.json'))
  assert.equal(server.log, ['/models/nano/config.json'])
  for (const model of [first, second]) await model.destroy()
  await device.destroy()
})

test('a web page is no file: missing for a folder, refused by name for an address', async () => {
  const files = openUrl(`${server.origin}/models/nano`, { cache: false })
  assert.is(await files.open('chat_template.jinja'), null)
  await fails(
    () => httpSource(`${server.origin}/nothing.bin`, { name: 'f' }),
    'f: the server answers with a web page, not with the file; check the address',
  )
})

test('files above the limit are read by ranges; a signal ends what goes on', async () => {
  const stop = new AbortController()
  const asked: (string | undefined)[] = []
  const content = Uint8Array.from({ length: 100 }, (_, i) => i)
  const ranges: typeof fetch = async (_input, init) => {
    const range = new Headers(init?.headers).get('range') ?? undefined
    asked.push(range)
    const [, from = 0, to = 99] = (/bytes=(\d+)-(\d+)/.exec(range ?? '') ?? []).map(Number)
    const headers = { 'Content-Length': `${to - from + 1}`, 'Content-Range': `bytes ${from}-${to}/100` }
    return new Response(content.slice(from, to + 1), { status: range ? 206 : 200, headers })
  }
  const options = { cache: false as const, fetch: ranges, wholeLimitBytes: 50, signal: stop.signal }
  const source = await openUrl('http://host/m', options).open('big.bin')
  assert.equal([...(await source!.read(20, 3))], [20, 21, 22])
  assert.equal(asked, [undefined, 'bytes=0-0', 'bytes=20-22'])
  stop.abort(new Error('stop now'))
  await fails(() => source!.read(0, 1), 'stop now')
  const hanging: typeof fetch = (_input, init) =>
    new Promise((_, reject) => init!.signal!.addEventListener('abort', () => reject(new Error('aborted'))))
  const late = new AbortController()
  const opening = openUrl('http://host/m', { cache: false, fetch: hanging, signal: late.signal }).open('x')
  late.abort(new Error('no longer'))
  await fails(() => opening, 'no longer')
})

test('a page of another origin asks simply, tries twice, and hears of CORS', async () => {
  const page = { origin: 'https://page.example', href: 'https://page.example/app' }
  Object.defineProperty(globalThis, 'location', { value: page, configurable: true })
  try {
    const sent: string[] = []
    const hidden: typeof fetch = async (_input, init) => {
      sent.push(...new Headers(init?.headers).keys())
      // Without Access-Control-Expose-Headers a page sees neither Content-Range nor ETag.
      return new Response(new Uint8Array([1, 2, 3]), { status: new Headers(init?.headers).has('range') ? 206 : 200 })
    }
    const source = await httpSource('https://models.example/m.bin', { name: 'f', fetch: hidden })
    assert.equal([...(await source.read(1, 2))], [2, 3])
    assert.ok(!sent.includes('if-range'))
    let tries = 0
    const refused: typeof fetch = async () => {
      tries++
      throw new TypeError('Failed to fetch')
    }
    const options = { name: 'f', fetch: refused, backoffMs: 1 }
    await fails(
      () => httpSource('https://models.example/m.bin', options),
      /^f: the server cannot be reached \(Failed to fetch\), or its server does not let this page read it \(CORS: Access-Control-Allow-Origin must name https:\/\/page\.example\), 2 times/,
    )
    assert.is(tries, 2)
  } finally {
    Reflect.deleteProperty(globalThis, 'location')
  }
})

test.run()
