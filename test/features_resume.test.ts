// pinball features killed at any moment, run again, and divided into shards.
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { close } from './assert.ts'
import { finish, lines, openWorkplace, type Workplace } from './command.ts'
import { chunks, fit, MODEL, make, manifest, read } from './feature_runs.ts'
import { random } from './random.ts'

let place: Workplace

test.before(async () => {
  place = await openWorkplace()
})

test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

/** Rows of random tokens, with a label and, every second one, an id. */
function someRows(count: number, length: number, seed = 1) {
  const draw = random(seed)
  return Array.from({ length: count }, (_, n) => ({
    input_ids: [...draw.integers(length - (n % 9), 0, 96)],
    gate_position: n % 5,
    good: draw.next(),
    ...(n % 2 === 0 && { id: `row ${n}` }),
  }))
}

test('killed at any moment, the same command ends with the same bits', async () => {
  await place.file('long.jsonl', lines(...someRows(600, 500)))
  const args = ['--input', 'long.jsonl', '--labels', 'good', '--gate', '--out']
  await make(place, ...args, 'whole.safetensors')
  const draw = random(4)
  let [kills, resumed] = [0, 0]
  for (let round = 0; ; round++) {
    const child = place.launch([...MODEL, '--json', ...args, 'cut.safetensors'])
    const ended = finish(child)
    // It dies some time after it has finished a chunk more than before, or, now and then, wherever it is.
    const before = await chunks(place, 'cut.safetensors')
    const wait = async () => {
      const deadline = Date.now() + (draw.next() < 0.3 ? 300 : 20_000)
      while (child.exitCode === null && Date.now() < deadline && (await chunks(place, 'cut.safetensors')) <= before)
        await pause(3)
      await pause(draw.next() * 60)
      child.kill('SIGKILL')
    }
    await wait()
    const { code, err } = await ended
    if (err.includes('rows were there already')) resumed++
    if (code === 0) break
    kills++
    assert.ok(round < 60, 'it never ends')
  }
  assert.ok(kills >= 3 && resumed >= 2, `${kills} kills, resumed ${resumed} times`)
  for (const ending of ['safetensors', 'json']) {
    const [cut, whole] = await Promise.all(['cut', 'whole'].map((name) => readFile(at(`${name}.${ending}`))))
    if (ending === 'safetensors') assert.ok(cut.equals(whole), 'the bits differ')
    else assert.is(cut.toString().replace('cut.', 'whole.'), whole.toString())
  }
  const left = (await readdir(place.folder)).filter((name) => name.includes('cut.') || name.startsWith('.'))
  assert.equal(left.sort(), ['cut.json', 'cut.safetensors'])
})

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test('what an earlier run with other settings began is not mixed in', async () => {
  await place.file('long.jsonl', lines(...someRows(300, 500)))
  const args = [...MODEL, '--input', 'long.jsonl', '--out', 'mixed.safetensors']
  const child = place.launch(args)
  const ended = finish(child)
  while (child.exitCode === null && (await chunks(place, 'mixed.safetensors')) < 1) await pause(3)
  child.kill('SIGKILL')
  await ended
  const where = 'mixed.safetensors.partial/pinball-work.json: was begun with'
  const how = 'use the same, or give --restart or another --out'
  await place.refused([...args, '--dtype', 'bf16'], `${where} --dtype "f32", now it is "bf16"; ${how}`)
  await place.file('long.jsonl', lines(...someRows(300, 500, 2)))
  await place.refused(
    args,
    /was begun with rows with the SHA-256 "[0-9a-f]{64}", now it is "[0-9a-f]{64}"; use the same/,
  )
  const { err } = await make(place, ...args.slice(MODEL.length), '--restart')
  assert.not.match(err, /were there already/)
  await make(place, '--input', 'long.jsonl', '--out', 'anew.safetensors')
  assert.ok((await readFile(at('mixed.safetensors'))).equals(await readFile(at('anew.safetensors'))))
})

