// Adapters in Node: the unpacked SwiftShader, what counts as software, and processes that end by themselves.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openBest } from '../src/device/choose.ts'
import { Device } from '../src/device/device.ts'
import { type KernelSpec, Signature } from '../src/device/kernel.ts'
import { openDevice } from '../src/device/open.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { describeAdapter, type FoundAdapter, isSoftware } from '../src/device/webgpu/adapter.ts'
import { requestAdapter, requestNullAdapter } from '../src/device/webgpu/dawn.ts'
import { openWebgpu } from '../src/device/webgpu/runner.ts'
import { readTar, unpack } from '../src/device/webgpu/software.ts'
import { type KernelName, kernels } from '../src/generated/kernels.ts'
import { shaderTexts } from '../src/generated/shader_texts.ts'
import { fails } from './assert.ts'

const folder = mkdtempSync(join(tmpdir(), 'pinball-test-'))
test.after(() => rmSync(folder, { recursive: true }))

interface Entry {
  readonly name: string
  readonly data: string
  readonly type?: string
  readonly size?: string
}

/** Writes a ustar archive, right but for what the entry says otherwise. */
function tar(entries: readonly Entry[]): Uint8Array {
  const blocks = entries.flatMap(({ name, data, type = '0', size }) => {
    const header = Buffer.alloc(512)
    header.write(name, 0)
    header.write('0000755\0', 100)
    header.write(size ?? `${data.length.toString(8).padStart(11, '0')}\0`, 124)
    header.write('        ', 148)
    header.write(`${type}`, 156)
    header.write('ustar\x0000', 257)
    const sum = header.reduce((total, byte) => total + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    const body = Buffer.alloc(Math.ceil(data.length / 512) * 512)
    body.write(data)
    return [header, body]
  })
  return Buffer.concat([...blocks, Buffer.alloc(1024)])
}

test('tar archives are read', () => {
  const long = 'x'.repeat(600)
  const files = readTar(
    tar([
      { name: 'a/', data: '', type: '5' },
      { name: 'a/b', data: long },
      { name: 'c', data: '' },
    ]),
    'x.tar',
  )
  assert.equal(
    files.map(({ name, mode, data }) => [name, mode, new TextDecoder().decode(data)]),
    [
      ['a/b', 0o755, long],
      ['c', 0o755, ''],
    ],
  )
})

test('broken and hostile tar archives are refused', async () => {
  const good = tar([{ name: 'a', data: 'hello' }])
  const damaged = Uint8Array.from(good)
  damaged[0] = 98
  const refused: [Uint8Array, string | RegExp][] = [
    [damaged, 'x.tar: wrong tar checksum at byte 0'],
    [good.subarray(0, 700), 'x.tar: the tar archive ends without its end mark'],
    [new Uint8Array(0), 'x.tar: the tar archive ends without its end mark'],
    [
      tar([{ name: 'a', data: 'hello', size: '77777777777\0' }]),
      /^x\.tar: a has size "77777777777" \(octal\), 1536 bytes are left$/,
    ],
    [tar([{ name: 'a', data: 'hello', size: '-0000000005\0' }]), /^x\.tar: a has size "-0000000005"/],
    [tar([{ name: 'a/../../b', data: 'hello' }]), 'x.tar: a/../../b leaves the folder'],
    [tar([{ name: '/b', data: 'hello' }]), 'x.tar: /b leaves the folder'],
    [tar([{ name: 'a', data: '', type: '2' }]), 'x.tar: a has tar type 2, must be a file or folder'],
  ]
  for (const [bytes, message] of refused) await fails(() => readTar(bytes, 'x.tar'), message)
})

test('the cache is filled once, by any number of processes, and repairs itself', async () => {
  const before = process.env.PINBALL_CACHE
  process.env.PINBALL_CACHE = join(folder, 'cache')
  try {
    const [path, other] = await Promise.all([unpack('swiftshader'), unpack('swiftshader')])
    assert.is(path, other)
    const names = readdirSync(path).sort()
    assert.ok(names.includes('libvk_swiftshader.so'))
    assert.is(
      names.some((name) => name.endsWith('.tmp')),
      false,
    )
    const library = join(path, 'libvk_swiftshader.so')
    const { size, ino } = statSync(library)
    await unpack('swiftshader')
    assert.is(statSync(library).ino, ino)
    truncateSync(library, 1000)
    await unpack('swiftshader')
    assert.is(statSync(library).size, size)
    truncateSync(join(path, 'unpacked.json'), 10)
    rmSync(join(path, 'libvulkan.so.1'))
    await unpack('swiftshader')
    assert.equal(readdirSync(path).sort(), names)
    writeFileSync(join(folder, 'file'), '')
    process.env.PINBALL_CACHE = join(folder, 'file', 'cache')
    await fails(() => unpack('swiftshader'), /^cache: no writable folder \(ENOTDIR.*\); set PINBALL_CACHE to one$/)
  } finally {
    if (before === undefined) delete process.env.PINBALL_CACHE
    else process.env.PINBALL_CACHE = before
  }
})

test('software adapters are known by their names', () => {
  const info = (words: Partial<GPUAdapterInfo>) =>
    ({
      vendor: '',
      architecture: '',
      device: '',
      description: '',
      isFallbackAdapter: false,
      ...words,
    }) as GPUAdapterInfo
  assert.ok(isSoftware(info({ isFallbackAdapter: true })))
  assert.ok(isSoftware(info({ description: 'llvmpipe (LLVM 19.1.7, 256 bits)' })))
  assert.ok(isSoftware(info({ architecture: 'swiftshader' })))
  assert.ok(isSoftware(info({ description: 'Microsoft Basic Render Driver' })))
  assert.is(isSoftware(info({ vendor: 'nvidia', architecture: 'hopper', description: 'NVIDIA H200' })), false)
  assert.is(isSoftware(info({ vendor: 'apple', architecture: 'metal-3' })), false)
  assert.is(
    describeAdapter(info({ vendor: 'nvidia', architecture: 'hopper', description: 'NVIDIA H200' })),
    'hopper NVIDIA H200',
  )
  assert.is(describeAdapter(info({})), 'unnamed adapter')
})

test('hardware never gives a software adapter, whichever was asked for first', async () => {
  const variables = () => [process.env.VK_DRIVER_FILES, process.env.VK_ICD_FILENAMES]
  const before = variables()
  for (const _ of [1, 2]) {
    const hardware = await requestAdapter('hardware')
    assert.is(hardware?.software ?? false, false, hardware?.description)
    const software = await requestAdapter('software')
    assert.is(software?.software, true)
    assert.ok(software!.limits.maxBufferSize! >= 2 ** 28)
    assert.equal(variables(), before)
  }
})

test('devices live side by side and one after the other', async () => {
  const compute = async (device: GPUDevice) => {
    const buffer = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST })
    const result = device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST })
    device.queue.writeBuffer(buffer, 0, new Float32Array([1, 2, 3, 4]))
    const encoder = device.createCommandEncoder()
    encoder.copyBufferToBuffer(buffer, 0, result, 0, 16)
    device.queue.submit([encoder.finish()])
    await result.mapAsync(GPUMapMode.READ)
    return [...new Float32Array(result.getMappedRange())]
  }
  const first = (await requestAdapter('software'))!
  const second = (await requestAdapter('software'))!
  const [a, b] = [await first.adapter.requestDevice(), await second.adapter.requestDevice()]
  assert.equal(
    [await compute(a), await compute(b)],
    [
      [1, 2, 3, 4],
      [1, 2, 3, 4],
    ],
  )
  a.destroy()
  first.release()
  assert.equal(await compute(b), [1, 2, 3, 4])
  b.destroy()
  second.release()
  const third = (await requestAdapter('software', { exactTimestamps: true }))!
  const c = await third.adapter.requestDevice({ requiredFeatures: ['timestamp-query'] })
  assert.equal(await compute(c), [1, 2, 3, 4])
  c.destroy()
  third.release()
})

