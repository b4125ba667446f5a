// Commands never overwrite what they read, nor remove what they did not make: data rows, features, debias, calibrate, assemble.
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { finish, lines, openWorkplace, root, tensor, WASM, type Workplace } from './command.ts'
import { qrmFiles } from './qrm.ts'
import { random } from './random.ts'

let place: Workplace
const at = (name: string) => join(place.folder, name)
const D = 24

test.before.each(async () => {
  place = await openWorkplace()
  for (const [folder, seed] of [
    ['bb', 1],
    ['rew', 2],
  ] as const) {
    await mkdir(at(folder))
    for (const [name, bytes] of Object.entries(qrmFiles(seed))) await writeFile(at(`${folder}/${name}`), bytes)
  }
})

test.after.each(() => place.remove())

/** Every file of the workplace with its bytes. */
async function everything(): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  for (const entry of await readdir(place.folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    files.set(path.slice(place.folder.length), entry.isDirectory() ? 'folder' : await readFile(path, 'hex'))
  }
  return files
}

/** The command is refused, and every file stays as it was. */
async function refused(args: string[], message: RegExp, code: number): Promise<void> {
  const before = await everything()
  await place.refused(args, message, code)
  assert.equal(await everything(), before)
}

const ASSEMBLE = ['assemble', '--backbone', 'bb', '--heads', 'rew', '--out']

test('assemble leaves a folder called OUT.partial alone', async () => {
  await cp(at('bb'), at('m.partial'), { recursive: true })
  await writeFile(at('m.partial/precious'), 'mine')
  const before = await everything()
  const { code, err } = await place.pinball(['assemble', '--backbone', 'm.partial', '--heads', 'rew', '--out', 'm'])
  assert.is(code, 0, err)
  assert.match(err, /^pinball: note: what is no part of the model stays in m\.partial alone: "precious"\n$/)
  await rm(at('m'), { recursive: true })
  assert.equal(await everything(), before)
})

test('assemble refuses folders that are not its own, its inputs among them', async () => {
  await mkdir(at('m'))
  await writeFile(at('m/precious'), 'mine')
  await refused([...ASSEMBLE, 'm'], /m: must be missing or empty; choose another --out/, 1)
  await writeFile(at('file'), 'mine')
  await refused([...ASSEMBLE, 'file'], /file: must be a directory, it is a file/, 1)
  for (const out of ['bb', './rew/.']) await refused([...ASSEMBLE, out], /--out: must not be what --/, 2)
  await refused([...ASSEMBLE, '.'], /--out: must not be what --backbone reads/, 2)
})

test('assemble ends well after a kill at any moment, and when it has ended already', async () => {
  await place.pinball([...ASSEMBLE, 'whole'])
  const draw = random(3)
  let kills = 0
  for (let round = 0; round < 6; round++) {
    const child = place.launch([...ASSEMBLE, 'cut'])
    const ended = finish(child)
    const deadline = Date.now() + 10_000
    const begun = () =>
      readdir(at('cut')).then(
        (names) => names.length > round % 6,
        () => false,
      )
    while (child.exitCode === null && Date.now() < deadline && !(await begun())) await pause(1)
    await pause(draw.next() * 4)
    child.kill('SIGKILL')
    if ((await ended).code === null) kills++
    const { code, err } = await place.pinball([...ASSEMBLE, 'cut'])
    assert.equal([code, err], [0, ''], `round ${round}`)
    for (const name of await readdir(at('whole')))
      assert.ok((await readFile(at(`cut/${name}`))).equals(await readFile(at(`whole/${name}`))), name)
    assert.equal((await readdir(at('cut'))).sort(), (await readdir(at('whole'))).sort())
    if (round % 3 > 0) await rm(at('cut'), { recursive: true })
  }
  assert.ok(kills >= 2, `${kills} kills`)
})

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test('data rows does not write over its data; what a kill left goes with the next write', async () => {
  await cp(join(root, 'test/fixtures/datasets/helpsteer.jsonl'), at('d.jsonl'))
  const rows = ['data', 'rows', '--dataset', 'helpsteer', '--data', 'd.jsonl', '--out']
  await refused([...rows, 'd.jsonl'], /--out: must not be what --data reads, got d\.jsonl; choose another name/, 2)
  await refused([...rows, './bb/../d.jsonl'], /--out: must not be what --data reads/, 2)
  const child = place.launch([...rows, 'out.jsonl'])
  const ended = finish(child)
  const temporary = async () => (await readdir(place.folder)).filter((name) => name.endsWith('.tmp'))
  while (child.exitCode === null && (await temporary()).length === 0) await pause(1)
  child.kill('SIGKILL')
  await ended
  assert.is((await place.pinball([...rows, 'out.jsonl'])).code, 0)
  assert.equal(await temporary(), [])
})

test('features, debias and calibrate do not write over what they read', async () => {
  const x = random(1).normal(2 * D)
  await place.file('f.jsonl', lines({ input_ids: [1, 2] }))
  await refused(['features', '--input', 'f.jsonl', '--out', 'f.jsonl'], /--out: must not be what --input reads/, 2)
  await cp(at('f.jsonl'), at('f.json'))
  await refused(['features', '--input', 'f.json', '--out', 'f.safetensors'], /--out: must not be what --input reads/, 2)
  await refused(
    ['features', '--model', 'bb', '--input', 'f.jsonl', '--out', 'bb/model.safetensors'],
    /--out: must not be what --model reads/,
    2,
  )
  const heads = { attributes: '["a"]', levels: '[0.5]' }
  await place.save('h.safetensors', [tensor('regression_layer.weight', [1, D], x.slice(0, D))], heads)
  await place.save('f.safetensors', [tensor('embeddings', [2, D], x)])
  const debias = ['debias', '--features', 'f.safetensors', '--heads', 'h.safetensors', '--attribute', 'a', '--out']
  await refused([...debias, 'h.safetensors'], /--out: must not be what --heads reads/, 2)
  await refused([...debias, 'f.safetensors'], /--out: must not be what --features reads/, 2)
  await cp(at('f.safetensors'), at('rew/calibration.safetensors'))
  const calibrate = ['calibrate', '--heads', 'rew', ...WASM, '--features']
  const other = /rew\/calibration\.safetensors: is where the calibration goes, and is something else; move it away/
  await refused([...calibrate, 'rew/calibration.safetensors'], other, 1)
  await refused([...calibrate, 'f.safetensors'], other, 1)
})

test.run()
