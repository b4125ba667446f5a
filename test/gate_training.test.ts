// Gate training against PyTorch, on every back end; cutting it at any step and going on gives the same bits.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { encodeSafetensors, openSafetensors, readTensorF32 } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import type { HeadsFile } from '../src/reward/heads_file.ts'
import { openPairs } from '../src/reward/pair_file.ts'
import { ScoreModel } from '../src/train/bradley_terry.ts'
import { GateModel, type GateSettings } from '../src/train/gating.ts'
import { logLine } from '../src/train/log.ts'
import { listBatches, planPairs, type Split } from '../src/train/pair_batches.ts'
import type { PairEntry, PairTally } from '../src/train/pair_log.ts'
import { gateStates, scoreStates } from '../src/train/pair_rewards.ts'
import { type PairModel, type PairSettings, type PairStates, trainPairs } from '../src/train/pair_task.ts'
import { type TrainOptions, type TrainProgress, trainBradleyTerry, trainGate } from '../src/train/recipes.ts'
import type { Position } from '../src/train/trainer.ts'
import { encodeState, openState } from '../src/train/training_state.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { fixture, fixtureJson } from './fixture.ts'
import { random } from './random.ts'

test.after(closeDevices)

interface Case {
  readonly norm: 'batch' | 'none'
  readonly layers: number
  readonly temperature: number
  readonly logitScale: number
  readonly sides: 1 | 2
  readonly rows: number
  readonly lr: number
  readonly weightDecay: number
  readonly marginScale: number
}

interface Index {
  readonly shape: { readonly width: number; readonly hidden: number; readonly outputs: number; readonly batch: number }
  readonly cases: Record<string, Case>
}

async function readFixture(name: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(memorySource(name, await fixture(`gate/${name}.safetensors`)))
  const tensors = new Map<string, Float32Array>()
  for (const [key, info] of file.tensors) tensors.set(key, await readTensorF32(info))
  return tensors
}

/** Rows of an array, as `readPrompts` gives them. */
const rowsOf = (values: Float32Array, width: number) => async (rows: Uint32Array, into: Float32Array) => {
  for (const [b, row] of rows.entries()) into.set(values.subarray(row * width, (row + 1) * width), b * width)
  return into.subarray(0, rows.length * width)
}

/** |a - b| / |b|. */
function distance(a: Float32Array, b: Float32Array): number {
  assert.is(a.length, b.length)
  let [off, size] = [0, 0]
  for (let i = 0; i < a.length; i++) {
    off += (a[i] - b[i]) ** 2
    size += b[i] ** 2
  }
  return Math.sqrt(off / size)
}

// What the issue asks for. Float32 rounds to 6e-8; sums of some dozen terms, ten times over, stay two orders below.
const RELATIVE = 1e-5

test('ten steps from the same start are those of PyTorch', async () => {
  const { shape, cases } = await fixtureJson<Index>('gate/index.json')
  const { width, hidden, outputs, batch } = shape
  for (const [name, { sides, rows, ...given }] of Object.entries(cases)) {
    const expected = await readFixture(name)
    const [x, r] = [expected.get('x')!, expected.get('r')!]
    // Put where the first epoch's order looks for them, so that the steps take the fixture's batches.
    const split: Split = { training: Uint32Array.from({ length: rows }, (_, i) => i), validation: new Uint32Array(0) }
    const plan = planPairs(split, batch, 1)
    const order = [...listBatches(split, plan, 5, 0)].flatMap((each) => [...each.rows])
    assert.is(order.length, rows)
    const placed = (values: Float32Array) => {
      const size = values.length / rows
      const target = new Float32Array(values.length)
      for (const [i, row] of order.entries()) target.set(values.subarray(i * size, (i + 1) * size), row * size)
      return target
    }
    const read = rowsOf(placed(x), sides * width)
    const states: PairStates = { pairs: rows, columns: width, sides, rewards: placed(r), read }
    for (const device of await testDevices()) {
      const model = new GateModel(device, width, outputs, batch * sides, { hidden, ...given, seed: 1 })
      for (const { name: key, value } of [...model.parameters, ...model.statistics]) {
        value.write(expected.get(`start.${key}`)!)
      }
      const settings: PairSettings = { ...given, batch, epochs: 1, validation: 0, seed: 5 }
      const where = `${name} on ${device.description}`
      const entries: PairEntry[] = []
      const onEntry = (entry: PairEntry) => entries.push(entry)
      await trainPairs({ device, model, states, split, settings, logEvery: 1, onEntry })
      const steps = entries.filter((entry) => 'lr' in entry)
      const [losses, accuracies] = [expected.get('losses')!, expected.get('accuracies')!]
      assert.is(steps.length, losses.length, where)
      assert.ok(
        distance(
          Float32Array.from(steps, ({ loss }) => loss),
          losses,
        ) < RELATIVE,
        `${where}: losses`,
      )
      for (const [i, { loss, accuracy }] of steps.entries()) {
        assert.ok(Math.abs(loss - losses[i]) < RELATIVE * losses[i], `${where}: loss of step ${i + 1}`)
        assert.ok(Math.abs(accuracy - accuracies[i]) < 1e-6, `${where}: accuracy of step ${i + 1}`)
      }
      for (const { name: key, value } of [...model.parameters, ...model.statistics]) {
        const off = distance(await value.readF32(), expected.get(`end.${key}`)!)
        assert.ok(off < RELATIVE, `${where}: ${key} is off by ${off}`)
      }
      model.destroy()
    }
  }
})

