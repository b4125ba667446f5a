// Devices: checks of a call, order of writes, kernels and frees, long queues, errors that must surface, limits.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { type DeviceKind, openDevice } from '../src/device/open.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { random } from './random.ts'

const every = async (work: (device: Device) => Promise<void>): Promise<void> => {
  for (const device of await testDevices()) await work(device)
}

test('a call is checked by name, type and shape, and the message says what was found', async () => {
  await every(async (device) => {
    const x = device.tensor([2, 3])
    const weight = device.tensor([3])
    const rstd = device.tensor([2])
    const y = device.tensor([2, 3])
    const run = (tensors: Record<string, unknown>, scalars: Record<string, number> = { eps: 1e-5 }) => {
      const call = device.run.bind(device) as (name: string, tensors: unknown, scalars: unknown) => void
      call('rms_norm', { x, weight, y, rstd, ...tensors }, scalars)
    }
    await fails(() => run({ weight: device.tensor([4]) }), 'rms_norm: weight must be [D = 3], got [4]')
    await fails(() => run({ x: device.tensor([6]) }), 'rms_norm: x must be [N, D], got [6]')
    const half = device.tensor([3], { dtype: 'bf16' })
    await fails(() => run({ weight: half }), 'rms_norm: weight must be f32, got bf16')
    await fails(() => run({ rstd: undefined }), 'rms_norm: tensor rstd is missing')
    await fails(() => run({}, {}), 'rms_norm: scalar eps is missing')
    await fails(() => run({ y: x }), 'rms_norm: y and x must not share memory')
    await fails(() => run({ y: x.view([2, 3]) }), 'rms_norm: y and x must not share memory')
    const gone = device.tensor([3], { label: 'gone' })
    gone.destroy()
    await fails(() => run({ weight: gone }), 'rms_norm: weight (gone) has been destroyed')
  })
  const [one, other] = await testDevices()
  const [x, y] = [one!.tensor([1, 1]), other!.tensor([1, 1])]
  await fails(() => one!.run('add', { x, y }), /^add: y lives on another device/)
})

test('a tensor refuses data of another type, length or place', async () => {
  await every(async (device) => {
    const x = device.tensor([3], { label: 'x' })
    await fails(() => x.write(new Uint16Array(3)), 'x: f32 data must not come as Uint16Array')
    await fails(() => x.write(new Float32Array(3), 1), 'x: must write within 3 elements, got 3 at 1')
    const half = device.tensor([5], { dtype: 'bf16', label: 'half' })
    await fails(() => half.write(new Uint16Array(2), 1), /^half: writes must cover whole words/)
    await fails(() => half.write(new Uint16Array(3)), /^half: writes must cover whole words/)
    half.write(Uint16Array.of(1, 2))
    half.write(Uint16Array.of(3, 4, 5), 2)
    assert.equal([...(await half.read())], [1, 2, 3, 4, 5])
    await fails(() => half.readF32(), 'half: must be f32, got bf16')
    await fails(() => device.tensor([2, -1], { label: 'odd' }), 'odd: sizes must be whole numbers, got [2, -1]')
    await fails(() => device.tensor([2], { label: 'two', data: new Float32Array(3) }), 'two: [2] needs 2 values, got 3')
    await fails(() => x.view([4]), 'x: a view of [4] must fit [3]')
    x.destroy()
    x.destroy()
    await fails(() => x.read(), 'x: cannot read, the tensor has been destroyed')
  })
})

test('a view shares memory, and dies with its owner', async () => {
  await every(async (device) => {
    const x = device.tensor([2, 3], { data: Float32Array.of(1, 2, 3, 4, 5, 6) })
    const view = x.view([3, 2])
    device.run('add', { x: view, y: device.tensor([3, 2], { data: new Float32Array(6).fill(10) }) })
    view.destroy()
    assert.equal([...(await x.read())], [11, 12, 13, 14, 15, 16])
    assert.equal([...(await x.view([2]).read())], [11, 12])
    x.destroy()
    assert.ok(view.destroyed)
  })
})

test('writes, kernels and frees happen in the order of the calls', async () => {
  await every(async (device) => {
    // Large enough that the kernels are still running when the next write comes.
    const N = 300_000
    const x = device.tensor([N])
    const copies = [1, 2, 3, 4].map((value) => {
      x.write(new Float32Array(N).fill(value))
      const y = device.tensor([N])
      device.run('copy', { x, y })
      // Freed while the copy that reads it may be in flight; its memory must not be given out too early.
      const passing = device.tensor([N], { data: new Float32Array(N).fill(10 * value) })
      const z = device.tensor([N])
      device.run('copy', { x: passing, y: z })
      passing.destroy()
      return [y, z] as const
    })
    for (const [i, [y, z]] of copies.entries()) {
      assert.ok((await y.readF32()).every((value) => value === i + 1))
      assert.ok((await z.readF32()).every((value) => value === 10 * (i + 1)))
      y.destroy()
      z.destroy()
    }
    x.destroy()
  })
})

