// What a command reads and what it is about to write, compared before it does anything.
import { checkTarget, findClash, type NamedPath } from '../files/disk.ts'
import { usageError } from './options.ts'

/** Paths by the option that names them. */
export type Paths = Readonly<Record<string, string | readonly (string | undefined)[] | undefined>>

export interface Claims {
  readonly inputs: Paths
  /** Files to be written; derived names too, such as that of a manifest. */
  readonly files?: Paths
  /** Folders to be filled. */
  readonly folders?: Paths
}

/**
 * Ends the command as wrong usage where an output is an input or another output, under whatever name; throws where a file cannot be
 * written.
 */
export async function claimOutputs({ inputs, files = {}, folders = {} }: Claims): Promise<void> {
  const written = listPaths(files)
  const clash = await findClash(listPaths(inputs), written, listPaths(folders))
  if (clash !== null) usageError(clash)
  for (const { path } of written) await checkTarget(path)
}

function listPaths(paths: Paths): NamedPath[] {
  return Object.entries(paths).flatMap(([option, given]) =>
    [given].flat().flatMap((path) => {
      if (path === undefined) return []
      // What standard input comes from may be a file.
      return (path === '-' ? [path, '/dev/stdin'] : [path]).map((known) => ({ option, path: known }))
    }),
  )
}
