// The folder of a training, on the disk and in memory: cut at every change of it, damaged, finished, begun anew, foreign files.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { memoryStore } from '../src/files/store.ts'
import { openTrainingFolder } from '../src/train/training_folder.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { bytes, contents, crashing, run, steps, withStores } from './kept_training.ts'

test.after(closeDevices)

const FILES = ['config.json', 'log.jsonl', 'model.safetensors', 'training.json']

test('a training that crashes at any change of its folder goes on and ends with the same files', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    const whole = make()
    const counted = crashing(whole, Infinity)
    assert.equal(await run(device, counted), { result: { steps, rows: 74 }, made: steps })
    const expected = await contents(whole)
    assert.equal(Object.keys(expected), FILES)
    assert.is(Buffer.from(expected['log.jsonl'], 'base64').toString().trim().split('\n').length, steps)
    for (let after = 0; after < counted.changes(); after++) {
      const store = make()
      await fails(() => run(device, crashing(store, after)), 'crash')
      // And once more, early in the second try.
      await run(device, crashing(store, 2)).catch((error: Error) => assert.is(error.message, 'crash'))
      const notes: string[] = []
      await run(device, store, { onNote: (line) => notes.push(line) })
      assert.equal(await contents(store), expected, `crash at change ${after}`)
      assert.equal(notes, [], 'a crash damages nothing')
    }
  })
})

test('the last two states are kept, and training goes on from the last one', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    const store = make()
    await fails(() => run(device, store, { stop: 8 }), 'stop')
    assert.equal(await store.list(), ['log.jsonl', 'pinball-work.json', 'state-000006.part', 'state-000008.part'])
    assert.is((await run(device, store)).made, steps - 8)
  })
})

/** What a training has left that was interrupted after step 8, and what it would have come to. */
async function interrupted(device: Device) {
  const [whole, stopped] = [memoryStore('whole'), new Map<string, Uint8Array>()]
  await run(device, whole)
  await fails(() => run(device, memoryStore('out', stopped), { stop: 8 }), 'stop')
  return { expected: await contents(whole), stopped }
}

test('a damaged state or log is named and set aside, and training goes on from the last good state', async () => {
  const [, device] = await testDevices()
  const { expected, stopped } = await interrupted(device)
  const flipped = (file: string, at: number) => {
    const damaged = stopped.get(file)!.slice()
    damaged[at < 0 ? damaged.length + at : at] ^= 4
    return damaged
  }
  const again = 'is damaged; it is set aside as'
  const lines = stopped.get('log.jsonl')!
  const lastLine = lines.lastIndexOf(10, lines.length - 2) + 1
  for (const [what, change, notes, made] of [
    ...[0, 100, 700, -1, -20, -60].map((at) => [
      `byte ${at} of the last state`,
      { 'state-000008.part': flipped('state-000008.part', at) },
      [`out/state-000008.part ${again} state-000008.part.damaged and made again`, 'toy: goes on from step 6'],
      steps - 6,
    ]),
    [
      'half of the last state',
      { 'state-000008.part': stopped.get('state-000008.part')!.slice(0, 300) },
      [`out/state-000008.part ${again} state-000008.part.damaged and made again`, 'toy: goes on from step 6'],
      steps - 6,
    ],
    ['the state before', { 'state-000006.part': flipped('state-000006.part', 50) }, [/state-000006/, /from step 8/], 2],
    [
      'the end of the log',
      { 'log.jsonl': flipped('log.jsonl', lastLine) },
      [
        'out/log.jsonl is not what was logged before state-000008, which is set aside as state-000008.part.damaged',
        'toy: goes on from step 6',
      ],
      steps - 6,
    ],
    ['a log that is too short', { 'log.jsonl': lines.slice(0, lastLine) }, [/log\.jsonl/, /from step 6/], steps - 6],
    [
      'the beginning of the log',
      { 'log.jsonl': flipped('log.jsonl', 3) },
      [/state-000008/, /state-000006/, 'toy: begins anew; out/log.jsonl is set aside as log.jsonl.damaged'],
      steps,
    ],
    [
      'both states',
      {
        'state-000006.part': flipped('state-000006.part', 50),
        'state-000008.part': flipped('state-000008.part', 50),
      },
      [/state-000006/, /state-000008/, 'toy: begins anew; out/log.jsonl is set aside as log.jsonl.damaged'],
      steps,
    ],
  ] as [string, Record<string, Uint8Array>, (string | RegExp)[], number][]) {
    const files = new Map(stopped)
    for (const [file, changed] of Object.entries(change)) files.set(file, changed)
    const found: string[] = []
    const ended = await run(device, memoryStore('out', files), { onNote: (line) => found.push(line) })
    assert.is(found.length, notes.length, `${what}: ${found.join('; ')}`)
    for (const [i, note] of notes.entries())
      if (typeof note === 'string') assert.is(found[i], note, what)
      else assert.match(found[i], note, what)
    assert.is(ended.made, made, what)
    const { 'log.jsonl.damaged': aside, ...rest } = await contents(memoryStore('out', files))
    assert.equal(rest, expected, what)
    if (files.has('log.jsonl.damaged'))
      assert.equal(
        [...files.get('log.jsonl.damaged')!],
        [...(change['log.jsonl'] ?? lines)],
        `${what}: nothing is lost`,
      )
    else assert.is(aside, undefined)
  }
})

