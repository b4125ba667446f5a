// Which device is opened: a hardware GPU that computes right, or the CPU.
import { explainMissing, requestAdapter } from '#gpu'
import type { Backend } from './backend.ts'
import { checkDevice } from './check.ts'
import { Device } from './device.ts'
import type { OpenOptions } from './open.ts'
import { openWasm } from './wasm/runner.ts'
import type { AdapterKind, FoundAdapter } from './webgpu/adapter.ts'
import { openWebgpu } from './webgpu/runner.ts'

/** Opens a hardware GPU that passes the check, or gives null where there is none. */
export async function openHardware(): Promise<Device | null> {
  const { device } = await tryGpu(findHardware())
  return device
}

/** Gives an adapter, or says in a few words why there is none. */
type Find = () => Promise<FoundAdapter | string>

/** Looks for a hardware GPU. */
export const findHardware =
  (profile?: boolean): Find =>
  async () =>
    (await requestAdapter('hardware', { exactTimestamps: profile })) ?? explainMissing('hardware' satisfies AdapterKind)

/** Opens the adapter that `find` gives if it passes the check, and the CPU whatever happens. */
export async function openBest(find: Find, options: OpenOptions = {}): Promise<Device> {
  const { device, reason } = await tryGpu(find, options.profile)
  // The reasons of an adapter end with advice, which is being followed.
  return device ?? openCpu(reason.replace(/(;|,? or) use wasm$/, ''), options)
}

/** Opens the CPU; `reason` says why it is the CPU. */
export async function openCpu(reason: string, { threads, workerUrl }: OpenOptions): Promise<Device> {
  const { backend, note } = await openWasm(threads, workerUrl)
  return new Device(backend, `wasm: ${reason}${note}`)
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

/** Opens a device on an adapter, which is released where that fails. */
export async function openFound(found: FoundAdapter, profile?: boolean): Promise<Backend> {
  try {
    return await openWebgpu(found, { profile })
  } catch (error) {
    found.release()
    throw error
  }
}
