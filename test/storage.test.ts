// Stored matrices: a product with any of them is, to the bit, the f32 kernel's with the numbers that they stand for.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import type { DType, Tensor, TensorData } from '../src/device/tensor.ts'
import { kernels, type Storage, storedKernels } from '../src/generated/kernels.ts'
import { linear, linearGradInput, type StoredMatrix, type Weight } from '../src/llama/linear.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { random } from './random.ts'
import { type Stored, storages } from './reference/storage.ts'

const devices = await testDevices()
const [O, D] = [37, 96]
const STORAGES = Object.keys(storages) as Storage[]

/** A matrix [O, D] of bits drawn at random: no encoder leaves any of them out. NaN and infinity would hide a difference. */
function draw(storage: Storage, seed: number): Stored {
  const { integers, normal } = random(seed)
  const finite = (half: number): number => ((half & 0x7c00) === 0x7c00 ? half & 0xbfff : half)
  if (storage === 'f32') return { '': normal(O * D) }
  if (storage === 'q8_0')
    return {
      '': Int8Array.from(integers(O * D, 0, 256), (byte) => byte - 128),
      _scale: Uint16Array.from(integers((O * D) / 32, 0, 65536), finite),
    }
  if (storage === 'f16') return { '': Uint16Array.from(integers(O * D, 0, 65536), finite) }
  return storages.bf16.encode(normal(O * D))
}

/** Puts a stored matrix on a device. */
function upload(device: Device, storage: Storage, stored: Stored): Required<StoredMatrix> | StoredMatrix {
  const specs = kernels[storedKernels.linear[storage]].tensors
  const make = (end: string, shape: number[], data: TensorData): Tensor => {
    const { dtype } = specs.find(({ name }) => name === `weight${end}`)! as { dtype: DType }
    return device.tensor(shape, { dtype, label: `weight${end}`, data })
  }
  const values = make('', [O, D], stored['']!)
  const scales = stored._scale
  return scales ? { storage, values, scales: make('_scale', [O, D / 32], scales) } : { storage, values }
}

async function products(device: Device, weight: Weight, embedding: (tokens: Tensor, y: Tensor) => void) {
  const { normal } = random(5)
  const results: Record<string, Uint32Array> = {}
  const read = async (name: string, y: Tensor): Promise<void> => {
    const data = await y.readF32()
    results[name] = new Uint32Array(data.buffer)
    y.destroy()
  }
  for (const N of [1, 3, 9, 70]) {
    const [x, dy] = [device.tensor([N, D], { data: normal(N * D) }), device.tensor([N, O], { data: normal(N * O) })]
    const [y, dx] = [device.tensor([N, O]), device.tensor([N, D])]
    linear(device, x, weight, y)
    linearGradInput(device, dy, weight, dx)
    await read(`linear of ${N} rows`, y)
    await read(`gradient of ${N} rows`, dx)
    x.destroy()
    dy.destroy()
  }
  const tokens = device.tensor([O], { dtype: 'u32', data: Uint32Array.from({ length: O }, (_, o) => O - 1 - o) })
  const rows = device.tensor([O, D])
  embedding(tokens, rows)
  await read('rows', rows)
  tokens.destroy()
  return results
}

for (const storage of STORAGES) {
  test(`${storage} gives the bits of f32`, async () => {
    const stored = draw(storage, 3)
    const numbers = Float32Array.from(storages[storage].decode(stored))
    assert.equal([...numbers], [...storages[storage].decode(stored)], 'every stored number is an f32')
    for (const device of devices) {
      const weight = upload(device, storage, stored)
      const plain = device.tensor([O, D], { data: numbers })
      const name = storedKernels.embedding[storage]
      const call = device.run.bind(device) as (name: string, tensors: Record<string, Tensor>) => void
      const scales = weight.scales && { table_scale: weight.scales }
      const found = await products(device, weight, (tokens, y) =>
        call(name, { table: weight.values, ...scales, tokens, y }),
      )
      const wanted = await products(device, plain, (tokens, y) => call('embedding', { table: plain, tokens, y }))
      for (const [what, bits] of Object.entries(wanted))
        assert.equal(found[what], bits, `${what}, ${device.description}`)
      for (const tensor of [weight.values, weight.scales, plain]) tensor?.destroy()
    }
  })
}

test('a matrix that no kernel reads is refused by name', async () => {
  const [device] = devices as [Device]
  const [x, y] = [device.tensor([1, 48]), device.tensor([1, 4])]
  const values = device.tensor([4, 48], { dtype: 'i8', label: 'q_proj' })
  const scales = device.tensor([4, 1], { dtype: 'f16' })
  await fails(() => linear(device, x, values, y), /q_proj must be stored as f32, f16, bf16, q8_0, got i8; a quantised/)
  await fails(
    () => linear(device, x, { storage: 'q8_0', values, scales }, y),
    /linear_vec_q8_0: D must be a multiple of 32 \(weight_scale is \[O, D \/ 32\]\), got 48/,
  )
  await fails(
    () => linear(device, x, { storage: 'q8_0', values }, y),
    /linear_vec_q8_0: tensor weight_scale is missing/,
  )
  const wide = device.tensor([4, 64], { dtype: 'i8' })
  const long = device.tensor([1, 64])
  await fails(
    () => linear(device, long, { storage: 'q8_0', values: wide, scales }, y),
    /weight_scale must be \[O = 4, D = 64 \/ 32\], got \[4, 1\]/,
  )
  for (const tensor of [x, y, values, scales, wide, long]) tensor.destroy()
})

test('bytes go to a device and come back', async () => {
  for (const device of devices) {
    const bytes = Int8Array.of(-128, 127, -1, 0, 5)
    const tensor = device.tensor([5], { dtype: 'i8', data: bytes })
    assert.equal(await tensor.read(), bytes)
    await fails(() => tensor.write(Uint16Array.of(1)), /i8 data must not come as Uint16Array/)
    tensor.destroy()
  }
})

test('devices close', closeDevices)

test.run()