test('a finished training is not made again; other settings are refused, and begun anew on request', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    const [store, other] = [make(), make()]
    await run(device, store)
    await run(device, other, { lr: 0.1 })
    const [finished, expected] = [await contents(store), await contents(other)]
    assert.equal(await run(device, store), { result: { steps, rows: 74 }, made: 0 })
    const differs = /training\.json: holds a training with --lr 0\.05, now it is 0\.1; use the same, or give --restart/
    await fails(() => run(device, store, { lr: 0.1 }), differs)
    await fails(() => run(device, store, { command: 'gate' }), /holds a training with command "toy", now it is "gate"/)
    assert.equal(await contents(store), finished)
    // What was made beside it stays.
    await store.write('calibration.safetensors', [bytes('offsets')])
    await run(device, store, { lr: 0.1, restart: true })
    assert.equal(await contents(store), {
      ...expected,
      'calibration.safetensors': Buffer.from('offsets').toString('base64'),
    })
  })
})

test('beginning anew may crash at any change: there is either the old training or the new one', async () => {
  const [, device] = await testDevices()
  const [old, other] = [new Map<string, Uint8Array>(), memoryStore('other')]
  await run(device, memoryStore('out', old))
  await run(device, other, { lr: 0.1 })
  const expected = await contents(other)
  const counted = crashing(memoryStore('out', new Map(old)), Infinity)
  await run(device, counted, { lr: 0.1, restart: true })
  const before = await contents(memoryStore('out', old))
  let kept = 0
  for (let after = 0; after < counted.changes(); after++) {
    const files = new Map(old)
    const store = memoryStore('out', files)
    await fails(() => run(device, crashing(store, after), { lr: 0.1, restart: true }), 'crash')
    const hasStates = (await store.list()).some((name) => name.startsWith('state-'))
    if (!hasStates && files.has('training.json') && Buffer.from(files.get('training.json')!).includes('"--lr": 0.05')) {
      // The old one is whole, and the call without --restart finds it.
      const copy = memoryStore('out', new Map(files))
      assert.is((await run(device, copy)).made, 0, `change ${after}`)
      assert.equal(await contents(copy), before, `change ${after}`)
      kept++
    }
    const notes: string[] = []
    const marked = files.has('pinball-work.json')
    await run(device, store, {
      lr: 0.1,
      restart: !marked && files.has('training.json'),
      onNote: (line) => notes.push(line),
    })
    assert.equal(await contents(store), expected, `change ${after}`)
    assert.equal(notes, [], `change ${after}`)
  }
  assert.ok(kept > 0)
  // A training that is under way is dropped.
  const { stopped } = await interrupted(device)
  const store = memoryStore('out', stopped)
  await fails(() => run(device, store, { lr: 0.1 }), /pinball-work\.json: was begun with --lr 0\.05, now it is 0\.1; /)
  const notes: string[] = []
  assert.is((await run(device, store, { lr: 0.1, restart: true, onNote: (line) => notes.push(line) })).made, steps)
  assert.equal([await contents(store), notes], [expected, []])
})

test('a training that has not finished a step gives way to one with other settings, and one that has does not', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    const [store, other] = [make(), make()]
    await run(device, other, { lr: 0.1 })
    await fails(() => run(device, store, { stop: 0 }), 'stop')
    assert.equal(await store.list(), ['log.jsonl', 'pinball-work.json', 'state-000000.part'])
    await fails(() => run(device, store, { command: 'gate' }), /holds work of "toy", not of "gate"/)
    const onNote = (line: string) => assert.unreachable(line)
    assert.is((await run(device, store, { lr: 0.1, onNote })).made, steps)
    assert.equal(await contents(store), await contents(other))
    // Killed after the first step, before it was saved: the log tells.
    const cut = make()
    await fails(() => run(device, cut, { stop: 0 }), 'stop')
    await cut.append('log.jsonl', 0, bytes('{"step":1}\n'))
    await fails(() => run(device, cut, { lr: 0.1 }), /was begun with --lr 0\.05, now it is 0\.1/)
  })
})