/** Pairs in memory: chosen responses are better in attribute 0 or 1, by the sign of the prompt's first column. */
function somePairs(sidesDiffer: boolean, N = 90, D = 10) {
  const draw = random(9)
  const embeddings = draw.normal(N * 2 * D)
  const prompts = draw.normal(N * 2 * D)
  for (let i = 0; i < N; i++) {
    if (!sidesDiffer) prompts.copyWithin((2 * i + 1) * D, 2 * i * D, (2 * i + 1) * D)
    const m = prompts[2 * i * D] > 0 ? 0 : 1
    embeddings[2 * i * D + m] += 2
  }
  const chunks = encodeSafetensors([
    { name: 'embeddings', dtype: 'F32', shape: [N, 2, D], data: embeddings },
    { name: 'prompt_embeddings', dtype: 'F32', shape: [N, 2, D], data: prompts },
  ])
  return { embeddings, prompts, open: () => openPairs([memorySource('pairs', Buffer.concat(chunks))]) }
}

function someHeads(D = 10): HeadsFile {
  const draw = random(10)
  const weight = draw.normal(2 * 3 * D, { deviation: 0.1 })
  for (let m = 0; m < 2; m++) for (let k = 0; k < 3; k++) weight[(3 * m + k) * D + m] += 1
  const [bias, transform] = [draw.normal(6), Float32Array.of(1, -0.3, 0, 1)]
  const levels = [0.25, 0.5, 0.75]
  return { name: 'heads', attributes: ['a', 'b'], levels, columns: D, weight, bias, transform, fingerprint: null }
}

test('rewards are the debiased expectations of the heads, and sides with states of their own keep both', async () => {
  const heads = someHeads()
  for (const sidesDiffer of [false, true]) {
    const { embeddings, open } = somePairs(sidesDiffer)
    const pairs = await open()
    assert.is(pairs.sidesDiffer, sidesDiffer)
    const expectations = (row: number) => {
      const mean = [0, 1].map((m) => {
        let sum = 0
        for (let k = 0; k < 3; k++) {
          sum += heads.bias![3 * m + k] / 3
          for (let d = 0; d < 10; d++) sum += (embeddings[row * 10 + d] * heads.weight[(3 * m + k) * 10 + d]) / 3
        }
        return sum
      })
      return [mean[0], mean[1] - heads.transform![1] * -mean[0]] // rows of the transform = from
    }
    for (const device of await testDevices()) {
      const { rewards, sides } = await gateStates(device, pairs, heads)
      assert.is(sides, sidesDiffer ? 2 : 1)
      for (let i = 0; i < 90; i++) {
        const [chosen, rejected] = [expectations(2 * i), expectations(2 * i + 1)]
        const expected = sidesDiffer
          ? [...chosen, ...rejected.map((value) => -value)]
          : chosen.map((value, m) => value - rejected[m])
        for (const [m, value] of expected.entries()) {
          assert.ok(Math.abs(rewards[i * expected.length + m] - value) < 1e-5, `pair ${i}, ${m}`)
        }
      }
    }
  }
  const pairs = await somePairs(false).open()
  const [device] = await testDevices()
  await fails(
    () => gateStates(device, pairs, { ...heads, columns: 4 }),
    'heads: heads must be for features of 10 columns, as those of pairs are, got 4',
  )
  const other = { ...pairs, fingerprint: 'one' }
  await fails(
    () => gateStates(device, other, { ...heads, fingerprint: 'two' }),
    'heads: heads must be fitted to features of the model that made pairs, the fingerprints differ; make both with one model',
  )
  await fails(
    () => gateStates(device, { ...pairs, hasPrompts: false }, heads),
    'pairs: has no tensor "prompt_embeddings", which a gate needs',
  )
})

