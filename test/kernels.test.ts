// Every kernel on every device: against the float64 reference, GPU against CPU, and bit for bit over numbers of threads.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { type KernelName, kernels, storedKernels } from '../src/generated/kernels.ts'
import { close } from './assert.ts'
import { allowed, type Call, cases, expect, INPUT_KINDS, type InputKind, makeCall, numbersOf } from './cases.ts'
import { closeDevices, testDevices } from './device.ts'

const NAMES = Object.keys(cases) as KernelName[]
/** An outlier is 20 times as large as the rest, and so is the error of a sum in which it cancels. */
const OUTLIER = 20

// Three threads divide every range unevenly, whatever the number of cores.
const devices = [...(await testDevices()), await openDevice('wasm', { threads: 3 })]

/** `Device.run` for a row of the table of cases, which is typed by kernel while its tensors are not. */
type Run = (name: KernelName, tensors: Record<string, Tensor>, scalars: Readonly<Record<string, number>>) => void

/** The tensors that the kernel writes, after one call on a device. */
async function run(device: Device, name: KernelName, call: Call): Promise<Record<string, Float32Array>> {
  const tensors: Record<string, Tensor> = {}
  for (const [tensor, { shape, dtype, data }] of Object.entries(call.tensors))
    tensors[tensor] = device.tensor(shape, { dtype, label: tensor, data })
  try {
    const run = device.run.bind(device) as Run
    run(name, tensors, call.scalars)
    const results: Record<string, Float32Array> = {}
    for (const { name: tensor, role } of kernels[name].tensors)
      if (role !== 'input') results[tensor] = numbersOf(name, tensor, await tensors[tensor]!.read())
    return results
  } finally {
    for (const tensor of Object.values(tensors)) tensor.destroy()
  }
}

/**
 * Throws unless every element is within limit * max(rms of all, its own size): the tolerance of the house, where an element
 * that stands out may be off by as much relative to itself.
 */
function near(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: number, name: string): void {
  let squares = 0
  for (let i = 0; i < expected.length; i++) squares += (expected[i] / expected.length) * expected[i]
  const rms = Math.sqrt(squares)
  const exact = limit === 0 || rms === 0
  const scale = (values: ArrayLike<number>) =>
    Float64Array.from(values, (value, i) => (exact ? value : value / Math.max(rms, Math.abs(expected[i]))))
  close(scale(actual), scale(expected), limit, `${name}, relative to the size of the result`)
}

async function check(name: KernelName, sizes: Record<string, number>, kind: InputKind): Promise<void> {
  const call = makeCall(name, sizes, kind)
  const expected = expect(name, call)
  const { longestSum, slack = 1 } = cases[name]
  const limit = 8 * slack * (kind === 'outliers' ? OUTLIER : 1) * 2 ** -24 * Math.sqrt(longestSum(sizes))
  const label = `${name} ${JSON.stringify(sizes)} ${kind}`
  let cpu: Record<string, Float32Array> | null = null
  for (const device of devices) {
    const actual = await run(device, name, call)
    for (const tensor of Object.keys(expected)) {
      near(actual[tensor]!, expected[tensor]!, limit, `${label}, ${tensor} on ${device.description}`)
      if (!cpu) continue
      if (device.kind === 'wasm') assert.equal(bits(actual[tensor]!), bits(cpu[tensor]!), `${label}: threads`)
      else near(actual[tensor]!, cpu[tensor]!, limit, `${label}, ${tensor}: GPU against CPU`)
    }
    if (device.kind === 'wasm') cpu ??= actual
  }
}

const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length)

test('relu keeps a NaN, so that an overflow before it is found', async () => {
  for (const device of devices) {
    const x = device.tensor([1, 5], { data: Float32Array.of(Number.NaN, -1, 2, Number.POSITIVE_INFINITY, Number.NaN) })
    device.run('relu', { x })
    assert.equal([...(await x.read())], [Number.NaN, 0, 2, Number.POSITIVE_INFINITY, Number.NaN], device.description)
    x.destroy()
  }
})