test('a damaged part is named, set aside and made again, with the same bits', async () => {
  await place.file('long.jsonl', lines(...someRows(300, 500)))
  const args = ['--input', 'long.jsonl', '--gate', '--out']
  await make(place, ...args, 'sound.safetensors')
  const child = place.launch([...MODEL, '--json', ...args, 'hurt.safetensors'])
  const ended = finish(child)
  while (child.exitCode === null && (await chunks(place, 'hurt.safetensors')) < 2) await pause(3)
  child.kill('SIGKILL')
  await ended
  const part = at('hurt.safetensors.partial/chunk-000001.part')
  const bytes = await readFile(part)
  bytes[bytes.length >> 1] ^= 4
  await writeFile(part, bytes)
  const { err } = await make(place, ...args, 'hurt.safetensors')
  const name = 'chunk-000001.part'
  const line = `pinball: hurt.safetensors.partial/${name} is damaged; it is set aside as ${name}.damaged and made again\n`
  assert.ok(err.startsWith(line), err)
  assert.match(err, /features of \d+ of 300 rows were there already/)
  assert.ok((await readFile(at('hurt.safetensors'))).equals(await readFile(at('sound.safetensors'))), 'the bits differ')
})

test('what is not ours is neither used nor removed', async () => {
  await place.file('few.jsonl', lines(...someRows(20, 30)))
  const args = [...MODEL, '--input', 'few.jsonl', '--out', 'own.safetensors', '--restart']
  await mkdir(at('own.safetensors.partial'))
  await writeFile(at('own.safetensors.partial/thesis.txt'), 'mine')
  await place.refused(
    args,
    'own.safetensors.partial: must be missing, empty or hold work of "features", it has "thesis.txt"; move it away or choose another --out',
  )
  assert.is(await readFile(at('own.safetensors.partial/thesis.txt'), 'utf8'), 'mine')
  await rm(at('own.safetensors.partial'), { recursive: true })
  await writeFile(at('own.safetensors.partial'), 'mine')
  await place.refused(
    args,
    'own.safetensors.partial: must be a directory, it is a file; move it away or choose another --out',
  )
  await rm(at('own.safetensors.partial'))
  await writeFile(at('own.json'), '{"mine":1}')
  await place.refused(
    args,
    'own.json: is where the manifest goes, and is something else; move it or choose another --out',
  )
  assert.is(await readFile(at('own.json'), 'utf8'), '{"mine":1}')
  assert.not.ok((await readdir(place.folder)).includes('own.safetensors'))
})

test('a file that is there and whole is not made again, one that is not is', async () => {
  await place.file('few.jsonl', lines(...someRows(20, 30)))
  const args = ['--input', 'few.jsonl', '--out', 'few.safetensors', '--labels', 'good']
  const first = await make(place, ...args)
  assert.equal(
    [first.file, first.manifest, first.rows, first.labels, first.columns, first.skipped, first.shard, first.shards],
    ['few.safetensors', 'few.json', 20, 20, 32, 0, 0, 1],
  )
  assert.ok(first.rows_per_second! > 0 && first.tokens_per_second! > first.rows_per_second!)
  const file = await readFile(at('few.safetensors'))
  const about = await manifest(place, 'few.json')
  assert.is(about.bytes, file.length)
  assert.equal(
    about.rows,
    Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? `row ${n}` : n + 1)),
  )
  assert.is(about.fingerprint, (await read(place, 'few.safetensors')).metadata.fingerprint)
  const again = await make(place, ...args)
  assert.equal([again.skipped, again.rows, again.tokens, again.rows_per_second], [true, 20, first.tokens, null])
  assert.is(again.err, 'pinball: note: few.safetensors is there, made of the same; --restart makes it anew\n')
  const made = async (damage: () => Promise<unknown>) => {
    await damage()
    assert.is((await make(place, ...args)).skipped, 0, String(damage))
    assert.ok((await readFile(at('few.safetensors'))).equals(file))
    assert.equal(await manifest(place, 'few.json'), about)
  }
  await made(() => rm(at('few.safetensors')))
  await made(() => rm(at('few.json')))
  await made(() => writeFile(at('few.safetensors'), file.subarray(0, -4)))
  await made(() => writeFile(at('few.safetensors'), Buffer.concat([file.subarray(0, -4), Buffer.alloc(4)])))
  await made(async () => writeFile(at('few.json'), (await readFile(at('few.json'))).subarray(0, 200)))
  assert.is((await make(place, ...args, '--restart')).skipped, 0)
  assert.is((await make(place, ...args, '--dtype', 'bf16')).skipped, 0)
  const half = (await read(place, 'few.safetensors')).shapes
  assert.equal(half, { embeddings: ['BF16', 20, 32], labels: ['F32', 20, 1] })
})

