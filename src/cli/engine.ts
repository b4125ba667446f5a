// Opens the device, the model and the features that a command asks for, and closes them however it ends.
import { cores } from '#threads'
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import { isFile, listFeatureFiles, withFile, withFiles } from '../files/file_list.ts'
import { isSafetensors } from '../files/safetensors.ts'
import type { ModelFiles, Source } from '../files/source.ts'
import { fingerprintOf } from '../reward/fingerprint.ts'
import { calibrationBeside, headsFiles } from '../reward/heads_directory.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel, type ModelChoice } from './options.ts'
import { withoutInterruptHandler } from './signals.ts'

/** Runs long computations on the device so that they can be interrupted. */
export type Compute = <T>(work: () => Promise<T>) => Promise<T>

/** The directories of the model that is chosen, and of its adapter if there is one. Throws where there is none. */
export async function openModel({
  model: folder,
  adapter,
  heads,
}: Pick<ModelChoice, 'model' | 'adapter' | 'heads'>): Promise<{
  readonly files: ModelFiles
  readonly adapter: ModelFiles | null
  readonly heads: ModelFiles | null
}> {
  const files = await openHeads(folder ?? embeddedModel())
  return {
    files,
    adapter: adapter === undefined ? null : await openDirectory(adapter),
    heads: heads === undefined ? null : await openHeads(heads),
  }
}

/** A model directory, or a file of heads, with its calibration beside it, as the directory that it stands for. */
export async function openHeads(path: string): Promise<ModelFiles> {
  if (!(await isFile(path)) || !(await withFile(path, isSafetensors))) return openDirectory(path)
  const calibration = calibrationBeside(path)
  const paths = (await isFile(calibration)) ? [path, calibration] : [path]
  return withFiles(paths, ([heads, beside]) => headsFiles(heads, beside))
}

/** The fingerprint of the model under its adapter, which are not loaded. */
export async function fingerprintModel(choice: ModelChoice): Promise<string> {
  const { files, adapter } = await openModel(choice)
  return fingerprintOf(files, adapter)
}

/** What a command was given beside the model. */
export interface OwnParts {
  readonly adapter: ModelFiles | null
  readonly heads: ModelFiles | null
}

/** Opens files of features, or of folders of them, runs `work` with them, and closes them. */
export async function withFeatures<T>(
  paths: readonly string[],
  work: (sources: readonly Source[]) => Promise<T>,
): Promise<T> {
  return withFiles(await listFeatureFiles(paths), work)
}

/** Loads a model by `load`, which is given the adapter and the heads too, and runs `work` with it. */
export async function withModel<M extends { destroy(): Promise<void> }, T>(
  choice: ModelChoice,
  load: (device: Device, files: ModelFiles, own: OwnParts) => Promise<M>,
  work: (model: M, device: Device, compute: Compute) => Promise<T>,
): Promise<T> {
  const { model: folder, threads } = choice
  const { files, adapter, heads } = await openModel(choice)
  return withDevice(choice, async (device) => {
    // One thread alone is this one: it computes without a pause, in which a handler could be called.
    const compute: Compute =
      device.kind === 'wasm' && (threads ?? cores()) === 1 ? withoutInterruptHandler : (inner) => inner()
    const model = await load(device, folder === undefined ? { ...files, name: EMBEDDED } : files, { adapter, heads })
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