test('bradley_terry does not overflow, and keeps a NaN', async () => {
  for (const device of devices) {
    const g = device.tensor([4, 1], { data: Float32Array.of(1, 1, 1, 1) })
    const r = device.tensor([4, 1], { data: Float32Array.of(1000, -1000, 0, Number.NaN) })
    const [margin, loss, dg] = [device.tensor([4]), device.tensor([4]), device.tensor([4, 1])]
    device.run('bradley_terry', { g, r, margin, loss, dg }, { margin_scale: 1 })
    const losses = [...(await loss.readF32())]
    const gradients = [...(await dg.readF32())]
    close(losses.slice(0, 3), [0, 1000, Math.LN2], 1e-6, device.description)
    close(gradients.slice(0, 3), [0, 250, 0], 1e-6, device.description)
    assert.ok(Number.isNaN(losses[3]) && Number.isNaN(gradients[3]), device.description)
    for (const tensor of [g, r, margin, loss, dg]) tensor.destroy()
  }
})

test('copy keeps all bits, and writes no further than it says', async () => {
  for (const device of devices) {
    for (const N of [1, 2, 3, 5, 7, 258]) {
      // NaN of every kind among them: sign, quiet bit and payload must stay.
      const words = Uint32Array.from({ length: N + 3 }, (_, i) => (i % 2 ? 0x7f800001 : 0xffa00000) + 77 * i)
      const before = new Float32Array(N + 3).fill(-5)
      const x = device.tensor([N + 3], { data: new Float32Array(words.buffer) })
      const y = device.tensor([N + 3], { data: before })
      device.run('copy', { x: x.view([N]), y: y.view([N]) })
      const found = bits(await y.readF32())
      assert.equal(found.subarray(0, N), words.subarray(0, N), device.description)
      assert.equal(found.subarray(N), bits(before).subarray(N), device.description)
      for (const tensor of [x, y]) tensor.destroy()
    }
  }
})

test('few rows give the bits of the tile on a CPU, in every storage type', async () => {
  const cpu = devices.find(({ kind }) => kind === 'wasm')!
  const types = Object.keys(storedKernels.linear_vec) as (keyof typeof storedKernels.linear_vec)[]
  assert.ok(types.length >= 4)
  for (const type of types) {
    const [few, tiled] = [storedKernels.linear_vec[type], storedKernels.linear[type]]
    for (const N of [1, 2, 3])
      for (const [D, O] of [
        [67, 13],
        [4134, 3],
      ]) {
        const call = makeCall(few, allowed(few, { N, D, O }))
        const [one, other] = [await run(cpu, few, call), await run(cpu, tiled, call)]
        assert.equal(bits(one.y!), bits(other.y!), `${few}: ${N} x ${D} x ${O}`)
      }
  }
})

test('there are kernels, a CPU and a GPU to test', () => {
  assert.equal([...NAMES].sort(), Object.keys(kernels).sort())
  assert.ok(NAMES.length >= 31)
  assert.ok(devices.some((device) => device.kind === 'wasm'))
  assert.ok(devices.some((device) => device.kind === 'webgpu'))
})

for (const name of NAMES) {
  test(`${name} at all sizes`, async () => {
    for (const sizes of cases[name].sizes) await check(name, sizes as Record<string, number>, 'noise')
  })
  test(`${name} on special inputs`, async () => {
    for (const kind of INPUT_KINDS) await check(name, cases[name].sizes[1] as Record<string, number>, kind)
  })
}

test('tolerances see a wrong weight', async () => {
  const call = makeCall('linear', { N: 17, D: 19, O: 33 })
  const expected = expect('linear', call).y
  const { y } = await run(devices[0]!, 'linear', call)
  y![100]! *= 1 + 1e-5
  assert.throws(() => near(y!, expected, 8 * 2 ** -24 * Math.sqrt(19), 'linear'), /1 of 561 elements are off/)
})

test('devices close', async () => {
  await devices.at(-1)!.destroy()
  await closeDevices()
})

test.run()
