// Chooses and opens a device.
import { explainMissing, requestAdapter } from '#gpu'
import type { Backend } from './backend.ts'
import { checkDevice } from './check.ts'
import { Device } from './device.ts'
import { openWasm } from './wasm/runner.ts'
import type { AdapterKind, FoundAdapter } from './webgpu/adapter.ts'
import { openWebgpu } from './webgpu/runner.ts'

export type DeviceKind = 'auto' | 'webgpu' | 'webgpu:software' | 'wasm'

export const DEVICE_KINDS: readonly DeviceKind[] = ['auto', 'webgpu', 'webgpu:software', 'wasm']

export interface OpenOptions {
  /** CPU threads, 1 to 64; all cores by default. Results do not depend on it. */
  readonly threads?: number
  /** Whether `device.profile` will be used: asks the GPU for exact timestamps, where it has them. */
  readonly profile?: boolean
}

/**
 * Opens a device. `auto` takes a hardware GPU where there is one that computes a small check right, and the CPU elsewhere, never
 * a software adapter; `device.choice` says which and why. `webgpu` insists on hardware, `webgpu:software` is a GPU emulated on
 * the CPU, for tests and for kernel developers. Throws when the device asked for is missing.
 */
export async function openDevice(kind: DeviceKind = 'auto', options: OpenOptions = {}): Promise<Device> {
  if (!DEVICE_KINDS.includes(kind)) throw new Error(`device: must be one of ${DEVICE_KINDS.join(', ')}, got "${kind}"`)
  const { threads, profile } = options
  if (kind === 'wasm') return new Device(await openWasm(threads), 'wasm: asked for')
  if (kind === 'auto') return openBest(findHardware(profile), options)
  const wanted = kind === 'webgpu:software' ? 'software' : 'hardware'
  const found = await requestAdapter(wanted, { exactTimestamps: profile })
  if (!found) throw new Error(`device: ${kind} is not there: ${await explainMissing(wanted)}`)
  return new Device(await openFound(found, profile), `${kind}: asked for, ${found.description}`)
}

/** Opens a hardware GPU that passes the check, or gives null where there is none. */
export async function openHardware(): Promise<Device | null> {
  const { device } = await tryGpu(findHardware())
  return device
}

/** Gives an adapter, or says in a few words why there is none. */
type Find = () => Promise<FoundAdapter | string>

const findHardware =
  (profile?: boolean): Find =>
  async () =>
    (await requestAdapter('hardware', { exactTimestamps: profile })) ?? explainMissing('hardware' satisfies AdapterKind)

/** Opens the adapter that `find` gives if it passes the check, and the CPU whatever happens. */
export async function openBest(find: Find, { threads, profile }: OpenOptions = {}): Promise<Device> {
  const { device, reason } = await tryGpu(find, profile)
  // The reasons of an adapter end with advice, which is being followed.
  return device ?? new Device(await openWasm(threads), `wasm: ${reason.replace(/(;|,? or) use wasm$/, '')}`)
}

async function tryGpu(find: Find, profile?: boolean): Promise<{ device: Device | null; reason: string }> {
  let device: Device | null = null
  let name = 'WebGPU'
  try {
    const found = await find()
    if (typeof found === 'string') return { device, reason: found }
    name = found.description
    const backend = await openFound(found, profile)
    device = new Device(backend, `${backend.name}: ${name} passed a check`)
    await checkDevice(device)
    return { device, reason: '' }
  } catch (error) {
    // A GPU that hangs does not end either; nobody waits for it.
    void device?.destroy().catch(() => {})
    const said = error instanceof Error ? error.message : String(error)
    return { device: null, reason: `${name} failed (${said})` }
  }
}

async function openFound(found: FoundAdapter, profile?: boolean): Promise<Backend> {
  try {
    return await openWebgpu(found, { profile })
  } catch (error) {
    found.release()
    throw error
  }
}
