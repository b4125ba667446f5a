// Opens the device and the model that a command asks for, and closes both however it ends.
import { cores } from '#threads'
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import { closeTensors, openModelTensors } from '../files/safetensors.ts'
import type { ModelFiles } from '../files/source.ts'
import { fingerprint } from '../reward/fingerprint.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel } from './options.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Runs long computations on the device so that they can be interrupted. */
export type Compute = <T>(work: () => Promise<T>) => Promise<T>

/** The fingerprint of the model, which is not loaded. */
export async function fingerprintModel({ model: folder }: DeviceChoice): Promise<string> {
  const files = await openDirectory(folder ?? embeddedModel())
  const tensors = await openModelTensors(files)
  try {
    return await fingerprint(files, tensors)
  } finally {
    await closeTensors(tensors)
  }
}

/** Loads a model by `load` and runs `work` with it. */
export async function withModel<M extends { destroy(): Promise<void> }, T>(
  { model: folder, device: kind, threads }: DeviceChoice,
  load: (device: Device, files: ModelFiles) => Promise<M>,
  work: (model: M, device: Device, compute: Compute) => Promise<T>,
): Promise<T> {
  const files = await openDirectory(folder ?? embeddedModel())
  const device = await openDevice(kind, { threads })
  // One thread alone is this one: it computes without a pause, in which a handler could be called.
  const compute: Compute =
    device.kind === 'wasm' && (threads ?? cores()) === 1 ? withoutInterruptHandler : (inner) => inner()
  try {
    const model = await load(device, folder === undefined ? { ...files, name: EMBEDDED } : files)
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
