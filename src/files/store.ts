// Stores: folders that can be written, on a disk (disk.ts) or in memory. A store is a model directory too.
import { BLOCK_BYTES, BlockHash, digest, hex } from './hash.ts'
import { joinBytes, type ModelFiles, memorySource, type Source } from './source.ts'

/** A folder of files by name, without subfolders. What is written appears whole or not at all. */
export interface Store extends ModelFiles {
  /** Names of the files; none where the folder does not exist yet. Temporary files of unfinished writes are left out. */
  list(): Promise<string[]>
  /** Writes a file, in the place of one of that name. */
  write(file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void>
  /**
   * Puts bytes behind the first `length` bytes of a file and ends it there; a file that is not there is made where `length` is 0.
   * The one change that may be cut in the middle: what was before `length` stays.
   */
  append(file: string, length: number, bytes: Uint8Array): Promise<void>
  /** SHA-256 of a file, 64 hexadecimal digits; reads all of it. Throws where it is missing. */
  digest(file: string): Promise<string>
  /** Gives a file another name, in the place of one of that name. */
  rename(file: string, name: string): Promise<void>
  /** Removes a file; one that is not there is no error. */
  remove(file: string): Promise<void>
  /** Removes the folder itself where nothing is left in it. */
  removeIfEmpty(): Promise<void>
}

/** A store with folders, each of which is a store. */
export interface StoreTree extends Store {
  /** Names of the folders. */
  folders(): Promise<string[]>
  /** A folder by name; it need not be there yet. */
  folder(name: string): Store
  /** Gives a folder another name, which none may have. */
  renameFolder(name: string, to: string): Promise<void>
}

/** Makes a store in memory; `files` is what it holds, and stays the caller's to look at. */
export function memoryStore(name: string, files: Map<string, Uint8Array> = new Map()): Store {
  const take = (file: string): Uint8Array => {
    const bytes = files.get(file)
    if (bytes === undefined) throw new Error(`${name}/${file}: no such file`)
    return bytes
  }
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
    async append(file, length, bytes) {
      const before = files.get(file) ?? new Uint8Array()
      if (before.length < length) throw new Error(`${name}/${file}: must have ${length} bytes, got ${before.length}`)
      files.set(file, joinBytes([before.subarray(0, length), bytes]))
    },
    digest: async (file) => digest(new Uint8Array(take(file))),
    async rename(file, to) {
      const bytes = take(file)
      files.delete(file)
      files.set(to, bytes)
    },
    async remove(file) {
      files.delete(file)
    },
    async removeIfEmpty() {},
  }
}

/** Makes a store with folders in memory. */
export function memoryTree(name: string): StoreTree {
  const inside = new Map<string, Map<string, Uint8Array>>()
  const used = () => [...inside].filter(([, files]) => files.size > 0)
  return {
    ...memoryStore(name),
    async folders() {
      return used()
        .map(([folder]) => folder)
        .sort()
    },
    folder(folder) {
      const files = inside.get(folder) ?? new Map<string, Uint8Array>()
      inside.set(folder, files)
      return memoryStore(`${name}/${folder}`, files)
    },
    async renameFolder(folder, to) {
      const files = inside.get(folder)
      if (files === undefined) throw new Error(`${name}/${folder}: no such directory`)
      if (inside.get(to)?.size) throw new Error(`${name}/${to}: is there already`)
      inside.delete(folder)
      inside.set(to, files)
    },
  }
}

/** SHA-256 of the blocks of a file, as `BlockHash` gives it; null where it is missing. */
export async function fileDigest(store: ModelFiles, file: string): Promise<string | null> {
  const source = await store.open(file)
  if (source === null) return null
  try {
    const hash = new BlockHash()
    for (let at = 0; at < source.byteLength; at += BLOCK_BYTES) {
      await hash.update(await source.read(at, Math.min(BLOCK_BYTES, source.byteLength - at)))
    }
    return hex(await hash.result())
  } finally {
    await source.close()
  }
}