const FILES = ['config.json', 'fitted.safetensors', 'log.jsonl', 'model.safetensors', 'pinball.json', 'training.json']
const GATE: GateSettings = { hidden: 12, layers: 2, temperature: 1, logitScale: 1, norm: 'batch', seed: 3 }
const SETTINGS: PairSettings = {
  lr: 0.01,
  weightDecay: 0.01,
  batch: 16,
  epochs: 3,
  marginScale: 1,
  validation: 0.2,
  seed: 3,
}
const SPLIT: Split = {
  training: Uint32Array.from({ length: 72 }, (_, i) => i),
  validation: Uint32Array.from({ length: 18 }, (_, i) => 72 + i),
}

/** Trains, cutting after the steps in `cuts` with a new model each time; gives the last state and the log. */
async function trainCut(device: Device, makeModel: () => PairModel, states: PairStates, cuts: readonly number[]) {
  let state: Uint8Array | null = null
  let log = ''
  for (const cut of [...cuts, Infinity]) {
    const model = makeModel()
    const opened = state && (await openState<PairTally>(memorySource('state', state)))
    await opened?.load(model)
    const stop = new AbortController()
    let at: Position<PairTally> | undefined = opened?.position
    const onStep = (position: Position<PairTally>) => {
      at = position
      if (position.step === cut) stop.abort(new Error('cut'))
    }
    const task = { device, model, states, split: SPLIT, settings: SETTINGS, logEvery: 2, onStep, signal: stop.signal }
    const onEntry = (entry: PairEntry) => {
      log += logLine(entry)
    }
    await trainPairs({ ...task, start: at, onEntry }).catch((error: Error) => assert.is(error.message, 'cut'))
    state = Buffer.concat(await encodeState(model, at!, {}))
    model.destroy()
  }
  return { state: state!, log }
}

test('a training that is cut after any step goes on to the same bits and the same log', async () => {
  for (const sidesDiffer of [false, true]) {
    const pairs = await somePairs(sidesDiffer).open()
    for (const device of await testDevices()) {
      const states = await gateStates(device, pairs, someHeads())
      const makeModel = () => new GateModel(device, 10, 2, 16 * states.sides, GATE)
      const whole = await trainCut(device, makeModel, states, [])
      const epochs = whole.log
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
        .filter((entry) => 'validation_loss' in entry)
      assert.is(epochs.length, 3)
      assert.ok(epochs[2].loss < epochs[0].loss, 'it learns')
      // All steps on the quick device, some elsewhere: 15 in all, 5 an epoch.
      const cuts =
        device.kind === 'wasm' && !sidesDiffer ? Array.from({ length: 15 }, (_, i) => [i + 1]) : [[4], [1, 5, 12]]
      for (const cut of cuts) {
        const { state, log } = await trainCut(device, makeModel, states, cut)
        assert.is(log, whole.log, `cut at ${cut} on ${device.description}`)
        assert.ok(Buffer.compare(state, whole.state) === 0, `cut at ${cut} on ${device.description}`)
      }
    }
  }
})

test('a Bradley-Terry head learns, and is cut and goes on as a gate is', async () => {
  const pairs = await somePairs(false).open()
  for (const device of await testDevices()) {
    const makeModel = () => new ScoreModel(device, 10, 32, { seed: 3 })
    const whole = await trainCut(device, makeModel, scoreStates(pairs), [])
    const cut = await trainCut(device, makeModel, scoreStates(pairs), [3, 7])
    assert.is(cut.log, whole.log)
    assert.ok(Buffer.compare(cut.state, whole.state) === 0)
  }
})

