// Files of features that a command is given: one, several, or folders of them.
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { openFile } from '../files/disk.ts'
import { closeSources, type Source } from '../files/source.ts'

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
    await closeSources(sources)
    throw error
  }
}

/** Opens the files of `listFeatureFiles`, runs `work` with them, and closes them. */
export async function withFeatureFiles<T>(
  paths: readonly string[],
  work: (sources: Source[]) => Promise<T>,
): Promise<T> {
  const sources = await openFiles(await listFeatureFiles(paths))
  try {
    return await work(sources)
  } finally {
    await closeSources(sources)
  }
}
