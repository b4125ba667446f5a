// Devices: checks of a call, order of writes, kernels and frees, long queues, errors that must surface, limits.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { Signature } from '../src/device/kernel.ts'
import { type DeviceKind, openDevice } from '../src/device/open.ts'
import { kernels } from '../src/generated/kernels.ts'
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
    await fails(
      () => device.run('nope' as 'add', { x, y }),
      /^device: there is no kernel "nope"; there are adamw, add, /,
    )
    await fails(() => device.run('toString' as 'add', { x, y }), /^device: there is no kernel "toString"/)
    await fails(() => device.supports('nope' as 'add'), /^device: there is no kernel "nope"/)
    assert.ok(device.supports('add'))
    for (const tensor of [x, weight, rstd, y, half]) tensor.destroy()
  })
  // A kernel with a scale for every 32 columns; no other kernel has to have one.
  const tensors = [
    { name: 'values', shape: ['O', 'D'], dtype: 'i8', role: 'input' },
    { name: 'scales', shape: ['O', { letter: 'D', by: 32 }], dtype: 'f16', role: 'input' },
  ] as const
  const blocks = new Signature({ ...kernels.copy, name: 'blocks', tensors, letters: ['O', 'D'] })
  await every(async (device) => {
    const make = (columns: number) => device.tensor([3, columns], { dtype: 'i8' })
    const [values, odd, scales] = [make(64), make(33), device.tensor([3, 2], { dtype: 'f16' })]
    blocks.check(device, { values, scales }, {})
    assert.equal([blocks.sizes.O, blocks.sizes.D, ...blocks.words], [3, 64, 3, 64])
    const other = device.tensor([3, 1], { dtype: 'f16' })
    const message = 'blocks: scales must be [O = 3, D = 64 / 32], got [3, 1]'
    await fails(() => blocks.check(device, { values, scales: other }, {}), message)
    const multiple = 'blocks: D must be a multiple of 32 (scales is [O, D / 32]), got 33'
    await fails(() => blocks.check(device, { values: odd, scales: other }, {}), multiple)
    for (const tensor of [values, odd, scales, other]) tensor.destroy()
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
    await fails(
      () => device.tensor([1], { label: 'odd', dtype: 'f99' as 'f32' }),
      /^odd: dtype must be one of f32, .*, got "f99"$/,
    )
    await fails(() => device.tensor([1], { dtype: 'toString' as 'f32' }), /^tensor: dtype must be one of f32/)
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

test('a view may begin at any multiple of 256 bytes, and is read and written there', async () => {
  await every(async (device) => {
    const data = Float32Array.from({ length: 320 }, (_, i) => i)
    const x = device.tensor([5, 64], { label: 'x', data })
    const row = x.view([1, 64], { offset: 128, label: 'row 2' })
    assert.equal([...(await row.read())], [...data.subarray(128, 192)])
    device.run('add', { x: row, y: device.tensor([1, 64], { data: new Float32Array(64).fill(1000) }) })
    // A view of a view counts from the view, and a write lands in it, whether a kernel is in flight or not.
    const inner = x.view([2, 64], { offset: 192 }).view([3], { offset: 64 })
    inner.write(Float32Array.of(-1, -2, -3))
    device.run('relu', { x: x.view([1, 64], { offset: 64 }) })
    inner.write(Float32Array.of(-4), 2)
    const expected = data.map((value, i) => (i >= 128 && i < 192 ? value + 1000 : value))
    expected.set([-1, -2, -4], 256)
    assert.equal([...(await x.read())], [...expected])
    assert.equal([...(await inner.read())], [-1, -2, -4])
    assert.is((await x.view([0, 64], { offset: 320 }).read()).length, 0)
    await fails(
      () => x.view([1, 60], { offset: 60, label: 'odd' }),
      'odd: a view must begin at a multiple of 256 bytes, got element 60 at byte 240; begin at a multiple of 64 elements, or copy by copy_rows or gather_rows',
    )
    await fails(() => x.view([2, 64], { offset: 256 }), 'x: a view of [2, 64] at element 256 must fit [5, 64]')
    await fails(() => x.view([1], { offset: -64 }), /^x: a view of \[1\] at element -64 must fit/)
    await fails(() => x.view([1.5]), 'x: sizes must be whole numbers, got [1.5]')
    const half = device.tensor([257], { dtype: 'bf16', label: 'half', data: new Uint16Array(257).fill(7) })
    const part = half.view([3], { offset: 128 })
    // The word of the third value holds a fourth, which is not the view's.
    await fails(
      () => part.write(Uint16Array.of(1, 2, 3)),
      /^half: writes must cover whole words, got 6 bytes at byte 0/,
    )
    half.view([1], { offset: 256 }).write(Uint16Array.of(9))
    part.write(Uint16Array.of(1, 2))
    assert.equal([...(await half.read())].slice(127, 132), [7, 1, 2, 7, 7])
    assert.equal((await half.read())[256], 9)
    for (const tensor of [x, half]) tensor.destroy()
  })
})

test('tensors of a call share memory only where all of them are read, or written apart', async () => {
  await every(async (device) => {
    const x = device.tensor([4, 64], { label: 'x', data: new Float32Array(256).fill(3) })
    const part = (row: number, rows = 1) => x.view([rows, 64], { offset: 64 * row })
    await fails(() => device.run('add', { x: part(0, 2), y: part(1, 2) }), 'add: x and y must not share memory')
    await fails(
      () => device.run('add', { x: part(0), y: part(1) }),
      /^add: x is written and y is read, so they must not be views of one tensor \(x, x\), even apart; copy one/,
    )
    // Both are written, and apart.
    const row = device.tensor([1, 64], { data: new Float32Array(64).fill(2) })
    const weight = device.tensor([64], { data: new Float32Array(64).fill(1) })
    const [y, rstd] = [part(1), part(3).view([1])]
    device.run('rms_norm', { x: row, weight, y, rstd }, { eps: 0 })
    assert.equal(
      [...(await x.read())],
      [
        ...new Float32Array(64).fill(3),
        ...new Float32Array(64).fill(1),
        ...new Float32Array(64).fill(3),
        0.5,
        ...new Float32Array(63).fill(3),
      ],
    )
    await fails(
      () => device.run('rms_norm', { x: row, weight, y, rstd: part(1).view([1]) }, { eps: 0 }),
      'rms_norm: y and rstd must not share memory',
    )
    // Both are read.
    const g = device.tensor([1, 64], { label: 'g', data: new Float32Array(64).fill(5) })
    const [margin, loss, dg] = [device.tensor([1]), device.tensor([1]), device.tensor([1, 64])]
    device.run('bradley_terry', { g, r: g, margin, loss, dg }, { margin_scale: 1 })
    assert.equal([...(await margin.read())], [64 * 25])
    for (const tensor of [x, row, weight, g, margin, loss, dg]) tensor.destroy()
  })
})

test('gradients of several batches are summed by add, from a tensor that fill has cleared', async () => {
  await every(async (device) => {
    const batch = (seed: number) => random(seed).normal(5 * 3)
    const sum = device.tensor([5, 3], { label: 'sum', data: new Float32Array(15).fill(Number.NaN) })
    const grad = device.tensor([5, 3], { label: 'gradient' })
    device.fill(sum)
    const expected = new Float32Array(15)
    for (const seed of [1, 2, 3]) {
      const data = batch(seed)
      grad.write(data)
      device.run('add', { x: sum, y: grad })
      for (let i = 0; i < 15; i++) expected[i] += data[i]!
    }
    assert.equal([...(await sum.read())], [...expected])
    device.fill(sum.view([3]), 2.5)
    assert.equal([...(await sum.read())], [2.5, 2.5, 2.5, ...expected.subarray(3)])
    const half = device.tensor([2], { dtype: 'bf16' })
    await fails(() => device.fill(half), 'fill: x must be f32, got bf16')
    for (const tensor of [sum, grad, half]) tensor.destroy()
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
  assert.match(device.choice, device.kind === 'webgpu' ? /^webgpu: .+ passed a check$/ : /^wasm: .+/)
  await device.destroy()
  const software = await openDevice('webgpu:software')
  assert.match(software.choice, /^webgpu:software: asked for, .+/)
  await software.destroy()
})

test.after(closeDevices)
test.run()