test('a queue longer than the ring of tasks is worked off in order', async () => {
  await every(async (device) => {
    const data = random(1).integers(64, 0, 8)
    const x = device.tensor([1, 64], { data: Float32Array.from(data) })
    const one = device.tensor([1, 64], { data: new Float32Array(64).fill(1) })
    const half = device.tensor([64])
    for (let i = 0; i < 3000; i++) device.run('add', { x, y: one })
    device.run('copy', { x: x.view([64]), y: half })
    for (let i = 0; i < 2500; i++) device.run('add', { x, y: one })
    assert.equal(
      [...(await half.read())],
      [...data].map((value) => value + 3000),
    )
    assert.equal(
      [...(await x.read())],
      [...data].map((value) => value + 5500),
    )
  })
})

test('several may wait for the device at once', async () => {
  await every(async (device) => {
    const x = device.tensor([1, 4], { data: Float32Array.of(1, 2, 3, 4) })
    const reads = [1, 2, 3].map(async () => {
      device.run('add', { x, y: device.tensor([1, 4], { data: new Float32Array(4).fill(1) }) })
      return [...(await x.read())]
    })
    // Each read sees what was recorded before it, and nothing that came later.
    const seen = [2, 3, 4].map((first) => [first, first + 1, first + 2, first + 3])
    assert.equal(await Promise.all(reads), seen)
    await Promise.all([device.done(), device.done()])
  })
})

test('nothing is done for a tensor without rows', async () => {
  await every(async (device) => {
    const x = device.tensor([0, 4])
    device.run('relu', { x })
    assert.is((await x.read()).length, 0)
  })
})

test('a tensor that cannot be had is an error with its size', async () => {
  await every(async (device) => {
    await fails(
      () => device.tensor([2 ** 17, 2 ** 17], { label: 'vast' }),
      /^vast: \[131072, 131072\] f32 takes 68719476736 bytes/,
    )
    // The device still works.
    const x = device.tensor([1, 1], { data: Float32Array.of(-1) })
    device.run('relu', { x })
    assert.equal([...(await x.read())], [0])
  })
})

test('a kernel that traps on a CPU thread is an error of the next wait, and of every later one', async () => {
  // With threads the message of the failure races with the end of the task and of the device: many rounds.
  for (const threads of [1, ...new Array<number>(20).fill(2)]) {
    const device = await openDevice('wasm', { threads })
    // 300 channels are more than the attention kernel holds.
    const shape = [1, 1, 300]
    const [q, k, v, y] = [0, 1, 2, 3].map(() => device.tensor(shape, { data: new Float32Array(300) }))
    const plan = device.tensor([1, 6], { dtype: 'u32', data: Uint32Array.of(0, 1, 0, 0, 0, 0) })
    const lse = device.tensor([1, 1])
    const call = async () => {
      device.run('attention', { q: q!, k: k!, v: v!, plan, y: y!, lse }, { scale: 1 })
      await device.done()
    }
    await fails(call, /^wasm: attention: unreachable$/)
    await fails(() => device.done(), /^wasm: attention/)
    await fails(() => y!.read(), /^wasm: attention/)
    await device.destroy()
  }
})

test('a destroyed device says so', async () => {
  for (const [kind, threads] of [
    ['wasm', 1],
    ['wasm', 2],
    ['webgpu:software', 1],
  ] as const) {
    const device = await openDevice(kind, { threads })
    const x = device.tensor([1, 1])
    await device.destroy()
    await device.destroy()
    await fails(() => device.done(), /has been destroyed$/)
    await fails(() => x.read(), /has been destroyed$/)
    await fails(() => device.tensor([1]), /has been destroyed$/)
    x.destroy()
  }
})

test('a device must be one that exists', async () => {
  await fails(
    () => openDevice('cuda' as DeviceKind),
    'device: must be one of auto, webgpu, webgpu:software, wasm, got "cuda"',
  )
  for (const threads of [0, 65, 1.5, Number.NaN])
    await fails(() => openDevice('wasm', { threads }), `threads: must be 1 to 64, got ${threads}`)
  const device = await openDevice('auto')
  assert.is.not(device.name, 'webgpu:software')
  await device.destroy()
})

test.after(closeDevices)
test.run()
