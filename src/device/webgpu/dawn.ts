// WebGPU for Node: Dawn, from the optional npm package `webgpu` (`#gpu` in Node; the only file that imports it).

import { readdir } from 'node:fs/promises'
import { type AdapterKind, type AdapterOptions, type FoundAdapter, foundAdapter, isSoftware } from './adapter.ts'
import { hasBinaries, load, softwareDriver } from './software.ts'

// One Dawn instance for each set of switches, kept until the process ends: touching a device whose instance was
// collected ends the process with a segmentation fault, even when the device was destroyed before (webgpu 0.6.2). An
// instance that is kept does not hold up the end of the process.
const instances = new Map<string, GPU>()

/**
 * Finds an adapter, or null where there is none of that kind; each call gives a new one, good for one device.
 * `hardware` never gives a software adapter. `software` gives SwiftShader (unpacked on first use) or, where there are no
 * binaries of it, what the system has (WARP, llvmpipe), and throws when a package is missing.
 */
export async function requestAdapter(kind: AdapterKind, options: AdapterOptions = {}): Promise<FoundAdapter | null> {
  if (kind === 'hardware') {
    if ((await explainNoGpu()) !== null) return null
    const gpu = await openInstance('hardware', options)
    return accept(kind, gpu, await gpu.requestAdapter({ powerPreference: 'high-performance' }))
  }
  if (!hasBinaries) {
    const gpu = await openInstance('hardware', options)
    return accept(kind, gpu, await gpu.requestAdapter({ forceFallbackAdapter: true }))
  }
  const gpu = await openInstance('software', options)
  const driver = await softwareDriver()
  // The Vulkan loader reads these while Dawn looks for adapters, which happens before requestAdapter() returns its
  // promise. A hardware adapter that is asked for later must not see them.
  const names = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES']
  const before = names.map((name) => process.env[name])
  for (const name of names) process.env[name] = driver
  const adapter = gpu.requestAdapter()
  names.forEach((name, i) => {
    if (before[i] === undefined) delete process.env[name]
    else process.env[name] = before[i]
  })
  return accept(kind, gpu, await adapter)
}

/** Dawn's null back end: it compiles shaders and computes nothing. For checking shaders, never for results. */
export async function requestNullAdapter(): Promise<FoundAdapter> {
  const gpu = await openInstance('null', {})
  const adapter = await gpu.requestAdapter()
  if (!adapter) throw new Error('webgpu: Dawn has no null back end; install the npm package "webgpu" again')
  return foundAdapter(adapter, gpu, () => {})
}

/** Says in a few words, for an error message, why requestAdapter() gave null. */
export async function explainMissing(kind: AdapterKind): Promise<string> {
  if (kind === 'hardware') return (await explainNoGpu()) ?? 'Dawn found no hardware adapter; use wasm'
  return `SwiftShader comes for linux x64 only, and this ${process.platform} ${process.arch} offers no other; use wasm`
}

async function openInstance(name: string, options: AdapterOptions): Promise<GPU> {
  const flags: string[] = []
  if (name === 'null') flags.push('backend=null')
  // SwiftShader unrolls the clearing of workgroup memory in every group. Our kernels write what they read; Chromium tests the default.
  const enabled = name === 'software' ? ['disable_workgroup_init'] : []
  if (options.robustness === false) enabled.push('disable_robustness')
  if (enabled.length > 0) flags.push(`enable-dawn-features=${enabled.join(',')}`)
  if (options.exactTimestamps) flags.push('disable-dawn-features=timestamp_quantization')
  const key = [name, ...flags].join(' ')
  const { create, globals } = await importDawn()
  // GPUBufferUsage and the other constants that browsers have as globals.
  for (const [global, value] of Object.entries(globals)) {
    if (!(global in globalThis))
      Object.defineProperty(globalThis, global, { value, configurable: true, writable: true })
  }
  const gpu = instances.get(key) ?? create(flags)
  instances.set(key, gpu)
  return gpu
}

async function importDawn(): Promise<typeof import('webgpu')> {
  try {
    return await import('webgpu')
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split('\n')
    const missing = error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND'
    const found = missing ? 'is not installed' : `does not load (${reason})`
    throw new Error(`webgpu: the npm package "webgpu" ${found}; run npm install webgpu, or use wasm`)
  }
}

/** Why there cannot be a hardware adapter, or null if only Dawn can tell. */
async function explainNoGpu(): Promise<string | null> {
  try {
    await importDawn()
  } catch (error) {
    return error instanceof Error ? error.message.replace(/^webgpu: /, '') : String(error)
  }
  if (process.platform !== 'linux') return null
  // Dawn prints warnings to stderr when it finds nothing, so what can be seen without it is looked at first.
  const nodes = [...(await list('/dev')), ...(await list('/dev/dri'))]
  if (!nodes.some((node) => /^(renderD|nvidia\d|dxg$|kgsl|mali|pvr)/.test(node))) {
    return 'there is no GPU (no render node under /dev/dri, no /dev/nvidia*); use wasm'
  }
  if (!load('libvulkan.so.1')) return 'there is no Vulkan loader (libvulkan.so.1); install libvulkan1, or use wasm'
  return null
}

async function list(folder: string): Promise<string[]> {
  return await readdir(folder).catch(() => [])
}

function accept(kind: AdapterKind, gpu: GPU, adapter: GPUAdapter | null): FoundAdapter | null {
  if (!adapter || isSoftware(adapter.info) !== (kind === 'software')) return null
  return foundAdapter(adapter, gpu, () => {}, kind === 'software' ? waitAsleep : undefined)
}

const sleeper = new Int32Array(new SharedArrayBuffer(4))
/** A small part of any kernel's time on a CPU, and long beside one turn of the event loop. */
const NAP_MS = 2

/**
 * Awaits a promise with the thread asleep in between. Dawn in Node looks for finished work at every turn of the event loop and so
 * keeps a core busy, which a software adapter needs for itself.
 */
async function waitAsleep<T>(promise: Promise<T>): Promise<T> {
  let settled = false
  const settle = (): void => {
    settled = true
  }
  promise.then(settle, settle)
  for (;;) {
    await new Promise((resolve) => setImmediate(resolve))
    if (settled) return promise
    Atomics.wait(sleeper, 0, 0, NAP_MS)
  }
}