test('an evaluation that is interrupted has its step saved, and is made anew', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    const whole = make()
    await run(device, whole, { evaluateEvery: 2 })
    const expected = await contents(whole)
    for (const step of [4, steps]) {
      const store = make()
      await fails(() => run(device, store, { evaluateEvery: 2, stopEvaluating: step }), 'stop')
      assert.ok((await store.list()).includes(`state-${String(step).padStart(6, '0')}.part`))
      const log = Buffer.from((await contents(store))['log.jsonl'], 'base64')
        .toString()
        .trim()
        .split('\n')
      assert.match(log.at(-1)!, new RegExp(`"step":${step},"loss"`))
      // And once more, before anything else is done.
      await fails(() => run(device, store, { evaluateEvery: 2, stopEvaluating: step }), 'stop')
      const told: { readonly step: number }[] = []
      const { made } = await run(device, store, {
        evaluateEvery: 2,
        onEntry: (entry) => told.push(entry as { readonly step: number }),
      })
      assert.is(made, steps - step + 1, 'its step ends here')
      assert.equal(await contents(store), expected)
      // Who is told of the lines hears of the whole step.
      assert.equal(
        told.slice(0, 2).map((entry) => [entry.step, 'loss' in entry, 'eval_loss' in entry]),
        [
          [step, true, false],
          [step, false, true],
        ],
      )
    }
  })
})

test('what no training has made is neither used, overwritten nor removed', async () => {
  const [, device] = await testDevices()
  await withStores(async (make) => {
    for (const name of ['model.safetensors', 'log.jsonl', 'config.json', 'notes.txt']) {
      const store = make()
      await store.write(name, [bytes('mine')])
      for (const restart of [false, true])
        await fails(
          () => run(device, store, { restart }),
          new RegExp(`must be missing, empty or hold work of "toy", it has "${name}"; move it away`),
        )
      assert.equal(await contents(store), { [name]: Buffer.from('mine').toString('base64') })
    }
    const strange = make()
    await strange.write('training.json', [bytes('{"loss": 1}')])
    for (const restart of [false, true])
      await fails(
        () => run(device, strange, { restart }),
        /training\.json: is not the result of a training; move it away or choose another --out/,
      )
    assert.equal(await strange.list(), ['training.json'])
    // Put there while the training went on.
    const store = make()
    await fails(() => run(device, store, { stop: 4 }), 'stop')
    await store.write('model.safetensors', [bytes('mine')])
    await fails(
      () => run(device, store),
      /model\.safetensors: is not of this training and stays; move it away and run the same command again/,
    )
    assert.is((await contents(store))['model.safetensors'], Buffer.from('mine').toString('base64'))
    await store.rename('model.safetensors', 'mine.safetensors')
    await run(device, store)
    assert.equal(await store.list(), [...FILES, 'mine.safetensors'].sort())
    // Browsers call half a download so.
    const mine = ['film.part', 'film.part.damaged', 'mine.safetensors']
    for (const name of mine) await store.write(name, [bytes('mine')])
    await run(device, store, { restart: true, onNote: (line) => assert.unreachable(line) })
    await fails(() => run(device, store, { restart: true, stop: 4 }), 'stop')
    await run(device, store)
    assert.equal(await store.list(), [...FILES, ...mine].sort())
  })
})

test('a file put in the place of an old one stays when the training begins anew', async () => {
  const [, device] = await testDevices()
  const files = new Map<string, Uint8Array>()
  const store = memoryStore('out', files)
  await run(device, store)
  // Killed when the first state was there and the old files were, too.
  for (let after = 0; !files.has('state-000000.part'); after++) {
    await fails(() => run(device, crashing(store, after), { lr: 0.1, restart: true }), 'crash')
  }
  assert.ok(files.has('model.safetensors') && files.has('training.json'))
  await store.write('model.safetensors', [bytes('mine')])
  await fails(() => run(device, store, { lr: 0.1 }), /model\.safetensors: is not of this training and stays/)
  assert.is((await contents(store))['model.safetensors'], Buffer.from('mine').toString('base64'))
  assert.not(files.has('training.json'))
})

test('a training that ends before its first state leaves nothing, and other settings may follow', async () => {
  await withStores(async (make) => {
    const store = make()
    const folder = await openTrainingFolder(store, { command: 'toy', settings: { '--lr': 1 } })
    assert.equal(await store.list(), ['pinball-work.json'])
    // Killed here, or ended:
    const other = await openTrainingFolder(store, { command: 'toy', settings: { '--lr': 2 } })
    await other.close()
    await folder.close()
    assert.equal(await store.list(), [])
  })
})

test.run()
