// New folders: empty ones, and one that is made whole beside its place, until it gets its name.
import { mkdir, readdir, rename, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { show } from './json.ts'
import { explainSystem } from './system_errors.ts'

/** Makes a folder, unless it is there. Throws where the folder that it is to be in is missing. */
export async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return
    const reason = error.code === 'ENOENT' ? `no such directory: ${dirname(folder)}` : explainSystem(error)
    throw new Error(`${folder}: cannot be made: ${reason}`)
  })
}

/** Throws unless a folder that is to be made is missing or empty. */
export async function checkVacant(folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new Error(
      `${folder}: ${error.code === 'ENOTDIR' ? 'must be a directory, it is a file' : explainSystem(error)}`,
    )
  })
  if (names.length > 0)
    throw new Error(`${folder}: must be missing or empty, it has ${show(names[0])}; choose another --out`)
}

/** Gives a folder that is finished its name, which may be that of an empty folder; `what` is in it, for the error. */
export async function putInPlace(made: string, folder: string, what: string): Promise<void> {
  await rmdir(folder).catch(() => {})
  await rename(made, folder).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${folder}: cannot be made: ${explainSystem(error)}; ${what} is in ${made}`)
  })
}

/** Names of the folders in a folder, without those that begin with a dot. */
export async function listFolders(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.')).map(({ name }) => name)
}