test('shards hold each row once, wherever it stands, and are fitted as the whole', async () => {
  const rows = someRows(60, 40)
  await place.file('rows.jsonl', lines(...rows))
  await writeFile(at('turned.jsonl.gz'), gzipSync(lines(...rows.toReversed())))
  const args = ['--labels', 'good', '--input']
  await make(place, ...args, 'rows.jsonl', '--out', 'all.safetensors')
  const all = (await read(place, 'all.safetensors')).floats.embeddings
  await mkdir(at('parts'))
  const ids: unknown[] = []
  for (let i = 0; i < 3; i++) {
    const out = ['--out', 'parts/f.safetensors', '--shard', `${i}/3`]
    const report = await make(place, ...args, 'rows.jsonl', ...out)
    assert.equal([report.file, report.shard, report.shards], [`parts/f-0000${i}-of-00003.safetensors`, i, 3])
    const own = (await manifest(place, report.manifest)).rows as (string | number)[]
    assert.is(own.length, report.rows)
    ids.push(...own)
    const found = (await read(place, report.file)).floats.embeddings
    const number = (id: string | number) => (typeof id === 'number' ? id - 1 : Number(id.slice(4)))
    const expected = own.flatMap((id) => [...all.subarray(number(id) * 32, (number(id) + 1) * 32)])
    close(found, expected, 0, `shard ${i}`)
    const turned = await make(place, ...args, 'turned.jsonl.gz', '--out', 'turned.safetensors', '--shard', `${i}/3`)
    const others = ((await manifest(place, turned.manifest)).rows as (string | number)[]).map((id) =>
      typeof id === 'number' ? 61 - id : id,
    )
    assert.equal(others.toReversed(), own)
  }
  const expected = rows.map(({ id }, n) => id ?? n + 1)
  assert.equal(ids.map(String).sort(), expected.map(String).sort())
  const [parts, whole] = [await fit(place, 'parts'), await fit(place, 'all.safetensors')]
  // Both are within the tolerance of the fit, 1e-4, of the same optimum.
  for (const [k, objective] of parts.entries()) close([objective], [whole[k]], 2e-4 * whole[k], `level ${k}`)
})

test('a shard without rows is a file like the others', async () => {
  await place.file('one.jsonl', lines({ input_ids: [1], gate_position: 0, good: 1, id: 'a' }))
  const args = ['--input', 'one.jsonl', '--labels', 'good', '--out', 'one.safetensors', '--shard']
  const reports = [await make(place, ...args, '0/2'), await make(place, ...args, '1/2')]
  assert.equal(reports.map(({ rows }) => rows).sort(), [0, 1])
  const empty = reports.find(({ rows }) => rows === 0)!
  assert.equal((await read(place, empty.file)).shapes, { embeddings: ['F32', 0, 32], labels: ['F32', 0, 1] })
  assert.is((await make(place, ...args, `${empty.shard}/2`)).skipped, true)
})

test.run()
