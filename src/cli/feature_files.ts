// Files of features that a command is given: one, several, or folders of them.
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { openFile } from '../files/disk.ts'
import type { Source } from '../files/source.ts'

/** Paths of the files; a folder stands for all its files NAME.safetensors, by name. Throws where a folder has none. */
export async function listFeatureFiles(paths: readonly string[]): Promise<string[]> {
  const files: string[] = []
  for (const path of paths) {
    const about = await stat(path).catch(() => null)
    if (!about?.isDirectory()) {
      files.push(path)
      continue
    }
    const names = (await readdir(path)).filter((name) => name.endsWith('.safetensors')).sort()
    if (names.length === 0) throw new Error(`${path}: has no file of features (NAME.safetensors)`)
    files.push(...names.map((name) => join(path, name)))
  }
  return files
}

/** Opens files; all are closed where one cannot be opened. */
export async function openFiles(paths: readonly string[]): Promise<Source[]> {
  const sources: Source[] = []
  try {
    for (const path of paths) sources.push(await openFile(path))
    return sources
  } catch (error) {
    for (const source of sources) await source.close()
    throw error
  }
}
