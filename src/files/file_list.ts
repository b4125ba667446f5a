// Files that a person names by their paths: each alone, or a folder that stands for the files in it; opened and closed together.
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { openFile } from './disk.ts'
import { closeSources, type Source } from './source.ts'

/** Paths of files of features; a folder stands for all its files NAME.safetensors, by name. Throws where a folder has none. */
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

/** Whether a path is that of a file that is there. */
export async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true
}

/** Whether an output is to be a folder: one that is there, or a name without an ending that no file has, or with a slash behind it. */
export async function namesFolder(path: string): Promise<boolean> {
  if (/[\\/]$/.test(path)) return true
  const about = await stat(path).catch(() => null)
  return about === null ? !/.\./.test(basename(path)) : about.isDirectory()
}

/** Opens files, runs `work` with them, and closes them, however it ends and also where one cannot be opened. */
export async function withFiles<T>(
  paths: readonly string[],
  work: (sources: readonly Source[]) => Promise<T>,
): Promise<T> {
  const sources: Source[] = []
  try {
    for (const path of paths) sources.push(await openFile(path))
    return await work(sources)
  } finally {
    await closeSources(sources)
  }
}

/** Opens a file, runs `work` with it, and closes it. */
export async function withFile<T>(path: string, work: (source: Source) => Promise<T>): Promise<T> {
  return withFiles([path], ([source]) => work(source))
}
