// Outputs never overwrite inputs or each other, under whatever name; temporary files of dead processes go, of living ones stay.
import { link, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { checkTarget, findClash, type NamedPath, writeFileAtomic } from '../src/files/disk.ts'
import { fails } from './assert.ts'

async function inFolder(work: (at: (name: string) => string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'pinball-claims-'))
  try {
    await work((name) => join(folder, name))
  } finally {
    await rm(folder, { recursive: true })
  }
}

const named = (option: string, ...paths: string[]): NamedPath[] => paths.map((path) => ({ option, path }))

test('an output that is an input is found under every name', async () => {
  await inFolder(async (at) => {
    await mkdir(at('model'))
    await mkdir(at('sub'))
    for (const name of ['rows', 'model/config.json']) await writeFile(at(name), 'x')
    await symlink(at('rows'), at('soft'))
    await symlink(at('sub'), at('link'))
    await link(at('rows'), at('hard'))
    const inputs = named('--data', at('rows'))
    for (const name of ['rows', 'sub/../rows', 'link/../rows', 'soft', 'hard'])
      assert.match(
        (await findClash(inputs, named('--out', at(name)))) ?? '',
        /--out: must not be what --data reads/,
        name,
      )
    assert.is(await findClash(inputs, named('--out', at('other'))), null)
    assert.is(await findClash(named('--data', at('missing')), named('--out', at('other'))), null)
    assert.match((await findClash(named('--data', at('new')), named('--out', at('new')))) ?? '', /--data reads/)
    const model = named('--model', at('model'))
    assert.match((await findClash(model, named('--out', at('model/config.json')))) ?? '', /--model reads/)
    assert.is(await findClash(model, named('--out', at('model/new.json'))), null, 'a new file beside them is none')
  })
})

test('outputs differ from each other, and nothing is read from a folder that is filled', async () => {
  await inFolder(async (at) => {
    await mkdir(at('out'))
    await writeFile(at('out/heads'), 'x')
    await symlink(at('out'), at('link'))
    const twice = [...named('--out', at('a')), ...named('--outputs', at('a'))]
    assert.match((await findClash([], twice)) ?? '', /--outputs: must not be what --out writes/)
    const viaLink = [...named('--out', at('out/a')), ...named('--outputs', at('link/a'))]
    assert.match((await findClash([], viaLink)) ?? '', /--outputs: must not be what --out writes/)
    const folder = named('--out', at('link'))
    assert.match(
      (await findClash(named('--heads', at('out/heads')), [], folder)) ?? '',
      /--out: must not be what --heads/,
    )
    assert.match((await findClash(named('--heads', at('out')), [], folder)) ?? '', /--out: must not be what --heads/)
    assert.is(await findClash(named('--heads', at('out/heads')), [], named('--out', at('new'))), null)
  })
})

test('a link to a file that is missing is no place to write to, and stays', async () => {
  await inFolder(async (at) => {
    await symlink(at('missing'), at('link'))
    for (const write of [checkTarget, (path: string) => writeFileAtomic(path, [])])
      await fails(() => write(at('link')), /link: cannot be written: is a link to a file that is missing/)
    assert.equal(await readdir(at('.')), ['link'])
  })
})

test('temporary files of processes that have ended go with the next write, others stay', async () => {
  await inFolder(async (at) => {
    let name = ''
    await writeFileAtomic(
      at('out'),
      (async function* () {
        name = (await readdir(at('.')))[0]!
        yield Uint8Array.of(1)
      })(),
    )
    assert.match(name, /^\.out\.[0-9a-f]{6}-\d+-[0-9a-f]{8}\.tmp$/)
    // The largest process number there can be is not in use.
    const dead = name.replace(/-\d+-/, '-4194999-')
    const elsewhere = name.replace(/\.[0-9a-f]{6}-\d+/, '.000000-4194999')
    for (const left of [dead, name, elsewhere, '.out.mine.tmp']) await writeFile(at(left), 'left')
    await writeFileAtomic(at('out'), [Uint8Array.of(2)])
    const others = [basename(name), elsewhere, '.out.mine.tmp', 'out']
    assert.equal((await readdir(at('.'))).sort(), others.sort())
    assert.equal([...(await readFile(at('out')))], [2])
  })
})

test.run()
