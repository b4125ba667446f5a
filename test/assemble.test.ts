// Joining heads and a backbone in memory: what is written, after a crash too, and what is refused.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { digest } from '../src/files/hash.ts'
import { encodeSafetensors, openSafetensors, readTensor } from '../src/files/safetensors.ts'
import { memoryFiles, memorySource } from '../src/files/source.ts'
import { memoryStore, type Store } from '../src/files/store.ts'
import { assemble } from '../src/reward/assemble.ts'
import { readCheckpoint } from '../src/reward/checkpoint.ts'
import { fails } from './assert.ts'
import { type Files, joined, json, qrmFiles, qrmTensors } from './qrm.ts'

const BACKBONE: Files = {
  ...qrmFiles(1),
  'tokenizer.json': json({ a: 1 }),
  'NOTICE.txt': json('x'),
  '.hidden': json(0),
}
const HEADS = qrmFiles(2, { objectives: 4, manifest: { lambda: 2 } })
const [backbone, heads] = [memoryFiles('bb', BACKBONE), memoryFiles('rew', HEADS)]
const FILES = ['config.json', 'model.safetensors', 'pinball.json', 'tokenizer.json']

/** Hashes of the tensors of a file, by name. */
async function tensorsOf(bytes: Uint8Array): Promise<Map<string, string>> {
  const { tensors } = await openSafetensors(memorySource('model', bytes))
  const found = new Map<string, string>()
  for (const [name, info] of tensors) found.set(name, await digest(await readTensor(info)))
  return found
}

/** A backbone's directory with other tensors. */
function withTensors(change: (tensors: ReturnType<typeof qrmTensors>) => Iterable<[string, string]>) {
  const tensors = qrmTensors(1)
  const renamed = [...change(tensors)].map(([name, to]) => ({ ...tensors.get(name)!, name: to }))
  return memoryFiles('bb', { ...BACKBONE, 'model.safetensors': joined(encodeSafetensors(renamed)) })
}

const same = (names: Iterable<string>): [string, string][] => [...names].map((name) => [name, name])

test('the backbone of one, the heads of the other', async () => {
  const files = new Map<string, Uint8Array>()
  const { layout, files: written, leftOut } = await assemble(backbone, heads, memoryStore('out', files))
  assert.equal([layout, [...written].sort(), [...files.keys()].sort()], ['qrm', FILES, FILES])
  assert.equal(leftOut, ['NOTICE.txt'], 'heads that others take the place of are no loss')
  const [found, from, its] = await Promise.all(
    [files.get('model.safetensors')!, BACKBONE['model.safetensors'], HEADS['model.safetensors']].map(tensorsOf),
  )
  for (const [name, hash] of from) if (name.startsWith('model.')) assert.is(found.get(name), hash, name)
  for (const [name, hash] of its) if (!/^(model|lm_head)\.|tracked$/.test(name)) assert.is(found.get(name), hash, name)
  assert.is(found.size, its.size - 1, 'all but lm_head')
  const { manifest } = await readCheckpoint(memoryStore('out', files))
  assert.equal([manifest.lambda, manifest.attributes.length], [2, 4])
})

test('a bare backbone, whose names have no "model." in front, is the same backbone', async () => {
  const [plain, bare] = [new Map<string, Uint8Array>(), new Map<string, Uint8Array>()]
  await assemble(backbone, heads, memoryStore('out', plain))
  const auto = withTensors((tensors) =>
    same(tensors.keys()).flatMap(([name]) =>
      name.startsWith('model.') ? [[name, name.slice('model.'.length)] as [string, string]] : [],
    ),
  )
  const { leftOut } = await assemble(auto, heads, memoryStore('out', bare))
  assert.equal(leftOut, ['NOTICE.txt'])
  assert.equal(bare, plain)
})

test('a crash leaves no model, and the same call mends it', async () => {
  const whole = new Map<string, Uint8Array>()
  await assemble(backbone, heads, memoryStore('out', whole))
  for (let writes = 0; ; writes++) {
    const files = new Map<string, Uint8Array>()
    const store = memoryStore('out', files)
    let left = writes
    const failing: Store = {
      ...store,
      async write(file, chunks) {
        if (left-- === 0) throw new Error('killed')
        await store.write(file, chunks)
      },
      async remove(file) {
        if (left-- === 0) throw new Error('killed')
        await store.remove(file)
      },
    }
    const died = await assemble(backbone, heads, failing).then(
      () => false,
      () => true,
    )
    if (died && files.has('config.json')) assert.is(files.size, FILES.length + 1, 'config.json comes last')
    await assemble(backbone, heads, store)
    assert.equal([...files].sort(), [...whole].sort(), `killed at step ${writes}`)
    if (!died) {
      assert.ok(writes >= 5, `${writes} steps`)
      break
    }
  }
})

test('cut off work of other heads is no part of the model', async () => {
  const files = new Map<string, Uint8Array>()
  const store = memoryStore('out', files)
  const stopping: Store = {
    ...store,
    async write(file, chunks) {
      if (file === 'config.json') throw new Error('killed')
      await store.write(file === 'model.safetensors' ? 'model-00001-of-00002.safetensors' : file, chunks)
    },
  }
  await fails(() => assemble(backbone, heads, stopping), 'killed')
  assert.ok(files.has('model-00001-of-00002.safetensors'))
  await assemble(backbone, memoryFiles('rew', qrmFiles(3)), store)
  assert.equal([...files.keys()].sort(), FILES)
})

test('a finished model is left as it is; anything else in its place is refused and stays', async () => {
  const files = new Map<string, Uint8Array>()
  const store = memoryStore('out', files)
  const first = await assemble(backbone, heads, store)
  const untouched: Store = {
    ...store,
    write: () => Promise.reject(new Error('written')),
    remove: () => Promise.reject(new Error('removed')),
  }
  assert.equal(await assemble(backbone, heads, untouched), first)
  const refused = async (change: () => unknown, b = backbone, h = heads) => {
    change()
    const before = [...files]
    await fails(() => assemble(b, h, untouched), 'out: must be missing or empty; choose another --out')
    assert.equal([...files], before)
  }
  await refused(() => {}, backbone, memoryFiles('rew', qrmFiles(3)))
  await refused(() => files.set('thesis.txt', Uint8Array.of(1)))
  await refused(() => files.delete('tokenizer.json'))
  files.delete('thesis.txt')
  await refused(() => files.set('tokenizer.json', Uint8Array.of(1)))
  await refused(() => files.set('tokenizer.json', joined([BACKBONE['tokenizer.json'], Uint8Array.of(1)])))
})

test('a width that differs and a missing tensor are refused; what is not understood is named', async () => {
  const wide = memoryFiles('rew', qrmFiles(2, { hidden: 32, heads: 4, headDim: 8 }))
  await fails(() => assemble(backbone, wide, memoryStore('out')), /^rew: heads must be for states of 24 columns, as bb/)
  const lacking = withTensors((tensors) => same(tensors.keys()).filter(([name]) => name !== 'model.norm.weight'))
  await fails(() => assemble(lacking, heads, memoryStore('out')), /model\.norm\.weight/)
  const more = withTensors((tensors) => [...same(tensors.keys()), ['model.norm.weight', 'vision.weight']])
  assert.equal((await assemble(more, heads, memoryStore('out'))).leftOut, ['vision.weight', 'NOTICE.txt'])
})

test.run()
