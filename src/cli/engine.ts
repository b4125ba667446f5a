// Opens the device and the model that a command asks for, and closes both however it ends.
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import type { ModelFiles } from '../files/source.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel } from './options.ts'

/** Loads a model by `load` and runs `work` with it. */
export async function withModel<M extends { destroy(): Promise<void> }, T>(
  { model: folder, device: kind, threads }: DeviceChoice,
  load: (device: Device, files: ModelFiles) => Promise<M>,
  work: (model: M, device: Device) => Promise<T>,
): Promise<T> {
  const files = await openDirectory(folder ?? embeddedModel())
  const device = await openDevice(kind, { threads })
  try {
    const model = await load(device, folder === undefined ? { ...files, name: EMBEDDED } : files)
    try {
      return await work(model, device)
    } finally {
      await model.destroy()
    }
  } finally {
    await device.destroy()
  }
}
