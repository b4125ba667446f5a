// Folders checkpoint-N: whole or not there, the last few are kept, what others have put there stays; on the disk and in memory.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { directoryTree } from '../src/files/disk.ts'
import { memoryTree, type Store, type StoreTree } from '../src/files/store.ts'
import { keepCheckpoints, listCheckpoints, saveCheckpoint } from '../src/train/checkpoint_folders.ts'
import { train } from '../src/train/trainer.ts'
import { encodeState, openState } from '../src/train/training_state.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { LeastSquares, plan, type Tally } from './least_squares.ts'

test.after(closeDevices)

const bytes = (text: string) => new TextEncoder().encode(text)
const files = (step: number) => [
  { file: 'model', chunks: [bytes('step '), bytes(String(step))] },
  { file: 'state', chunks: [bytes(`state ${step}`)] },
]

async function withTrees(work: (tree: StoreTree) => Promise<void>): Promise<void> {
  await work(memoryTree('memory'))
  const folder = await mkdtemp(join(tmpdir(), 'pinball-checkpoints-'))
  try {
    await work(directoryTree(folder))
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function text(store: Store, file: string): Promise<string> {
  const source = (await store.open(file))!
  const found = new TextDecoder().decode(await source.read(0, source.byteLength))
  await source.close()
  return found
}

test('the last checkpoints are kept, in the order of their steps', async () => {
  await withTrees(async (tree) => {
    for (const step of [5, 10, 100, 99]) await saveCheckpoint(tree, step, files(step), { keep: 2 })
    assert.equal(await listCheckpoints(tree), [99, 100])
    assert.equal(await tree.folders(), ['checkpoint-100', 'checkpoint-99'])
    assert.equal(await tree.folder('checkpoint-99').list(), ['model', 'pinball-checkpoint.json', 'state'])
    assert.is(await text(tree.folder('checkpoint-99'), 'model'), 'step 99')
    // The same again: training went on from before it.
    await saveCheckpoint(tree, 99, files(99), { keep: 2 })
    assert.equal(await tree.folders(), ['checkpoint-100', 'checkpoint-99'])
    await fails(
      () => saveCheckpoint(tree, 99, files(7), { keep: 2 }),
      `${tree.name}/checkpoint-99: is not of this training and stays; move it away and run the same command again`,
    )
    assert.equal(await tree.folders(), ['checkpoint-100', 'checkpoint-99'])
    assert.is(await text(tree.folder('checkpoint-99'), 'model'), 'step 99')
    await keepCheckpoints(tree, 0)
    assert.equal(await tree.folders(), [])
  })
})

test('what others have made is not counted and stays', async () => {
  await withTrees(async (tree) => {
    await tree.folder('checkpoint-1').write('model', [bytes('mine')])
    await saveCheckpoint(tree, 2, files(2), { keep: 1 })
    await tree.folder('checkpoint-2').write('notes', [bytes('mine')])
    await tree.folder('checkpoint-2').write('state', [bytes('changed')])
    await saveCheckpoint(tree, 3, files(3), { keep: 1 })
    assert.equal(await listCheckpoints(tree), [3])
    assert.equal(await tree.folders(), ['checkpoint-1', 'checkpoint-2.removed', 'checkpoint-3'])
    assert.equal(await tree.folder('checkpoint-2.removed').list(), ['notes', 'state'])
    assert.is(await text(tree.folder('checkpoint-1'), 'model'), 'mine')
    await fails(() => saveCheckpoint(tree, 1, files(1), { keep: 1 }), /checkpoint-1: is not of this training and stays/)
    const mine = tree.folder('checkpoint-4.partial')
    await mine.write('model', [bytes('mine')])
    const stays = /checkpoint-4\.partial: is not of this training and stays; move it away/
    await fails(() => saveCheckpoint(tree, 4, files(4), { keep: 1 }), stays)
    assert.equal(await mine.list(), ['model'])
    assert.is(await text(mine, 'model'), 'mine')
  })
})

/** A tree whose process ends at its change number `after`. */
function crashing(tree: StoreTree, after: number): StoreTree & { readonly changes: () => number } {
  let changes = 0
  const change = async (work: () => Promise<void>) => {
    if (changes++ >= after) throw new Error('crash')
    await work()
  }
  const wrapped = (store: Store): Store => ({
    ...store,
    write: (file, chunks) => change(() => store.write(file, chunks)),
    remove: (file) => change(() => store.remove(file)),
    removeIfEmpty: () => change(() => store.removeIfEmpty()),
  })
  return {
    ...tree,
    ...wrapped(tree),
    changes: () => changes,
    folder: (name) => wrapped(tree.folder(name)),
    renameFolder: (name, to) => change(() => tree.renameFolder(name, to)),
  }
}

test('a crash at any change leaves whole checkpoints only, and the next ones clear up', async () => {
  const make = async () => {
    const tree = memoryTree('memory')
    for (const step of [1, 2]) await saveCheckpoint(tree, step, files(step), { keep: 2 })
    return tree
  }
  const counted = crashing(await make(), Infinity)
  await saveCheckpoint(counted, 3, files(3), { keep: 2 })
  assert.ok(counted.changes() > 6)
  for (let after = 0; after < counted.changes(); after++) {
    const tree = await make()
    await fails(() => saveCheckpoint(crashing(tree, after), 3, files(3), { keep: 2 }), 'crash')
    const there = await listCheckpoints(tree)
    assert.ok(there.includes(2))
    for (const step of there)
      assert.equal(await tree.folder(`checkpoint-${step}`).list(), ['model', 'pinball-checkpoint.json', 'state'])
    await saveCheckpoint(tree, 3, files(3), { keep: 2 })
    assert.equal(await tree.folders(), ['checkpoint-2', 'checkpoint-3'], `change ${after}`)
  }
})

test('a checkpoint of a training holds its state, from which it goes on to the same bits', async () => {
  const [, device] = await testDevices()
  const options = { batch: 8, micro: 8, epochs: 2 }
  const { steps } = plan(options)
  const settings = { lr: 0.05, schedule: 'linear', warmup: 2, weightDecay: 0, maxGradNorm: 1, steps } as const
  const tree = memoryTree('out')
  const save = async (task: LeastSquares, position: { step: number; updates: number; tally: Tally }) =>
    saveCheckpoint(tree, position.step, [{ file: 'state', chunks: await encodeState(task, position, {}) }], { keep: 3 })
  const run = async (from?: number) => {
    const task = new LeastSquares(device, options)
    const source = from === undefined ? null : await tree.folder(`checkpoint-${from}`).open('state')
    const state = source && (await openState<Tally>(source))
    await state?.load(task)
    const start = state?.position
    await train({ device, task, settings, start, onStep: (at) => (at.step % 3 === 0 ? save(task, at) : undefined) })
    const weight = await task.parameters[0].value.readF32()
    task.destroy()
    return weight
  }
  const whole = await run()
  assert.equal(await listCheckpoints(tree), [3, 6, 9])
  for (const step of [3, 6, 9]) assert.equal(await run(step), whole, `from step ${step}`)
})

test.run()
