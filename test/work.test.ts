// Work that goes on after a crash: folders that belong to it, settings, sealed parts; on the disk and in memory.
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { directoryStore } from '../src/files/disk.ts'
import { BLOCK_BYTES, digest, sampleHash } from '../src/files/hash.ts'
import { memorySource } from '../src/files/source.ts'
import { memoryStore, type Store } from '../src/files/store.ts'
import { endFinished, openWork, WORK_FILE, type WorkOptions } from '../src/files/work.ts'
import { fails } from './assert.ts'

const OPTIONS: WorkOptions = {
  command: 'fit',
  settings: { '--alpha': 0.5, rows: [3, 4] },
  partNames: /^([a-d]|large)$/,
}
const text = (words: string): Uint8Array<ArrayBuffer> => new Uint8Array(new TextEncoder().encode(words))

/** Runs with a store in memory and with one on the disk. */
async function withStores(work: (store: Store, change: (file: string, bytes: Uint8Array) => unknown) => Promise<void>) {
  const files = new Map<string, Uint8Array>()
  await work(memoryStore('memory', files), (file, bytes) => files.set(file, bytes))
  const folder = await mkdtemp(join(tmpdir(), 'pinball-work-'))
  try {
    const place = join(folder, 'out.partial')
    await work(directoryStore(place), (file, bytes) => writeFile(join(place, file), bytes))
    assert.equal(await readdir(folder), [], 'the folder goes when the work ends')
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function content(store: Store, file: string): Promise<Uint8Array> {
  const source = await store.open(file)
  assert.ok(source, file)
  const bytes = await source.read(0, source.byteLength)
  await source.close()
  return bytes
}

async function partText(work: Awaited<ReturnType<typeof openWork>>, part: string): Promise<string> {
  const source = await work.open(part)
  const bytes = await source.read(0, source.byteLength)
  await source.close()
  return new TextDecoder().decode(bytes)
}

test('the hash of a file is that of its bytes', async () => {
  await withStores(async (store) => {
    for (const bytes of [text('some bytes'), text('')]) {
      await store.write('a', [bytes])
      assert.is(await store.digest('a'), await digest(bytes))
    }
    await fails(() => store.digest('b'), /b: no such file/)
    await store.remove('a')
    await store.removeIfEmpty()
  })
})

test('work goes on where it was, and leaves nothing when it ends', async () => {
  await withStores(async (store) => {
    const first = await openWork(store, OPTIONS)
    assert.is(first.resumed, false)
    await first.write('b', [text('two'), text(' halves')])
    await first.write('a', [])
    const second = await openWork(store, OPTIONS)
    assert.is(second.resumed, true)
    assert.equal(second.parts(), ['a', 'b'])
    assert.is(await partText(second, 'b'), 'two halves')
    assert.is(await partText(second, 'a'), '')
    await second.remove('a')
    assert.equal((await openWork(store, OPTIONS)).parts(), ['b'])
    await second.end()
    assert.equal(await store.list(), [])
  })
})

test('other settings are refused by name, and begun anew on request', async () => {
  await withStores(async (store) => {
    await (await openWork(store, OPTIONS)).write('a', [text('old')])
    const other = { ...OPTIONS, settings: { '--alpha': 0.25, rows: [3, 4] } }
    await fails(
      () => openWork(store, other),
      `${store.name}/${WORK_FILE}: was begun with --alpha 0.5, now it is 0.25; use the same, or give --restart or another --out`,
    )
    const fewer = { ...OPTIONS, settings: { '--alpha': 0.5 } }
    await fails(() => openWork(store, fewer), /: was begun with rows \[3,4\], now it has none; use the same/)
    const more = { ...OPTIONS, settings: { ...OPTIONS.settings, '--beta': 2 } }
    await fails(() => openWork(store, more), /: was begun without --beta, now it is 2; use the same/)
    await fails(() => openWork(store, { ...OPTIONS, command: 'gate' }), /holds work of "fit", not of "gate"/)
    const anew = await openWork(store, { ...other, restart: true })
    assert.is(anew.resumed, false)
    assert.equal(anew.parts(), [])
    assert.equal((await openWork(store, other)).resumed, true, 'the new settings are kept')
    await anew.end()
  })
})

test('a damaged part is named, set aside and made again', async () => {
  await withStores(async (store, change) => {
    const first = await openWork(store, OPTIONS)
    for (const part of ['a', 'b', 'c', 'd']) await first.write(part, [text(`part ${part}`)])
    const bytes = await content(store, 'b.part')
    for (let bit = 0; bit < 8 * bytes.length; bit += 37) {
      const flipped = bytes.slice()
      flipped[bit >> 3] ^= 1 << (bit & 7)
      await change('b.part', flipped)
      const lines: string[] = []
      const work = await openWork(store, { ...OPTIONS, onDamage: (line) => lines.push(line) })
      assert.equal(work.parts(), ['a', 'c', 'd'], `bit ${bit}`)
      assert.equal(lines, [`${store.name}/b.part is damaged; it is set aside as b.part.damaged and made again`])
      assert.equal([...(await content(store, 'b.part.damaged'))], [...flipped], 'nothing is lost')
    }
    await change('c.part', bytes.slice(0, 20))
    await change('d.part', new Uint8Array())
    assert.equal((await openWork(store, OPTIONS)).parts(), ['a'])
    await first.end()
    assert.equal(await store.list(), [])
  })
})

test('parts of more than one block are checked to the end', async () => {
  const store = memoryStore('memory')
  const large = new Uint8Array(BLOCK_BYTES + 5).fill(7)
  await (await openWork(store, OPTIONS)).write('large', [large.subarray(0, 1000), large.subarray(1000)])
  const bytes = await content(store, 'large.part')
  assert.equal((await openWork(store, OPTIONS)).parts(), ['large'])
  for (const at of [0, BLOCK_BYTES - 1, BLOCK_BYTES + 4]) {
    const damaged = bytes.slice()
    damaged[at] ^= 1
    await store.write('large.part', [damaged])
    assert.equal((await openWork(store, OPTIONS)).parts(), [], `byte ${at}`)
  }
})

test('work that has finished but for its end is ended by those who know its settings', async () => {
  await withStores(async (store, change) => {
    await (await openWork(store, OPTIONS)).write('a', [text('1')])
    const left = await store.list()
    for (const [command, settings] of [
      ['gate', { '--alpha': 0.5 }],
      ['fit', { '--alpha': 0.25 }],
      ['fit', { '--alpha': 0.5, other: 1 }],
    ] as const) {
      await endFinished(store, { ...OPTIONS, command, settings })
      assert.equal(await store.list(), left)
    }
    await endFinished(store, { ...OPTIONS, settings: { '--alpha': 0.5 } })
    assert.equal(await store.list(), [])
    await endFinished(store, { ...OPTIONS, settings: {} })
    for (const mine of ['not JSON', '{"pinball":"else","command":"fit","settings":{}}']) {
      await store.write(WORK_FILE, [text('')])
      await change(WORK_FILE, text(mine))
      await endFinished(store, { ...OPTIONS, settings: {} })
      assert.equal(await store.list(), [WORK_FILE])
    }
    await store.remove(WORK_FILE)
    await store.removeIfEmpty()
  })
})

test('what Pinball did not make is neither used nor removed', async () => {
  await withStores(async (store, change) => {
    await store.write('precious.txt', [text('mine')])
    await fails(
      () => openWork(store, { ...OPTIONS, restart: true }),
      `${store.name}: must be missing, empty or hold work of "fit", it has "precious.txt"; move it away or choose another --out`,
    )
    const work = await openWork(store, { ...OPTIONS, allowed: ['precious.txt'] })
    await work.write('a', [text('1')])
    await (await openWork(store, { ...OPTIONS, restart: true })).end()
    assert.equal(await store.list(), ['precious.txt'])
    // Browsers call half a download so.
    const mine = ['film.part', 'film.part.damaged', 'x-a.part']
    for (const name of mine) await store.write(name, [text('mine')])
    const others = { ...OPTIONS, allowed: ['precious.txt', ...mine] }
    for (const restart of [false, false, true]) {
      const beside = await openWork(store, { ...others, restart, onDamage: (line) => assert.unreachable(line) })
      assert.equal(beside.parts(), restart || !beside.resumed ? [] : ['a'])
      await beside.write('a', [text('1')])
    }
    await (await openWork(store, others)).end()
    assert.equal(await store.list(), [...mine, 'precious.txt'].sort())
    await fails(() => work.write('film', []), /fit: "film" is no name of a part/)
    for (const name of mine) await store.remove(name)
    await store.write(WORK_FILE, [text('{"pinball":"something"}')])
    await fails(() => openWork(store, { ...OPTIONS, restart: true }), /is not Pinball's; move it away/)
    await change(WORK_FILE, text('{"pinball":"work","command":"fit","settings":{}}'))
    await fails(() => openWork(store, OPTIONS), /is damaged \(its checksum differs\); give --restart/)
    for (const name of await store.list()) await store.remove(name)
    await store.removeIfEmpty()
  })
})

test('a source is hashed whole, a large one by 1024 pieces from the first byte to the last', async () => {
  const hash = (...parts: Uint8Array[]) =>
    parts.reduce((sum, part) => sum.update(part), createHash('sha256')).digest('hex')
  const size = 1024 * 16384
  const large = new Uint8Array(size + 1234567)
  for (let i = 0; i < large.length; i += 1000) large[i] = i % 251
  const whole = large.subarray(0, size)
  assert.is(await sampleHash(memorySource('whole', whole)), hash(whole))
  const at = Array.from({ length: 1024 }, (_, i) => Math.floor(((large.length - 16384) * i) / 1023))
  assert.is(at.at(-1)! + 16384, large.length)
  const pieces = at.map((begin) => large.subarray(begin, begin + 16384))
  assert.is(await sampleHash(memorySource('large', large)), hash(...pieces))
})

test('appending cuts a file back, in a folder and in memory', async () => {
  await withStores(async (store) => {
    await (await openWork(store, OPTIONS)).write('a', [])
    await store.append('log', 0, text('one two'))
    await store.append('log', 4, text('three'))
    assert.is(new TextDecoder().decode(await content(store, 'log')), 'one three')
    await store.append('log', 3, text(''))
    assert.is(new TextDecoder().decode(await content(store, 'log')), 'one')
    await fails(() => store.append('log', 4, text('more')), /log: must have 4 bytes, got 3/)
    await fails(() => store.append('none', 4, text('more')), /none: (no such file|must have 4 bytes, got 0)/)
    await store.remove('log')
    await (await openWork(store, OPTIONS)).end()
  })
})

test('a file in the place of the folder is refused and stays', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pinball-work-'))
  try {
    await writeFile(join(folder, 'q.partial'), 'mine')
    await fails(() => openWork(directoryStore(join(folder, 'q.partial')), OPTIONS), /q\.partial: must be a directory/)
    assert.is(await readFile(join(folder, 'q.partial'), 'utf8'), 'mine')
    const nowhere = join(folder, 'none', 'x')
    await fails(() => openWork(directoryStore(nowhere), OPTIONS), /cannot be made: no such directory: .*none$/)
    await mkdir(join(folder, 'd'))
    const store = directoryStore(join(folder, 'd'))
    for (const name of ['', '..', 'a/b', 'a\\b']) await fails(() => store.write(name, []), /is not the name of a file/)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test.run()
