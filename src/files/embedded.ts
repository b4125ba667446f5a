// The models that come with the package.
import { openModelFolder } from '#embedded'
import { show } from './json.ts'
import type { ModelFiles } from './source.ts'
import type { UrlOptions } from './url.ts'

/** A small reward model, and an adapter over it that has been fine-tuned on conversations. */
export const EMBEDDED = ['nano', 'nano-sft'] as const

export interface EmbeddedOptions extends UrlOptions {
  /**
   * Address of the package's folder `models/`, for pages whose bundler leaves it behind: copy it to where static files are served. By
   * default it is where the package's own modules are served from; in Node it is the package itself.
   */
  readonly base?: string | URL
}

/** Opens a model of the package by name, by default `nano`. Throws on other names. */
export async function openEmbedded(
  name: (typeof EMBEDDED)[number] = 'nano',
  options: EmbeddedOptions = {},
): Promise<ModelFiles> {
  if (!EMBEDDED.includes(name))
    throw new Error(`embedded models: must be one of ${EMBEDDED.join(', ')}, got ${show(name)}`)
  return openModelFolder(name, options)
}

/** The folder of the package from the address of one of its modules: in dist/ when it is built, in src/files/ before. */
export function packageFolder(module: string): URL {
  const at = module.lastIndexOf('/dist/')
  return at < 0 ? new URL('../../', module) : new URL(module.slice(0, at + 1))
}
