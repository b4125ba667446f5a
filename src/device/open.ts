// Chooses and opens a device.
import { explainMissing, requestAdapter } from '#gpu'
import { Device } from './device.ts'
import { openWasm } from './wasm/runner.ts'
import type { AdapterKind } from './webgpu/adapter.ts'
import { openWebgpu } from './webgpu/runner.ts'

export type DeviceKind = 'auto' | 'webgpu' | 'webgpu:software' | 'wasm'

export const DEVICE_KINDS: readonly DeviceKind[] = ['auto', 'webgpu', 'webgpu:software', 'wasm']

export interface OpenOptions {
  /** CPU threads, 1 to 64; all cores by default. Results do not depend on it. */
  readonly threads?: number
}

/**
 * Opens a device. `auto` takes a hardware GPU where there is one and the CPU elsewhere, never a software adapter;
 * `webgpu` insists on hardware, `webgpu:software` is a GPU emulated on the CPU, for tests and for kernel developers.
 * Throws when the device asked for is missing.
 */
export async function openDevice(kind: DeviceKind = 'auto', { threads }: OpenOptions = {}): Promise<Device> {
  if (!DEVICE_KINDS.includes(kind)) throw new Error(`device: must be one of ${DEVICE_KINDS.join(', ')}, got "${kind}"`)
  if (kind === 'wasm') return new Device(await openWasm(threads))
  const wanted = kind === 'webgpu:software' ? 'software' : 'hardware'
  const device = await openGpu(wanted)
  if (device) return device
  if (kind === 'auto') return new Device(await openWasm(threads))
  throw new Error(`device: ${kind} is not there: ${await explainMissing(wanted)}`)
}

/** Opens a hardware GPU, or gives null where there is none. */
export function openHardware(): Promise<Device | null> {
  return openGpu('hardware')
}

async function openGpu(wanted: AdapterKind): Promise<Device | null> {
  const found = await requestAdapter(wanted)
  if (!found) return null
  try {
    return new Device(await openWebgpu(found))
  } catch (error) {
    found.release()
    throw error
  }
}
