// A model directory, opened once: configuration, manifest and the headers of its tensors.
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { type Manifest, readManifest } from './manifest.ts'

export interface ModelDirectory {
  readonly name: string
  readonly files: ModelFiles
  /** The object of config.json as it stands. */
  readonly config: Readonly<Record<string, unknown>>
  readonly manifest: Manifest
  /** All tensors; their sources are open until `close`. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** Closes the files; safe to call twice. */
  close(): Promise<void>
}

/** Opens a model directory. Throws where config.json or the tensors are missing, or one of them or pinball.json is damaged. */
export async function openModelDirectory(files: ModelFiles): Promise<ModelDirectory> {
  const where = `${files.name}/config.json`
  const text = await readText(files, 'config.json')
  if (text === null) throw new Error(`${where}: is missing; a model directory needs it`)
  const config = parseJsonObject(text, where)
  const manifest = await readManifest(files)
  const tensors = await openModelTensors(files)
  let closed = false
  return {
    name: files.name,
    files,
    config,
    manifest,
    tensors,
    async close() {
      if (closed) return
      closed = true
      await closeTensors(tensors)
    },
  }
}

/** Opens a directory for the model that `make` makes of it; it is closed once that is destroyed, or could not be made. */
export async function openFor<M extends { destroy(): Promise<void> }>(
  files: ModelFiles,
  make: (directory: ModelDirectory) => Promise<M>,
): Promise<M> {
  const directory = await openModelDirectory(files)
  try {
    const model = await make(directory)
    const destroy = async (): Promise<void> => {
      await model.destroy()
      await directory.close()
    }
    // Getters stay getters.
    return Object.create(Object.prototype, {
      ...Object.getOwnPropertyDescriptors(model),
      destroy: { value: destroy, enumerable: true },
    })
  } catch (error) {
    await directory.close()
    throw error
  }
}
