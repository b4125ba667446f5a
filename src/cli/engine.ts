// Opens the device, the model and the features that a command asks for, and closes them however it ends.
import { cores } from '#threads'
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import { listFeatureFiles, withFiles } from '../files/file_list.ts'
import type { ModelFiles, Source } from '../files/source.ts'
import { fingerprintOf } from '../reward/fingerprint.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel, type ModelChoice } from './options.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Runs long computations on the device so that they can be interrupted. */
export type Compute = <T>(work: () => Promise<T>) => Promise<T>

/** The directories of the model that is chosen, and of its adapter if there is one. Throws where there is none. */
export async function openModel({ model: folder, adapter }: Pick<ModelChoice, 'model' | 'adapter'>): Promise<{
  readonly files: ModelFiles
  readonly adapter: ModelFiles | null
}> {
  const files = await openDirectory(folder ?? embeddedModel())
  return { files, adapter: adapter === undefined ? null : await openDirectory(adapter) }
}

/** The fingerprint of the model under its adapter, which are not loaded. */
export async function fingerprintModel(choice: ModelChoice): Promise<string> {
  const { files, adapter } = await openModel(choice)
  return fingerprintOf(files, adapter)
}

/** Opens files of features, or of folders of them, runs `work` with them, and closes them. */
export async function withFeatures<T>(
  paths: readonly string[],
  work: (sources: readonly Source[]) => Promise<T>,
): Promise<T> {
  return withFiles(await listFeatureFiles(paths), work)
}

/** Loads a model by `load`, which is given the adapter too, and runs `work` with it. */
export async function withModel<M extends { destroy(): Promise<void> }, T>(
  choice: ModelChoice,
  load: (device: Device, files: ModelFiles, own: { readonly adapter: ModelFiles | null }) => Promise<M>,
  work: (model: M, device: Device, compute: Compute) => Promise<T>,
): Promise<T> {
  const { model: folder, threads } = choice
  const { files, adapter } = await openModel(choice)
  return withDevice(choice, async (device) => {
    // One thread alone is this one: it computes without a pause, in which a handler could be called.
    const compute: Compute =
      device.kind === 'wasm' && (threads ?? cores()) === 1 ? withoutInterruptHandler : (inner) => inner()
    const model = await load(device, folder === undefined ? { ...files, name: EMBEDDED } : files, { adapter })
    try {
      return await work(model, device, compute)
    } finally {
      await model.destroy()
    }
  })
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
