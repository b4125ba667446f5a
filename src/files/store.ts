// Stores: folders that can be written, on a disk (disk.ts) or in memory. A store is a model directory too.
import { joinBytes, type ModelFiles, memorySource, type Source } from './source.ts'

/** A folder of files by name, without subfolders. What is written appears whole or not at all. */
export interface Store extends ModelFiles {
  /** Names of the files; none where the folder does not exist yet. Temporary files of unfinished writes are left out. */
  list(): Promise<string[]>
  /** Writes a file, in the place of one of that name. */
  write(file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void>
  /** Gives a file another name, in the place of one of that name. */
  rename(file: string, name: string): Promise<void>
  /** Removes a file; one that is not there is no error. */
  remove(file: string): Promise<void>
  /** Removes the folder itself where nothing is left in it. */
  removeIfEmpty(): Promise<void>
}

/** Makes a store in memory; `files` is what it holds, and stays the caller's to look at. */
export function memoryStore(name: string, files: Map<string, Uint8Array> = new Map()): Store {
  return {
    name,
    async open(file): Promise<Source | null> {
      const bytes = files.get(file)
      return bytes === undefined ? null : memorySource(`${name}/${file}`, bytes)
    },
    async list() {
      return [...files.keys()].sort()
    },
    async write(file, chunks) {
      const parts: Uint8Array[] = []
      for await (const chunk of chunks) parts.push(chunk.slice())
      files.set(file, joinBytes(parts))
    },
    async rename(file, to) {
      const bytes = files.get(file)
      if (bytes === undefined) throw new Error(`${name}/${file}: no such file`)
      files.delete(file)
      files.set(to, bytes)
    },
    async remove(file) {
      files.delete(file)
    },
    async removeIfEmpty() {},
  }
}