test('in a store a training is interrupted, goes on, and ends with the same files as in one go', async () => {
  const pairs = await somePairs(false).open()
  const heads = someHeads()
  const options = { ...SETTINGS, hidden: 12, layers: 2, temperature: 1, logEvery: 2 }
  for (const device of await testDevices()) {
    for (const [command, trainOne] of [
      ['gate', (more: TrainOptions) => trainGate(device, pairs, heads, { ...options, ...more })],
      [
        'bradley-terry',
        (more: TrainOptions) => trainBradleyTerry(device, pairs, { ...SETTINGS, ...more, logEvery: 2 }),
      ],
    ] as const) {
      const where = `${command} on ${device.description}`
      const alone = await trainOne({})
      const expected = new Map<string, Uint8Array>()
      const whole = await trainOne({ store: memoryStore('out', expected) })
      assert.equal([...expected.keys()].sort(), FILES, where)
      assert.equal(whole, alone, where)
      const files = new Map<string, Uint8Array>()
      const store = memoryStore('out', files)
      for (const cut of [3, 5]) {
        const stop = new AbortController()
        const seen: number[] = []
        const saved: number[] = []
        const onProgress = ({ step }: TrainProgress) => {
          seen.push(step)
          if (step === cut) stop.abort(new Error('cut'))
        }
        await fails(
          () => trainOne({ store, signal: stop.signal, onProgress, onSave: (step) => saved.push(step) }),
          'cut',
        )
        assert.equal([seen, saved], [cut === 3 ? [0, 1, 2, 3] : [3, 4, 5], [cut]], where)
        assert.ok(files.has(`state-00000${cut}.part`), where)
      }
      const { finished, ...rest } = await trainOne({ store })
      assert.is(finished, false, where)
      assert.equal(files, expected, where)
      assert.equal({ ...rest, finished }, whole, where)
      const again = await trainOne({ store, onProgress: () => assert.unreachable() })
      assert.equal([again.finished, again.epochs, again.accuracy], [true, whole.epochs, whole.accuracy], where)
      assert.equal(again.checkpoint.regression, whole.checkpoint.regression, where)
      assert.equal(again.checkpoint.gate, whole.checkpoint.gate, where)
      const other =
        command === 'gate' ? trainBradleyTerry(device, pairs, { store }) : trainGate(device, pairs, heads, { store })
      await fails(() => other, /training\.json: holds a training with command/)
      assert.equal(files, expected, where)
    }
  }
  // Heads are told apart by what they hold.
  const [device] = await testDevices()
  const store = memoryStore('out')
  await trainGate(device, pairs, heads, { ...options, store })
  const weight = heads.weight.map((value, i) => (i === 7 ? -value : value))
  await fails(
    () => trainGate(device, pairs, { ...heads, weight }, { ...options, store }),
    /holds a training with heads with the SHA-256 "[0-9a-f]{64}", now it is "[0-9a-f]{64}"/,
  )
})

test('threads do not change the bits', async () => {
  const pairs = await somePairs(false).open()
  const [many, one] = await testDevices()
  const bits = async (device: Device) => {
    const states = await gateStates(device, pairs, someHeads())
    return (await trainCut(device, () => new GateModel(device, 10, 2, 16, GATE), states, [])).state
  }
  assert.ok(Buffer.compare(await bits(many), await bits(one)) === 0)
})

test('a loss that is not finite ends the training, and a state of another model is refused', async () => {
  const pairs = await somePairs(false).open()
  const [device] = await testDevices()
  const states = await gateStates(device, pairs, someHeads())
  const model = new GateModel(device, 10, 2, 16, GATE)
  const rewards = states.rewards.map(() => Number.NaN)
  await fails(
    () => trainPairs({ device, model, states: { ...states, rewards }, split: SPLIT, settings: SETTINGS }),
    /^training: the loss must be finite, step 1 gives NaN; nothing had been learned before, so /,
  )
  const { state } = await trainCut(device, () => new GateModel(device, 10, 2, 16, GATE), states, [])
  const opened = await openState<PairTally>(memorySource('state', state))
  const wider = new GateModel(device, 10, 2, 16, { ...GATE, hidden: 13 })
  await fails(() => opened.load(wider), 'state: tensor "gating.layers.0.weight" must be [13,10], got [12,10]')
  const other = Buffer.concat(encodeSafetensors([], { about: '{}' }))
  await fails(() => openState(memorySource('state', other)), 'state: is not the state of a training; remove it')
})

test.run()
