// Chooses and opens a device.
import { explainMissing, requestAdapter } from '#gpu'
import { findHardware, openBest, openCpu, openFound } from './choose.ts'
import { Device } from './device.ts'

export type DeviceKind = 'auto' | 'webgpu' | 'webgpu:software' | 'wasm'

export const DEVICE_KINDS: readonly DeviceKind[] = ['auto', 'webgpu', 'webgpu:software', 'wasm']

export interface OpenOptions {
  /** CPU threads, 1 to 64; all cores by default. Results do not depend on it. */
  readonly threads?: number
  /**
   * Address of the package's `dist/pinball.worker.js`, for pages whose policy forbids workers from `blob:` URLs. Where no worker
   * starts, the CPU computes on one thread.
   */
  readonly workerUrl?: string | URL
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
  const { profile } = options
  if (kind === 'wasm') return openCpu('asked for', options)
  if (kind === 'auto') return openBest(findHardware(profile), options)
  const wanted = kind === 'webgpu:software' ? 'software' : 'hardware'
  const found = await requestAdapter(wanted, { exactTimestamps: profile })
  if (!found) throw new Error(`device: ${kind} is not there: ${await explainMissing(wanted)}`)
  return new Device(await openFound(found, profile), `${kind}: asked for, ${found.description}`)
}
