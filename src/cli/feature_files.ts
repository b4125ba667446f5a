// Files of features that a command is given: one, several, or folders of them.
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { openFile } from '../files/disk.ts'
import { show } from '../files/json.ts'
import { openSafetensors } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import { arrayBlocks, concatBlocks, type FeatureBlocks, tensorArray } from '../files/table.ts'

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

const FLOATS = ['F32', 'BF16', 'F16'] as const

/** The states "embeddings" of files, [N, D] or both sides of pairs [N, 2, D], as rows of one matrix. */
export async function stateRows(sources: readonly Source[]): Promise<FeatureBlocks> {
  const parts: FeatureBlocks[] = []
  for (const source of sources) {
    const info = (await openSafetensors(source)).tensors.get('embeddings')
    const shape = info?.shape ?? []
    if (info === undefined || (shape.length !== 2 && !(shape.length === 3 && shape[1] === 2))) {
      throw new Error(`${source.name}: must have a tensor "embeddings" [N, D] or [N, 2, D], got ${show(info?.shape)}`)
    }
    const columns = shape[shape.length - 1]
    const rows = shape.slice(0, -1).reduce((product, n) => product * n, 1)
    if (rows === 0 || columns === 0) throw new Error(`${source.name}: embeddings are empty: ${show(shape)}`)
    parts.push(arrayBlocks({ ...tensorArray(info, FLOATS), shape: [rows, columns] }))
  }
  return concatBlocks(
    parts,
    sources.length === 1 ? sources[0].name : `${sources[0].name} and ${sources.length - 1} more`,
  )
}
