// The devices that a test runs on; one that is missing is a failure, never a skip.
import type { Device } from '../src/device/device.ts'
import { type DeviceKind, openDevice } from '../src/device/open.ts'

let devices: Promise<Device[]> | null = null

/** The GPU under test: the software adapter, which every machine has, or with PINBALL_GPU=webgpu the hardware one. */
const GPU = (globalThis.process?.env.PINBALL_GPU ?? 'webgpu:software') as DeviceKind

/** Every back end of this runtime: CPU with all threads, CPU with one thread, and a GPU. Opened once a process. */
export function testDevices(): Promise<Device[]> {
  devices ??= Promise.all([openDevice('wasm'), openDevice('wasm', { threads: 1 }), openDevice(GPU)])
  return devices
}

/** Closes what `testDevices` opened. */
export async function closeDevices(): Promise<void> {
  for (const device of (await devices) ?? []) await device.destroy()
  devices = null
}
