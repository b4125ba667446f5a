// Models of the package in Node: from its folder. The `#embedded` module of Node.
import { fileURLToPath } from 'node:url'
import { openDirectory } from './disk.ts'
import { type EmbeddedOptions, packageFolder } from './embedded.ts'
import type { ModelFiles } from './source.ts'
import { openUrl } from './url.ts'

/** Opens a folder of models/. */
export async function openModelFolder(name: string, { base, ...options }: EmbeddedOptions): Promise<ModelFiles> {
  if (base !== undefined) return openUrl(`${String(base).replace(/\/*$/, '')}/${name}`, options)
  return openDirectory(fileURLToPath(new URL(`models/${name}`, packageFolder(import.meta.url))))
}
