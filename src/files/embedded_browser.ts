// Models of the package in a browser: from its address. The `#embedded` module of everything but Node.
import { type EmbeddedOptions, packageFolder } from './embedded.ts'
import type { ModelFiles } from './source.ts'
import { openUrl } from './url.ts'

/** Opens a folder of models/. */
export async function openModelFolder(name: string, { base, ...options }: EmbeddedOptions): Promise<ModelFiles> {
  const models = base === undefined ? new URL('models/', packageFolder(import.meta.url)) : new URL(base, location.href)
  return openUrl(`${models.href.replace(/\/*$/, '')}/${name}`, options)
}
