// The trainer on a task of its own: against float64, accumulation, clipping, decay, several updates a step, and going on.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { joinBytes, memorySource } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import { logLine } from '../src/train/log.ts'
import { learningRate } from '../src/train/schedule.ts'
import { type Position, type TrainerSettings, train } from '../src/train/trainer.ts'
import { openTrainingFolder } from '../src/train/training_folder.ts'
import { encodeState, openState } from '../src/train/training_state.ts'
import { close, fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import {
  BIAS,
  D,
  fitInFloat64,
  LeastSquares,
  type LeastSquaresOptions,
  O,
  plan,
  START,
  type Tally,
} from './least_squares.ts'

test.after(closeDevices)

const OPTIONS: LeastSquaresOptions = { batch: 8, micro: 8, epochs: 2 }
const STEPS = plan(OPTIONS).steps
/** Between the norms that occur. */
const LIMIT = 3.5
const SETTINGS: TrainerSettings = {
  lr: 0.05,
  schedule: 'cosine',
  warmup: 3,
  weightDecay: 0.1,
  maxGradNorm: LIMIT,
  steps: STEPS,
}

interface Line {
  readonly step: number
  readonly loss: number
  readonly grad_norm: number
  readonly learning_rate: number
  readonly num_rows: number
  readonly eval_loss?: number
}

interface Ended {
  readonly lines: readonly Line[]
  readonly position: Position<Tally>
  readonly state: Uint8Array
  /** Parameters and moments after the training. */
  readonly values: Record<string, Float32Array>
}

/** Trains to the end, or to a step. */
async function run(
  device: Device,
  options: Partial<LeastSquaresOptions> = {},
  settings: Partial<TrainerSettings> = {},
  { stop = Infinity, before }: { readonly stop?: number; readonly before?: Uint8Array } = {},
): Promise<Ended> {
  const state = before && (await openState<Tally>(memorySource('state', before)))
  const task = new LeastSquares(device, { ...OPTIONS, ...options })
  const lines: Line[] = []
  let position = state?.position
  const abort = new AbortController()
  try {
    await state?.load(task)
    await train({
      device,
      task,
      settings: { ...SETTINGS, ...settings },
      start: state?.position,
      signal: abort.signal,
      onEntry: (entry) => lines.push(entry as Line),
      onStep(now) {
        position = now
        if (now.step === stop) abort.abort(new Error('stop'))
      },
    }).catch((error: Error) => {
      if (error.message !== 'stop') throw error
    })
    const values: Record<string, Float32Array> = {}
    for (const { name, value, m, v } of task.parameters) {
      values[name] = await value.readF32()
      values[`${name} m`] = await m.readF32()
      values[`${name} v`] = await v.readF32()
    }
    return { lines, position: position!, state: joinBytes(await encodeState(task, position!, {})), values }
  } finally {
    task.destroy()
  }
}

const same = (a: Ended, b: Ended) => assert.equal(a.values, b.values)

// An Adam step is a ratio, so that the relative error of a gradient, some 2^-24 times the root of its terms, moves a parameter by
// that share of the learning rate; ten steps, and the feedback of the parameters on the gradients, stay within a hundred of these.
const TOLERANCE = 100 * 2 ** -24

test('a training is that of float64, with warm-up, clipping, decay and every schedule', async () => {
  for (const schedule of ['constant', 'linear', 'cosine'] as const) {
    for (const maxGradNorm of [0, LIMIT]) {
      const settings = { ...SETTINGS, schedule, maxGradNorm }
      const rates = Array.from({ length: STEPS }, (_, step) => learningRate(settings, step, STEPS))
      const expected = fitInFloat64(OPTIONS, rates, settings)
      assert.ok(Math.min(...expected.norms) < LIMIT && Math.max(...expected.norms) > LIMIT, 'the limit matters')
      for (const device of await testDevices()) {
        const { lines, values } = await run(device, {}, settings)
        const where = `${schedule}, ${maxGradNorm}, ${device.description}`
        close(values.weight, expected.weight, TOLERANCE, `${where}: weight`)
        close(values.bias, expected.bias, TOLERANCE, `${where}: bias`)
        assert.equal(
          lines.map((line) => line.learning_rate),
          rates,
          where,
        )
        assert.is(lines[0].learning_rate, 0)
        close(
          lines.map((line) => line.loss),
          expected.losses,
          TOLERANCE * Math.max(...expected.losses),
          `${where}: loss`,
        )
        // Before clipping.
        close(
          lines.map((line) => line.grad_norm),
          expected.norms,
          TOLERANCE * Math.max(...expected.norms),
          `${where}: norm`,
        )
      }
    }
  }
})

test('the first learning rate of a warm-up is 0: its step moves nothing but the moments', async () => {
  const [device] = await testDevices()
  const { values } = await run(device, {}, { steps: 1, warmup: 1 })
  assert.equal([...values.weight], [...START])
  assert.equal([...values.bias], [...BIAS])
  assert.ok(values['weight m'].some((value) => value !== 0))
})

test('eight micro-batches of one row are one of eight, to rounding, and the task may add as well as the trainer', async () => {
  for (const device of await testDevices()) {
    const whole = await run(device, { micro: 8 })
    for (const micro of [1, 3]) {
      const pieces = await run(device, { micro })
      for (const name of ['weight', 'bias'])
        close(pieces.values[name], whole.values[name], TOLERANCE, `${name}, ${micro} rows on ${device.description}`)
      for (const [i, { loss, grad_norm, ...rest }] of pieces.lines.entries()) {
        const { loss: wholeLoss, grad_norm: wholeNorm, ...others } = whole.lines[i]
        assert.equal(rest, others)
        assert.ok(Math.abs(loss - wholeLoss) < TOLERANCE * wholeLoss, `loss of step ${i + 1}`)
        assert.ok(Math.abs(grad_norm - wholeNorm) < TOLERANCE * wholeNorm, `norm of step ${i + 1}`)
      }
      same(await run(device, { micro, adds: true }), pieces)
      same(await run(device, { micro }), pieces)
    }
  }
})

test('clipping scales the gradient to the limit, and 0 or a large limit leaves every bit', async () => {
  for (const device of await testDevices()) {
    const first = (maxGradNorm: number | null) => run(device, {}, { steps: 1, maxGradNorm })
    const off = await first(0)
    const norm = off.lines[0].grad_norm
    assert.ok(norm > 1)
    for (const limit of [2 * norm, null]) same(await first(limit), off)
    assert.is((await first(null)).lines[0].grad_norm, null)
    const clipped = await first(norm / 8)
    assert.is(clipped.lines[0].grad_norm, norm, 'the norm of the log is that before clipping')
    for (const name of ['weight m', 'bias m']) {
      const expected = Float64Array.from(off.values[name], (value) => value / 8)
      // 1e-6 in the denominator, and four roundings.
      close(clipped.values[name], expected, (1e-6 / norm + 4 * 2 ** -24) * Math.max(...expected.map(Math.abs)), name)
    }
  }
})

test('weight decay takes the parameters that decay alone', async () => {
  for (const device of await testDevices()) {
    const settings = { steps: 1, warmup: 0, schedule: 'constant' } as const
    const none = await run(device, {}, { ...settings, weightDecay: 0 })
    const some = await run(device, {}, { ...settings, weightDecay: 0.5 })
    assert.equal(some.values.bias, none.values.bias)
    const moved = Float64Array.from(none.values.weight, (value, i) => value - 0.05 * 0.5 * START[i])
    close(some.values.weight, moved, 4 * 2 ** -24 * Math.max(...START.map(Math.abs)), 'weight')
  }
})

test('a step of two updates is two steps on the same rows', async () => {
  const [device] = await testDevices()
  const settings = { schedule: 'constant', warmup: 0 } as const
  const twice = await run(device, { batch: 64, micro: 64, epochs: 3, updates: 2 }, { ...settings, steps: 3 })
  const once = await run(device, { batch: 64, micro: 64, epochs: 6 }, { ...settings, steps: 6 })
  assert.equal([twice.position.step, twice.position.updates], [3, 6])
  assert.equal([once.position.step, once.position.updates], [6, 6])
  // Each epoch has all rows, in an order of its own: the same sums but for rounding.
  for (const name of ['weight', 'bias']) close(twice.values[name], once.values[name], TOLERANCE, name)
  assert.equal(
    twice.lines.map(({ step, num_rows }) => [step, num_rows]),
    [1, 2, 3].map((step) => [step, 37 * step]),
  )
  const cut = await run(device, { batch: 64, micro: 64, epochs: 3, updates: 2 }, { ...settings, steps: 3 }, { stop: 1 })
  const rest = await run(
    device,
    { batch: 64, micro: 64, epochs: 3, updates: 2 },
    { ...settings, steps: 3 },
    { before: cut.state },
  )
  assert.equal(rest.state, twice.state)
})

test('evaluation comes after every so many steps, and changes nothing', async () => {
  for (const device of await testDevices()) {
    const whole = await run(device)
    const evaluated = await run(device, {}, { evaluateEvery: 4 })
    same(evaluated, whole)
    const at = evaluated.lines.filter((line) => line.eval_loss !== undefined).map(({ step }) => step)
    assert.equal(at, [4, 8])
    assert.is(evaluated.position.tally.evaluations.length, 2)
    const steps = evaluated.lines.filter((line) => line.eval_loss === undefined)
    assert.equal(steps, whole.lines)
  }
})

test('cut after any step and gone on, the state and the log are the same bits; threads change none', async () => {
  const devices = await testDevices()
  for (const device of devices) {
    const options = { micro: 3 }
    const settings = { evaluateEvery: 4 }
    const whole = await run(device, options, settings)
    for (let stop = 1; stop < STEPS; stop++) {
      const cut = await run(device, options, settings, { stop })
      assert.is(cut.position.step, stop)
      const rest = await run(device, options, settings, { before: cut.state })
      const log = [...cut.lines, ...rest.lines].map(logLine).join('')
      assert.is(log, whole.lines.map(logLine).join(''), `cut at ${stop} on ${device.description}`)
      assert.equal(rest.state, whole.state, `cut at ${stop} on ${device.description}`)
    }
  }
  const [many, one] = devices
  assert.ok(many.kind === 'wasm' && one.kind === 'wasm')
  assert.equal((await run(many)).state, (await run(one)).state)
})

test('kept in memory, a training is interrupted and goes on, and all files are the same bits', async () => {
  for (const device of await testDevices()) {
    const keep = async (files: Map<string, Uint8Array>, stop: number) => {
      const options = { command: 'toy', settings: { device: device.name }, saveEvery: { steps: 2, seconds: 60 } }
      const folder = await openTrainingFolder(memoryStore('memory', files), options)
      const task = new LeastSquares(device, OPTIONS)
      const interrupt = new AbortController()
      try {
        await train({
          device,
          task,
          keeper: folder,
          settings: SETTINGS,
          signal: interrupt.signal,
          onStep({ step }) {
            if (step === stop) interrupt.abort(new Error('stop'))
          },
        })
        const weight = new Uint8Array((await task.parameters[0].value.readF32()).buffer)
        const model = async function* () {
          yield { file: 'model.safetensors', chunks: [weight] }
        }
        await folder.finish(model(), { steps: STEPS })
      } finally {
        task.destroy()
        await folder.close()
      }
    }
    const [whole, cut] = [new Map<string, Uint8Array>(), new Map<string, Uint8Array>()]
    await keep(whole, Infinity)
    for (const stop of [1, 5, 6]) await fails(() => keep(cut, stop), 'stop')
    assert.equal([...cut.keys()].sort(), ['log.jsonl', 'pinball-work.json', 'state-000005.part', 'state-000006.part'])
    await keep(cut, Infinity)
    assert.equal([...cut.keys()].sort(), ['log.jsonl', 'model.safetensors', 'training.json'])
    for (const [file, bytes] of whole) assert.equal(cut.get(file), bytes, `${file} on ${device.description}`)
  }
})

test('a gradient that is not finite ends the training, and a state of another make is refused', async () => {
  const [device] = await testDevices()
  await fails(
    () => run(device, {}, { lr: 1e30, warmup: 0 }),
    /training: the norm of the gradients must be finite, step \d gives (NaN|Infinity); use a smaller --lr/,
  )
  // Too large from the start, where the first rate above 0 has not been applied yet.
  const large = { value: START[0] }
  START[0] = 1e38
  for (const warmup of [0, 3])
    await fails(
      () => run(device, {}, { warmup }),
      /must be finite, step 1 gives (NaN|Infinity); nothing had been learned before, so what it begins with holds NaN or is too large/,
    )
  START[0] = large.value
  const { state } = await run(device, {}, { steps: 1 })
  const opened = await openState(memorySource('state', state))
  const task = new LeastSquares(device, OPTIONS)
  const fewer = { parameters: task.parameters.slice(0, 1), statistics: task.statistics }
  await fails(() => opened.load(fewer), 'state: has a tensor "bias" that is not trained; give --restart')
  const more = { ...task, parameters: [...task.parameters, { ...task.parameters[0], name: 'other' }] }
  await fails(() => opened.load(more), `state: tensor "other" must be [${O},${D}], got null`)
  task.destroy()
})

test.run()
