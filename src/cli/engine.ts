// Opens the device and the model that a command asks for, and closes both however it ends.
import { cores } from '#threads'
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import type { ModelFiles } from '../files/source.ts'
import { fingerprintOf } from '../reward/fingerprint.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel, type ModelChoice } from './options.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Runs long computations on the device so that they can be interrupted. */
export type Compute = <T>(work: () => Promise<T>) => Promise<T>

/** The fingerprint of the model under its adapter, which are not loaded. */
export async function fingerprintModel({ model: folder, adapter }: ModelChoice): Promise<string> {
  return fingerprintOf(
    await openDirectory(folder ?? embeddedModel()),
    adapter === undefined ? null : await openDirectory(adapter),
  )
}

/** Loads a model by `load`, which is given the adapter too, and runs `work` with it. */
export async function withModel<M extends { destroy(): Promise<void> }, T>(
  { model: folder, adapter, device: kind, threads }: ModelChoice,
  load: (device: Device, files: ModelFiles, own: { readonly adapter: ModelFiles | null }) => Promise<M>,
  work: (model: M, device: Device, compute: Compute) => Promise<T>,
): Promise<T> {
  const files = await openDirectory(folder ?? embeddedModel())
  const own = { adapter: adapter === undefined ? null : await openDirectory(adapter) }
  const device = await openDevice(kind, { threads })
  // One thread alone is this one: it computes without a pause, in which a handler could be called.
  const compute: Compute =
    device.kind === 'wasm' && (threads ?? cores()) === 1 ? withoutInterruptHandler : (inner) => inner()
  try {
    const model = await load(device, folder === undefined ? { ...files, name: EMBEDDED } : files, own)
    try {
      return await work(model, device, compute)
    } finally {
      await model.destroy()
    }
  } finally {
    await device.destroy()
  }
}

/** Opens a device, runs `work` with it, and closes it. */
export async function withDevice<T>(
  { device: kind, threads }: Pick<DeviceChoice, 'device' | 'threads'>,
  work: (device: Device) => Promise<T>,
): Promise<T> {
  const device = await openDevice(kind, { threads })
  try {
    return await work(device)
  } finally {
    await device.destroy()
  }
}