/** A software adapter that plays a hardware one and has its device changed before anybody sees it. */
async function hardware(change: (device: GPUDevice) => void = () => {}): Promise<FoundAdapter> {
  const found = (await requestAdapter('software', { exactTimestamps: true }))!
  const { limits, features } = found.adapter
  const requestDevice = async (wanted: GPUDeviceDescriptor): Promise<GPUDevice> => {
    const device = await found.adapter.requestDevice(wanted)
    change(device)
    return device
  }
  return { ...found, software: false, adapter: { limits, features, requestDevice } as GPUAdapter }
}

test('auto takes a GPU that computes right, and else the CPU, and says why', async () => {
  const opened = async (find: () => Promise<FoundAdapter | string>) => {
    const device = await openBest(find, { threads: 1 })
    const { name, choice } = device
    // Whatever it is, it works.
    const x = device.tensor([1, 3], { data: Float32Array.of(-1, 2, -3) })
    device.run('relu', { x })
    assert.equal([...(await x.read())], [0, 2, 0])
    await device.destroy()
    return [name, choice] as const
  }
  const [name, choice] = await opened(() => hardware())
  assert.is(name, 'webgpu')
  assert.match(choice, /^webgpu: .*SwiftShader.* passed a check$/i)
  const falls = async (find: () => Promise<FoundAdapter | string>, reason: RegExp) => {
    const [name, choice] = await opened(find)
    assert.is(name, 'wasm')
    assert.match(choice, reason)
  }
  await falls(async () => 'there is no GPU; use wasm', /^wasm: there is no GPU$/)
  await falls(async () => 'no loader; install it, or use wasm', /^wasm: no loader; install it$/)
  await falls(() => Promise.reject(new Error('no driver')), /^wasm: WebGPU failed \(no driver\)$/)
  const refused = async () => {
    const found = await hardware()
    return { ...found, adapter: { ...found.adapter, requestDevice: () => Promise.reject(new Error('busy')) } as never }
  }
  await falls(refused, /^wasm: .*SwiftShader.* failed \(busy\)$/i)
  const wrong = (device: GPUDevice) => {
    const create = device.createShaderModule.bind(device)
    device.createShaderModule = ({ code, ...rest }) => create({ ...rest, code: code.replace('+= y[i]', '-= y[i]') })
  }
  await falls(() => hardware(wrong), /^wasm: .* failed \(a check gave -?[\d.]+ in the place of -?[\d.]+\)$/)
  await falls(() => hardware((device) => device.destroy()), /^wasm: .* failed \(webgpu: /)
  const lost = (device: GPUDevice) => setTimeout(() => device.destroy())
  await falls(() => hardware(lost), /^wasm: .* failed \(webgpu: the device was lost \(destroyed\)/)
})

test('a lost device, or one without memory, is an error of the next wait and of every later one', async () => {
  let gpu: GPUDevice | undefined
  const open = async () => {
    const device = await openBest(() =>
      hardware((made) => {
        gpu = made
      }),
    )
    assert.is(device.name, 'webgpu')
    return { device, x: device.tensor([1, 2], { label: 'x', data: Float32Array.of(1, -1) }) }
  }
  const lost = await open()
  const step = lost.device.prepare('relu', { x: lost.x })
  step.run()
  gpu!.destroy()
  const message = /^webgpu: the device was lost \(destroyed\): .*; open it again and reload the model$/
  await fails(() => lost.device.done(), message)
  await fails(() => lost.x.read(), message)
  await fails(() => step.run(), message)
  await fails(() => lost.device.run('relu', { x: lost.x }), message)
  await lost.device.destroy()

  const poor = await open()
  const pop = gpu!.popErrorScope.bind(gpu)
  gpu!.popErrorScope = async () => {
    await pop()
    return { message: 'on purpose' } as GPUError
  }
  poor.device.tensor([500], { label: 'more' })
  await fails(() => poor.device.done(), /^webgpu: more: no memory for 2048 bytes \(on purpose\); open the device again/)
  await poor.device.destroy()
})

test('a kernel that needs a feature is switched on where the adapter has it, and refused with its name elsewhere', async () => {
  const texts = await shaderTexts()
  const doubling: KernelSpec = {
    ...kernels.relu,
    name: 'doubling',
    needs: ['subgroups'],
    wgsl: `enable subgroups;\n${texts.relu}`
      .replace('let i =', 'let nothing = subgroupAdd(0.0);\n  let i =')
      .replace(/x\[i\] = .*;/, 'x[i] = 2.0 * x[i] + nothing;'),
  }
  assert.ok(doubling.wgsl?.includes('subgroupAdd'))
  const half: KernelSpec = { ...doubling, name: 'half', needs: ['shader-f16'] }
  const run = (device: Device, spec: KernelSpec, x: Tensor) => {
    const signature = new Signature(spec)
    signature.check(device, { x }, {})
    device.backend.run(signature)
  }
  const found = await hardware()
  assert.equal([found.features.includes('subgroups'), found.features.includes('shader-f16')], [true, false])
  const device = new Device(await openWebgpu(found, { needs: ['subgroups', 'shader-f16'] }), 'a test')
  assert.equal([device.backend.supports(doubling), device.backend.supports(half)], [true, false])
  const x = device.tensor([1, 2], { data: Float32Array.of(1, -2) })
  run(device, doubling, x)
  assert.equal([...(await x.read())], [2, -4])
  await fails(
    () => run(device, half, x),
    /^half: needs the WebGPU feature shader-f16, which WebGPU, .* does not have; ask device\.supports\("half"\) first/,
  )
  assert.equal([...(await x.read())], [2, -4])
  await device.destroy()
  // Nobody asked for it here, and no kernel of ours needs anything.
  const plain = await openDevice('webgpu:software')
  assert.is(plain.backend.supports(doubling), false)
  assert.not(plain.backend.features.includes('subgroups'))
  assert.ok((Object.keys(kernels) as KernelName[]).every((name) => plain.supports(name)))
  await plain.destroy()
})

test('the null adapter compiles shaders', async () => {
  const { adapter } = await requestNullAdapter()
  const device = await adapter.requestDevice()
  const messages = async (code: string) => {
    device.pushErrorScope('validation')
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo()
    await device.popErrorScope()
    return messages.filter(({ type }) => type === 'error').map(({ lineNum }) => lineNum)
  }
  assert.equal(await messages('@compute @workgroup_size(1) fn main() {}'), [])
  assert.equal(await messages('@compute @workgroup_size(1)\nfn main() { x = 1; }'), [2])
  device.destroy()
})

test('a process ends by itself, with its own exit code', () => {
  const dawn = new URL('../src/device/webgpu/dawn.ts', import.meta.url)
  const run = (end: string) => {
    const code = `import { requestAdapter } from '${dawn}'
      const { adapter, release } = await requestAdapter('software')
      const device = await adapter.requestDevice()
      await device.queue.onSubmittedWorkDone()
      ${end}`
    const args = ['--expose-gc', '--import', 'tsx', '--input-type=module', '--eval', code]
    const { status, signal, stderr, stdout } = spawnSync(process.execPath, args, {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      encoding: 'utf8',
      timeout: 60_000,
    })
    return { status, signal, stdout, stderr: stderr.split('\n').find((line) => line.startsWith('Error')) ?? stderr }
  }
  assert.equal(run('device.destroy(); release()'), { status: 0, signal: null, stdout: '', stderr: '' })
  assert.equal(run(''), { status: 0, signal: null, stdout: '', stderr: '' })
  assert.equal(run('process.exitCode = 3'), { status: 3, signal: null, stdout: '', stderr: '' })
  // Dawn crashes when a device is used whose instance is gone; nothing but the device is held on to here.
  const forgetful = `
    const devices = []
    for (let i = 0; i < 20; i++) devices.push(await (await requestAdapter('software')).adapter.requestDevice())
    globalThis.gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
    globalThis.gc()
    for (const device of devices) await device.queue.onSubmittedWorkDone()
    for (const device of devices) device.destroy()`
  assert.equal(run(forgetful), { status: 0, signal: null, stdout: '', stderr: '' })
  assert.equal(run('throw new Error("on purpose")'), {
    status: 1,
    signal: null,
    stdout: '',
    stderr: 'Error: on purpose',
  })
})

test.run()
